"""`tillstream generate` as a process: flags over presets, constant memory, whole files only."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import resource, sys
from deploy.cli import main
sys.argv[0] = "tillstream"
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


def generate(*arguments: str, largest_file: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    command = [sys.executable, "-c", RUN, "generate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=120)


def lines(folder: Path, name: str) -> list[int]:
    return [file.read_bytes().count(b"\n") for file in sorted(folder.glob(f"*/{name}.ndjson"))]


def test_flags_go_before_the_preset(tmp_path: Path) -> None:
    flags = ("--preset", "medium", "--tenants", "3", "--products-per-tenant", "7", "--orders-per-tenant", "40")
    done = generate(str(tmp_path), *flags, "--chunk-size", "9")
    assert done.returncode == 0, done.stderr
    assert [lines(tmp_path, name) for name in ("customers", "products", "orders")] == [[10] * 3, [7] * 3, [40] * 3]
    assert (tmp_path / "tenants.csv").read_bytes().count(b"\n") == 4
    assert re.search(r"orders\.ndjson\D+3\D+120\D", done.stdout)
    small = tmp_path / "small"
    assert generate(str(small), "--tenants", "1", "--orders-per-tenant", "40").returncode == 0
    assert (lines(small, "products"), lines(small, "orders")) == ([500], [40])


def test_chunk_size_changes_no_byte_and_the_seed_does(tmp_path: Path) -> None:
    made = []
    for name, flags in {"a": ["--chunk-size", "1"], "b": ["--chunk-size", "1000"], "c": ["--seed", "8"]}.items():
        numbers = ["--tenants", "1", "--products-per-tenant", "20", "--orders-per-tenant", "50"]
        assert generate(str(tmp_path / name), *numbers, *flags).returncode == 0
        made.append((tmp_path / name / "acme-001" / "orders.ndjson").read_bytes())
    assert made[0] == made[1] != made[2]


def test_ten_times_the_rows_need_no_more_memory(tmp_path: Path) -> None:
    peaks = []
    for orders in ("20000", "200000"):
        done = generate(str(tmp_path), "--tenants", "1", "--products-per-tenant", "5000", "--orders-per-tenant", orders)
        assert done.returncode == 0, done.stderr
        peaks.append(int(re.findall(r"peak (\d+)", done.stderr)[0]))
    assert peaks[1] < peaks[0] + 12, f"MB: {peaks}"


def test_a_full_disk_leaves_no_half_file_under_a_final_name(tmp_path: Path) -> None:
    done = generate(str(tmp_path), largest_file=200_000)
    assert done.returncode == 2
    assert "File too large" in " ".join(done.stderr.split())
    assert "Make room or choose another folder" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "tenants.csv").exists()
    assert not (tmp_path / "acme-001" / "orders.ndjson").exists()
    assert all(file.read_bytes().endswith(b"}\n") for file in tmp_path.rglob("*.ndjson"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/dev/null/x"], "/dev/null"),
        (["x", "--tenants", "0"], "--tenants"),
        (["x", "--chunk-size", "-1"], "--chunk-size"),
    ],
)
def test_what_cannot_be_made_gets_a_sentence(arguments: list[str], says: str) -> None:
    done = generate(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
