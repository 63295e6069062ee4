"""Streams whose tables do not know what was flushed: `python -m tests.faulty_fence`. Only for tests of the checker."""

from streams import dedup
from streams.__main__ import main

if __name__ == "__main__":
    dedup.fenced = lambda seen, offset: False
    main()
