"""uvicorn's HTTP protocol with one keep-alive timer a connection: it sets and cancels one a request, 4 µs each."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class LazyKeepAlive(HttpToolsProtocol):
    """Closes a connection that waits too long for its next request, as uvicorn does, by a timer that is seldom set."""

    _idle_since: float | None = None
    """By the loop's clock, since the last answer; None while a request is under way."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._close_after(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close what has been idle for long enough; else look again when it might be."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        idle_s = 0.0 if self._idle_since is None else self.loop.time() - self._idle_since
        if idle_s < self.timeout_keep_alive:
            self._close_after(self.timeout_keep_alive - idle_s)
        else:
            self.transport.close()

    def _close_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn calls it when data come."""
        self._idle_since = None
