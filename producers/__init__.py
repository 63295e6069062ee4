"""The way into Kafka: one awaitable producer, for the gateway and for anyone who produces directly."""

from producers.client import Producer

__all__ = ["Producer"]
