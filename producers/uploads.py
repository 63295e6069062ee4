"""Resumable uploads, as a client: files to chunks to the gateway, each once, whatever ends the run and when."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

from producers.calls import Patience, Refused, accepted
from producers.chunks import Chunk, Limits, Source
from producers.gateway import Gateway, key_header, together
from producers.http import Answer, chunk_answer
from producers.resume import Acknowledged, Fingerprint, Progress
from producers.upload_state import FINISHED, Chunks, RowErrors, State
from schemas.errors import Misconfigured, Unavailable

_LONGEST_POLL_S: Final = 2.0


class Watch(Protocol):
    """Who is told how an upload goes."""

    def began(self, upload: "Upload") -> None:
        """It is about to send; `upload.progress` says from where."""

    def answered(self, upload: "Upload", chunk: Chunk, answer: Answer) -> None:
        """A chunk was answered."""

    def note(self, upload: "Upload", text: str) -> None:
        """Something that a person wants to know."""


class Upload:
    """One file of one tenant; `progress` is moved on as chunks are acknowledged."""

    def __init__(
        self, gateway: Gateway, tenant_id: str, entity: str, source: Source, progress: Progress, watch: Watch
    ) -> None:
        self.tenant_id, self.entity, self.source, self.progress = tenant_id, entity, source, progress
        self.api_key = ""
        self.sent_rows = 0
        self._refused: dict[int, int] = {}
        """By chunk, a bit for each line that was refused at once: little, however many they are."""
        self.seconds = 0.0
        self.state: State | None = None
        self.failure: Exception | None = None
        self._gateway, self._watch = gateway, watch
        self._base = f"/api/v1/tenants/{quote(tenant_id, safe='')}"

    @property
    def name(self) -> str:
        """For people: `<tenant>/<file>`."""
        return f"{self.tenant_id}/{self.source.path.name}"

    @property
    def _path(self) -> str:
        return f"{self._base}/uploads/{self.progress.token}"

    @property
    def _auth(self) -> dict[str, str]:
        return key_header(self.api_key)

    async def run(self, concurrency: int, *, dry: bool = False) -> None:
        """Send what is not acknowledged yet, then complete the upload; or have every row checked, and publish none.

        Raises Rejected or Misconfigured for what must be put right first, Unavailable when patience ends.
        """
        try:
            await (self._check(concurrency) if dry else self._run(concurrency))
        except Refused as exc:
            raise _explained(exc, self.name) from exc

    async def _run(self, concurrency: int) -> None:
        if self.progress.token:
            await self._go_on()
        if self.progress.completed:
            return
        if not self.progress.token:
            if next(self.source.chunks(self.progress.limits, self.source.start), None) is None:
                self._watch.note(self, "has no rows")
                return
            await self._open()
        acknowledged = Acknowledged(self.progress)

        async def put(chunk: Chunk) -> Answer | None:
            if chunk.number in acknowledged:
                acknowledged.pass_by(chunk)
                return None
            answer = await self._send("PUT", f"{self._path}/chunks/{chunk.number}", chunk)
            acknowledged.add(chunk, answer)
            return answer

        self.progress.chunks = await self._each(put, concurrency)
        if Fingerprint.of(self.source.path) != self.progress.file:
            raise Misconfigured(f"{self.name} has changed while it was sent; --restart sends it anew")
        await self._complete()
        self.progress.completed = True

    async def _check(self, concurrency: int) -> None:
        async def post(chunk: Chunk) -> Answer:
            answer = await self._send("POST", f"{self._base}/ingest/{self.entity}?validate_only=true", chunk)
            self.progress.accepted += answer.accepted
            self.progress.rejected += answer.rejected
            return answer

        await self._each(post, concurrency)

    async def _each(self, send: Callable[[Chunk], Awaitable[Answer | None]], concurrency: int) -> int:
        """Send the chunks, so many at a time; returns the last one's number."""
        last, started = self.progress.place.number, time.monotonic()
        chunks = self.source.chunks(self.progress.limits, self.progress.place)
        self._watch.began(self)

        async def work() -> None:
            nonlocal last
            for chunk in chunks:
                last = max(last, chunk.number)
                if (answer := await send(chunk)) is not None:
                    self.sent_rows += chunk.rows
                    self._watch.answered(self, chunk, answer)

        try:
            await together(work() for _ in range(concurrency))
        finally:
            self.seconds += time.monotonic() - started
        return last

    async def _send(self, method: str, path: str, chunk: Chunk) -> Answer:
        answer = await self._gateway.send(method, path, self._auth, lambda: self.source.body(chunk))
        said = chunk_answer(answer)
        said.rejected = chunk.rows - said.accepted  # the errors listed may be fewer than the rows that have them
        for error in said.errors:
            self._refused[chunk.number] = self._refused.get(chunk.number, 0) | 1 << error["line"]
        return said

    async def _open(self) -> None:
        key = self.progress.key
        wanted = {"entity": self.entity, "name": self.source.path.name[:200]}
        said = accepted(
            await self._gateway.call("POST", f"{self._base}/uploads", self._auth, wanted, Idempotency_Key=key)
        )
        self.progress.token, self.progress.upload_id = said["token"], said["upload_id"]
        limits = Limits()
        self.progress.limits = Limits(limits.lines, min(limits.bytes, said["max_chunk_bytes"]))

    async def _go_on(self) -> None:
        """Ask the gateway how far it is; begin anew where it can go on no more."""
        try:
            state = await self.look()
        except Refused as exc:
            if exc.code != "unknown_upload":
                raise
            self._anew("this gateway does not know its upload")
            return
        if self.progress.completed:
            if state.state == "open":  # said too recently, or to a database that is no more
                await self._complete()
            elif await self._send_missing(state, set()):
                return
            self._watch.note(self, "was sent before; nothing to send (--restart sends it anew)")
        elif state.state in ("cancelled", "expired"):
            self._anew(f"its upload is {state.state}")
        elif not (state.rows.rejected or state.rows.conflict):
            self._skip(state.chunks)

    async def _complete(self) -> None:
        done = {"chunks": self.progress.chunks}
        accepted(await self._gateway.call("POST", f"{self._path}/complete", self._auth, done))

    def _anew(self, why: str) -> None:
        self._watch.note(self, f"{why}: it is sent anew")
        # The key follows from the one before: a run that is killed here opens the same upload again.
        fresh = Progress(self.progress.file, self.source.start, self.progress.key + "+")
        for field in msgspec.structs.fields(fresh):  # in place, since the resume file holds it
            setattr(self.progress, field.name, getattr(fresh, field.name))

    def _skip(self, chunks: Chunks) -> None:
        """Take applied chunks as acknowledged though their answers were lost; the caller knows that all was good."""
        listed = len(chunks.missing) == chunks.missing_count
        upto = chunks.applied + chunks.missing_count if listed else chunks.missing[-1]
        known = {*range(1, self.progress.place.number + 1), *self.progress.beyond, *chunks.missing}
        applied = {number for number in range(1, upto + 1) if number not in known}
        for chunk in self.source.chunks(self.progress.limits, self.progress.place) if applied else ():
            if chunk.number > upto:
                break
            if chunk.number in applied:
                self.progress.accepted += chunk.rows
                self.progress.beyond.append(chunk.number)

    async def _send_missing(self, state: State, sent: set[int]) -> bool:
        """Send again what will not come by itself, and was not `sent` so before; whether there was any.

        A chunk is acknowledged before the upload is completed, and a tenant's messages are applied in order: what is
        missing once the ledger has `completed` was never there, or was lost with a database.
        """
        missing = set(state.chunks.missing) - sent if state.state == "processing" else set()
        for chunk in self.source.chunks(self.progress.limits, self.source.start) if missing else ():
            if chunk.number in missing:
                self._watch.note(self, f"chunk {chunk.number} is missing: it is sent again")
                await self._send("PUT", f"{self._path}/chunks/{chunk.number}", chunk)
        sent |= missing
        return bool(missing)

    async def look(self) -> State:
        """The upload's state as the ledger has it. Raises Refused, Unavailable."""
        said = accepted(await self._gateway.call("GET", self._path, self._auth))
        self.state = msgspec.convert(said, State)
        return self.state

    @property
    def refused_later(self) -> int:
        """Accepted rows that were refused after all, as the tenant's policies may; 0 before `look`."""
        if self.state is None:
            return 0
        return max(0, self.state.rows.rejected - self.progress.rejected) + self.state.rows.conflict

    async def late_errors(self) -> AsyncGenerator[tuple[Chunk, Answer], None]:
        """The errors of rows that were not refused at once in this run, each with its chunk. Raises as `look`."""
        chunks = self.source.chunks(self.progress.limits, self.source.start)
        chunk = next(chunks, None)
        async for line in self._gateway.lines(f"{self._path}/errors", self._auth):
            row = msgspec.json.decode(line, type=RowErrors)
            while chunk is not None and chunk.number < row.chunk:
                chunk = next(chunks, None)
            if chunk is not None and not self._refused.get(row.chunk, 0) >> row.line & 1:
                yield chunk, Answer(0, 1, [], [{**error, "line": row.line} for error in row.errors])

    async def wait(self, patience: Patience) -> None:
        """Return when every chunk is in the ledger. Raises Unavailable when nothing moves for longer than patience."""
        try:
            await self._wait(patience)
        except Refused as exc:
            raise _explained(exc, self.name) from exc

    async def _wait(self, patience: Patience) -> None:
        started, pause = time.monotonic(), 0.1
        before, sent_again = None, set[int]()
        while (state := await self.look()).state not in FINISHED:
            if state.state in ("cancelled", "expired"):
                raise Misconfigured(f"{self.name} is {state.state}; --restart sends it anew")
            if await self._send_missing(state, sent_again):
                patience.progress()
            elif (seen := (state.chunks.applied, state.rows)) != before:
                before = seen
                patience.progress()
            elif patience.left <= 0:
                why = f"{state.chunks.missing_count} chunks are acknowledged and not applied"
                raise Unavailable(f"{self.name}: {why}, and none was for {patience.seconds:.0f} s; do the sinks run?")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_S)
        self.seconds += time.monotonic() - started


def _explained(refused: Refused, name: str) -> Exception:
    """What to do about a refusal."""
    if refused.code in ("upload_expired", "upload_cancelled"):
        return Unavailable(f"{name}: {refused.detail}. Run the same command again to send it anew")
    if refused.code in ("chunk_conflict", "chunk_out_of_range", "upload_completed", "too_few_chunks"):
        return Misconfigured(f"{name}: {refused}. Has the file changed? --restart sends it anew")
    return Misconfigured(f"{name}: {refused}")
