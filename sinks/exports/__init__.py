"""Exports: what tenants ask for on the topic `exports`, written as files by processes beside the sink.

`requests` puts what is asked for into the table `exports`, in the sink's own transaction. `worker` is a thread that
claims one export after the other and has a process of its own write each (`__main__`, `copying`), at the lowest
priority: it takes neither the interpreter's lock nor the CPU that upserts need.
"""
