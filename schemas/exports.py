"""What gateways and sinks agree on about exports: the events' types, its bounds, and what a file is called."""

from typing import Final

EXPORT_REQUESTED: Final = "tillstream.export-requested.v1"
EXPORT_CANCELLED: Final = "tillstream.export-cancelled.v1"
FORMATS: Final = ("csv", "ndjson")
MAX_OPEN: Final = 5
"""Exports of a tenant that wait or run at a time, as far as gateways can count them."""
MOST_OPEN: Final = 50
"""Beyond so many a sink lets a request fail: gateways that are asked at the same time do not see each other's."""
KEPT_H: Final = 72
"""Hours for which a file can be downloaded."""


def file_name(tenant_id: str, export_id: str, attempt: int, format_: str, *, gzip: bool) -> str:
    """Where the file of an export lies in its store; a tenant's id and a UUID hold nothing that a path could not.

    Each attempt has a name of its own, so that one that outlives its worker writes to none of another's.
    """
    return f"{of_export(tenant_id, export_id)}{attempt}.{format_}{'.gz' if gzip else ''}"


def of_export(tenant_id: str, export_id: str) -> str:
    """What the names of all files of an export begin with."""
    return f"{tenant_id}/{export_id}."
