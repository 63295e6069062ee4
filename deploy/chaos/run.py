"""A run: start a stack, load it, break it, let it come to rest, write down what is there, judge it."""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct, to_builtins

from deploy.chaos import evidence, history
from deploy.chaos.check import Report, check
from deploy.chaos.cluster import SESSION_S, TARGETS, Cluster
from deploy.chaos.history import History
from deploy.chaos.load import Load
from deploy.chaos.nemesis import FAULTS, Nemesis, Strike, schedule
from deploy.chaos.shop import Shop

_LAST_CALL_S: Final = 60.0
_LOOK_S: Final = 0.25


class Plan(Struct, frozen=True):
    """What a run is to be. Of the same plan the schedule and what each client asks for are the same, not the timing."""

    seconds: float = 60.0
    seed: int = 1
    tenants: int = 4
    clients: int = 2
    """Of each tenant, side by side."""
    pace_s: float = 0.25
    """Between two requests of a client, on average."""
    rows: int = 12
    """The most of a request."""
    faults: tuple[str, ...] = FAULTS
    gap_s: float = 3.0
    """Between two faults, on average."""
    targets: tuple[str, ...] = TARGETS
    disk_mb: int = 1_024
    """Of the small disk; 0 for none."""
    drain_s: float = 240.0
    """How long everything may take to come to rest; a machine that does other things too is slow."""
    strikes: tuple[Strike, ...] | None = None
    """A schedule of one's own, instead of the seed's."""

    def schedule(self) -> list[Strike]:
        """The nemesis's."""
        if self.strikes is not None:
            return list(self.strikes)
        return schedule(self.seed, self.seconds, self.targets, self.faults, SESSION_S, self.gap_s)


class Result(Struct, frozen=True):
    """What a run came to."""

    report: Report
    history: Path
    asked: dict[str, int]
    struck: dict[str, int]
    restarts: dict[str, int]


class Progress(Struct, frozen=True):
    """How far a run is."""

    elapsed_s: float
    asked: dict[str, int]
    struck: int
    last: str


def run(
    plan: Plan,
    path: Path,
    *,
    modules: Mapping[str, str] | None = None,
    on_step: Callable[[str], None] = lambda step: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Make a history at `path` and judge it. `modules` run instead of a role's own: how tests put a fault into it.

    Raises Unavailable when the stack does not start, or does not serve again when the nemesis has ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="tillstream-chaos-"))
    try:
        with (
            Cluster(folder, modules=modules, disk_mb=plan.disk_mb, on_step=on_step) as cluster,
            History(path) as written,
        ):
            return _run(plan, cluster, written, on_step, on_progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    plan: Plan,
    cluster: Cluster,
    written: History,
    on_step: Callable[[str], None],
    on_progress: Callable[[Progress], None],
) -> Result:
    began, strikes = time.time(), plan.schedule()
    names = [f"shop-{n}" for n in range(plan.tenants)]
    written.add("run", began=began, plan=to_builtins(plan), schedule=to_builtins(strikes))
    keys = cluster.add_tenants(names)
    shops = [
        (name, Shop(plan.seed, name, client, began, plan.rows)) for name in names for client in range(plan.clients)
    ]
    load = Load(cluster.gateway_url, keys, shops, written, plan.pace_s)
    nemesis = Nemesis(strikes, cluster.children, cluster.settings.database_url, cluster.disk, written)
    on_step(f"{len(shops)} clients ask, and {len(strikes)} faults begin")
    load.start()
    nemesis.start()
    ends = time.monotonic() + plan.seconds
    restarts: dict[str, int] = {}
    try:
        while (left := ends - time.monotonic()) > 0:
            _note_restarts(cluster, written, restarts)
            last = nemesis.struck[-1] if nemesis.struck else None
            said = f"{last.fault} {last.target}" if last else ""
            on_progress(Progress(plan.seconds - left, dict(load.counted), len(nemesis.struck), said))
            time.sleep(min(_LOOK_S, left))
    except BaseException:  # Ctrl-C: the clients' thread would go on for ever
        load.finish(0.0)
        raise
    finally:
        nemesis.finish()
    on_step("nothing is broken any more; the clients ask once more for what they do not know")
    load.finish(_LAST_CALL_S)
    cluster.serving(plan.drain_s)
    _note_restarts(cluster, written, restarts)
    evidence.gather(cluster.settings, written, plan.drain_s, on_step)
    on_step("comparing")
    report = check(history.read(written.path))
    for kind, what in report.found():
        written.add("found", fault=kind, what=what)
    struck: dict[str, int] = {}
    for strike in nemesis.struck:
        struck[strike.fault] = struck.get(strike.fault, 0) + 1
    return Result(report, written.path, dict(load.counted), struck, restarts)


def _note_restarts(cluster: Cluster, written: History, known: dict[str, int]) -> None:
    """Write down which processes were started again since `known`, which is brought up to date."""
    for name, child in cluster.children.items():
        if child.restarts > known.get(name, 0):
            written.add("restarted", target=name, pid=child.pid, times=child.restarts)
        known[name] = child.restarts
