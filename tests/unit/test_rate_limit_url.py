"""Which stores of rate limits a gateway starts with."""

import pytest

from gateway.rate_limits import RateLimits
from schemas.errors import Misconfigured
from schemas.settings import Settings


@pytest.mark.parametrize(
    "url",
    ["redis:/x", "redis://", "redis://h", "redis:///0", "valkey", "valkey:///x", "redis://h:port", "redis://h:99999", "redis://h/x",
     "memcached://h", "memory", "http://:s3cret@h"],
)  # fmt: skip
def test_a_store_that_is_none_gets_a_plain_sentence(url: str) -> None:
    with pytest.raises(Misconfigured) as told:
        RateLimits(Settings(rate_limit_url=url))
    assert str(told.value).startswith("TILLSTREAM_RATE_LIMIT_URL takes memory://, or redis://host:port/0")
    assert "prerequisite" not in str(told.value)
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    "url", ["memory://", "redis://h:1", "valkey://:pw@[::1]:6379/0", "rediss://u:pw@h:1/", "valkeys://h:1/"]
)
def test_a_store_is_not_asked_before_the_first_request(url: str) -> None:
    assert RateLimits(Settings(rate_limit_url=url))
