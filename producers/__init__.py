"""The way into Kafka: awaitable for the gateway and for anyone who produces directly, and the same without asyncio."""

from producers.client import Producer
from producers.sync import SyncProducer

__all__ = ["Producer", "SyncProducer"]
