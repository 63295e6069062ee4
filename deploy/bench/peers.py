"""Peers of the stock stream: programs of their own that fold the same movements and say how long it took.

Quix Streams needs another confluent-kafka than we do, so it gets a virtual environment of its own, made when a
benchmark asks for it and gone with the benchmark's folder. The product never sees it.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Final

import deploy
from deploy.stack import Stack
from schemas.errors import Unavailable
from schemas.settings import Settings

QUIX: Final = "3.28.1"
QUIX_STYLES: Final = {"events": "a movement an event", "batches": "a batch a call"}
"""As plain_quix.py describes them."""
_SHARED: Final = ("fastavro", "msgspec")
"""What our schemas and the fold need of packages; the peer gets the versions that we run with."""
_INSTALL_S: Final = 180.0
_ENDS_S: Final = 20.0


def quix_python(stack: Stack) -> str:
    """A Python that has Quix Streams and can import our schemas and fold.

    Raises Unavailable, with pip's last word, where it cannot be installed.
    """
    folder = stack.data_dir / f"quixstreams-{QUIX}"
    python = folder / "bin" / "python"
    wanted = [f"quixstreams=={QUIX}", *(f"{name}=={metadata.version(name)}" for name in _SHARED)]
    try:
        venv.create(folder, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
            check=True, capture_output=True, text=True, timeout=_INSTALL_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise Unavailable(f"pip did not install it within {_INSTALL_S:.0f} s") from exc
    except subprocess.CalledProcessError as exc:
        said = (exc.stderr or exc.output or "").strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"pip could not install it: {said[-1]}") from exc
    # Behind its own packages on the path, so that it imports its own confluent-kafka even where ours is beside us.
    [site] = folder.glob("lib/python*/site-packages")
    (site / "tillstream.pth").write_text(f"{Path(deploy.__file__).parent.parent}\n")
    return str(python)


def said(module: str, arguments: Sequence[str], settings: Settings, what: str, python: str = "") -> dict[str, Any]:
    """The line of JSON that begins with `what`, of `python -m module`; it is ended as soon as it has said so.

    Raises Unavailable when it ends before.
    """
    command = [python or sys.executable, "-m", module, *arguments]
    # Another Python must not look for our packages before its own.
    env = {name: value for name, value in os.environ.items() if not python or name != "PYTHONPATH"} | settings.env()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            return _line(process.stdout, what, module)
        finally:
            process.terminate()  # it sends what it has not sent yet
            try:
                process.wait(_ENDS_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _line(lines: IO[str], what: str, module: str) -> dict[str, Any]:
    for line in lines:
        _, found, rest = line.partition(f'{{"{what}"')  # Faust says other things too, on the same line
        if found:
            told: dict[str, Any] = json.loads(found + rest)
            return told
    raise Unavailable(f"{module} ended before it was done")
