// Swagger UI takes every media type with "json" in its name for JSON, and would put an example of lines in quotes.
const LinesAsTheyAre = () => ({
  afterLoad() {
    const sample = this.fn.getSampleSchema;
    this.fn.getSampleSchema = (schema, mediaType, config, example) =>
      mediaType === "application/x-ndjson" && typeof example === "string"
        ? example
        : sample(schema, mediaType, config, example);
  },
});

SwaggerUIBundle({
  url: new URL("../openapi.json", window.location.href).href,
  dom_id: "#swagger-ui",
  plugins: [LinesAsTheyAre],
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false, // keys do not belong in a browser's storage
  tryItOutEnabled: true,
  validatorUrl: null, // the default asks validator.swagger.io
});
