"""The HTTP gateway: checks, publishes, and answers when Kafka has acknowledged."""
