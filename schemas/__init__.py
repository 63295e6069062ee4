"""What crosses a process boundary: topics, envelopes, Avro, rows, settings, metrics and error types."""
