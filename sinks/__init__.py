"""Sinks: from topics into PostgreSQL, each message once, offsets in the same transaction as the rows."""
