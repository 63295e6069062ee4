"""The resume file: what is acknowledged in any order, kept whole and private."""

import json
import random
import stat
from pathlib import Path

import pytest

from producers.chunks import Chunk, Place
from producers.http import Answer
from producers.resume import Acknowledged, Fingerprint, Progress, ResumeFile, begun
from schemas.errors import Misconfigured

FILE = Fingerprint("x.ndjson", 1, 1, "")


def test_acknowledgements_in_any_order_move_the_place_over_whole_runs() -> None:
    chunks = [Chunk(n, 10 * n - 10, n, 10, 1, 1) for n in range(1, 60)]
    random.Random(3).shuffle(chunks)
    progress = begun(FILE, Place())
    acknowledged = Acknowledged(progress)
    for count, chunk in enumerate(chunks, 1):
        acknowledged.add(chunk, Answer(1, 0, [], []))
        assert progress.accepted == count
        have = {*range(1, progress.place.number + 1), *progress.beyond}
        assert have == {c.number for c in chunks[:count]}
        assert progress.place.number + 1 not in have
    assert progress.place == Place(59, 590, 60)
    assert progress.beyond == []


def test_a_later_run_passes_by_what_is_acknowledged() -> None:
    progress = Progress(FILE, Place(2, 20, 3), "k", beyond=[4, 5], accepted=4)
    acknowledged = Acknowledged(progress)
    assert [n in acknowledged for n in (3, 4, 5, 6)] == [False, True, True, False]
    for number in (4, 5):
        acknowledged.pass_by(Chunk(number, 10 * number - 10, number, 10, 1, 1))
    assert progress.place.number == 2
    acknowledged.add(Chunk(3, 20, 3, 10, 1, 1), Answer(1, 0, [], []))
    assert (progress.place, progress.beyond, progress.accepted) == (Place(5, 50, 6), [], 5)


def test_the_file_is_private_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "resume.json"
    resume = ResumeFile(path)
    resume.save()
    assert not path.exists()
    resume.contents.keys["acme"] = "ts_x"
    resume.contents.uploads["acme/orders"] = Progress(FILE, Place(1, 2, 3), "k", token="t", beyond=[7])
    resume.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["resume.json"]
    assert ResumeFile(path).contents == resume.contents
    assert json.loads(path.read_text())["uploads"]["acme/orders"]["place"]["number"] == 1


def test_a_resume_file_that_is_none_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "resume.json"
    path.write_text("half a f")
    with pytest.raises(Misconfigured, match=r"--restart sends everything anew; API keys .* resume.json.damaged"):
        ResumeFile(path)
    assert path.read_text() == "half a f"
    assert ResumeFile(path, restart=True).contents.uploads == {}
    assert (tmp_path / "resume.json.damaged").read_text() == "half a f"


def test_an_edited_resume_file_is_not_believed_and_keeps_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "resume.json"
    resume = ResumeFile(path)
    resume.contents.keys["acme"] = "ts_x"
    resume.contents.uploads["acme/orders"] = Progress(FILE, Place(1, 2, 3), "k", token="t", beyond=[7])
    resume.save()
    path.write_text(edited := path.read_text().replace("[7]", "[7,8]"))
    with pytest.raises(Misconfigured, match=r"changed by hand.* --restart sends everything anew, and keeps the API"):
        ResumeFile(path)
    assert path.read_text() == edited
    again = ResumeFile(path, restart=True)
    assert (again.contents.uploads, again.contents.keys) == ({}, {"acme": "ts_x"})
    again.save()
    assert ResumeFile(path).contents.keys == {"acme": "ts_x"}
