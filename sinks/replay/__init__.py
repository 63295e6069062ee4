"""Replay: the tables of a tenant, or of all, made again from the topics beside the live ones, compared, and put right.

**Shadow.** A schema `replay_<tenant>_<hash>` (`replay_all`) with unlogged copies of the live tables' structure, indexes
included, since PostgreSQL refuses what does not fit an index. The sinks' own code (`Intake`, `writer.write`) writes
there, with that schema alone in its search path: a table that nobody thought of is an error, and never a write to a
live one. Records of other tenants are dropped by their key, before anything is decoded. An advisory lock of the session
tells a shadow in use from one that a killed replay left behind, which the next replay, or `--clean`, drops.

**One point in the log.** Live tables hold what lies before the offsets in `sink_offsets`, which move with the rows. The
shadow is read up to exactly those offsets, in a last transaction in which the tables are compared too. To look, that
transaction is REPEATABLE READ: it sees the live tables and their offsets as of one moment, its own writes to the shadow
as well, and locks nothing.

**Promotion.** The last transaction first locks the rows of `sink_offsets` that it needs. A sink moves its offsets
before it writes anything, so that sinks in the middle of a batch are waited for, and the next ones wait: whatever these
partitions would write is held back, for other tenants on them too, until the commit. Then, in the same transaction:
catch up, compare, delete the live rows that are extra or different, insert the shadow's. Rows that are the same are not
touched, so that the time depends on comparing, not on writing; `hold_s` bounds it, and past that bound nothing has
changed. Sinks go on from their own offsets afterwards, as if nothing had been.

**Merge.** A range of the log, or a log whose beginning is gone, says nothing of rows that it does not mention. Such a
replay finds no extra rows, adds those that are missing, and replaces those that are older than its own (or, where a
version belongs to one message, that are as old and yet different). Facts, such as a line of the ledger, are added only:
what became of a message may depend on what came before the range. Policies from before the range are read all the same;
where their messages are gone, those of the live tables count from the beginning.

**Compacted topics** (`stock.levels`, `tenants`) say only what was said last. Where sinks lag so far behind that a later
record of theirs has outlived an earlier one (a segment: a day, or 1 GB), a row may be compared with less than the live
table knew; the sinks put it right when they come by.

Which tables there are is asked of PostgreSQL; what a replay does with each stands in `sinks/replay/tables.py`, and a
table with a tenant that is not there is refused.
"""
