SwaggerUIBundle({
  url: new URL("../openapi.json", window.location.href).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false, // keys do not belong in a browser's storage
  tryItOutEnabled: true,
  validatorUrl: null, // the default asks validator.swagger.io
});
