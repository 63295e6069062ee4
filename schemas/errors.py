"""The error tree. What an error is decides what happens: quarantine, wait, or end the process."""


class TillstreamError(Exception):
    """Base of every error that this project raises on purpose."""


class Rejected(TillstreamError):
    """The data is wrong and stays wrong: quarantine it under `code`, go on with the rest."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Undecodable(Rejected):
    """Bytes that no known schema, framing or header convention can read."""


class Unavailable(TillstreamError):
    """The environment is at fault: pause, then try again after `retry_after` seconds; lose nothing."""

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Misconfigured(TillstreamError):
    """Going on would be wrong; the message says what to do. Ends the process with exit code 2."""
