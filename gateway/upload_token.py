"""The token of an upload: signed, and all that a gateway must know of it."""

import base64
import binascii
import hmac
import struct
import time
import uuid
from dataclasses import dataclass
from typing import Final

_ENTITIES: Final = ("customers", "products", "orders")
_FORMAT: Final = struct.Struct(">16sBqq")
_MAC_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Token:
    """Times in microseconds since 1970."""

    upload_id: uuid.UUID
    entity: str
    opened_us: int
    expires_us: int

    @property
    def expired(self) -> bool:
        """Whether no chunk is taken any more."""
        return time.time_ns() // 1000 >= self.expires_us

    def sign(self, secret: str, tenant_id: str) -> str:
        """As text that fits a path."""
        said = _FORMAT.pack(self.upload_id.bytes, _ENTITIES.index(self.entity), self.opened_us, self.expires_us)
        return base64.urlsafe_b64encode(said + _mac(secret, tenant_id, said)).decode().rstrip("=")

    @classmethod
    def read(cls, secret: str, tenant_id: str, text: str) -> "Token | None":
        """The token that a gateway with this secret signed for this tenant, else None."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        said, mac = raw[: _FORMAT.size], raw[_FORMAT.size :]
        if len(said) != _FORMAT.size or not hmac.compare_digest(mac, _mac(secret, tenant_id, said)):
            return None
        upload_id, entity, opened_us, expires_us = _FORMAT.unpack(said)
        return cls(uuid.UUID(bytes=upload_id), _ENTITIES[entity], opened_us, expires_us)


def _mac(secret: str, tenant_id: str, said: bytes) -> bytes:
    return hmac.digest(secret.encode(), b"upload\n" + tenant_id.encode() + b"\n" + said, "sha256")[:_MAC_BYTES]
