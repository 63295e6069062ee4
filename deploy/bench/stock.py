"""Stock movements folded by one worker, and its tables recovered, against plain Faust and Quix Streams."""

import re
import time
from collections.abc import Iterator
from typing import Final

import httpx

from deploy.bench import figures, movements, peers
from deploy.bench.figures import Figure
from deploy.bench.installation import Installation, Say, spent
from deploy.stack import Stack
from schemas import topics
from schemas.errors import Unavailable

BATCH: Final = 500
FOLD_TARGET: Final = 80_000
SINGLE_TARGET: Final = 6_000
RECOVERY_TARGET: Final = 150_000
FOLD_RATIO: Final = 5
RECOVERY_RATIO: Final = 20
QUIX_RATIO: Final = 4
_PEER_MOVEMENTS: Final = 100_000
_QUIX_MOVEMENTS: Final = 500_000
_QUIX: Final = "deploy.bench.plain_quix"
_FAUST: Final = "deploy.bench.plain_faust"
_FAUST_CHANGELOG: Final = "plain-faust-levels-changelog"
"""Not imported from there: no command of `tillstream` shall wait until Faust is imported."""
_METRIC: Final = r"^{name}\{{table=\"{table}\"\}} (\S+)$"


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """Movements over 50,000 products in messages of 500 and of one, by one worker, and its recovery; a plain peer."""
    folded, singles = 5 * count, min(count, 60_000)
    with Installation(stack, "stock") as shop:
        say("movements in batches")
        movements.publish(shop.settings, folded, BATCH)
        shop.start("streams")
        before = shop.cpu_seconds()
        with shop.memory() as peak:
            pace = movements.pace(shop.settings, folded)
        used = spent(before, shop.cpu_seconds())
        shop.stop("streams")
        say("recovery")
        recovery = _recovered(shop)
        shop.stop("streams")
    with Installation(stack, "stocksingle") as shop:
        say("single movements")
        movements.publish(shop.settings, singles, 1)
        shop.start("streams")
        single = movements.pace(shop.settings, singles)
        shop.stop("streams")
    with Installation(stack, "stockplain") as shop:
        say("the plain peer")
        movements.publish(shop.settings, _PEER_MOVEMENTS, BATCH)
        said = peers.said(_FAUST, [str(_PEER_MOVEMENTS)], shop.settings, "folded")
        peer_pace = said["folded"] / said["seconds"]
        say("the plain peer's recovery")
        said = peers.said(_FAUST, [str(_PEER_MOVEMENTS)], shop.settings, "recovered")
        peer_recovery = movements.records(shop.settings, _FAUST_CHANGELOG) / said["seconds"]
    quix = list(_quix(stack, pace, say))
    yield figures.limit("plain faust.Table, batches of 500", peer_pace, "movements/s")
    yield _against("folded, batches of 500", pace, peer_pace, FOLD_TARGET, FOLD_RATIO, "movements/s")
    yield from quix
    yield Figure("single movements, a message each", f"{single:,.0f} messages/s", None,
                 f">= {SINGLE_TARGET:,}", single >= SINGLE_TARGET)  # fmt: skip
    yield figures.limit("Faust's own recovery", peer_recovery, "records/s")
    yield _against("recovered levels", recovery, peer_recovery, RECOVERY_TARGET, RECOVERY_RATIO, "records/s")
    yield from figures.cpu(used, folded, "movement")
    yield from (Figure(f"resident at most, {role}", f"{size:,.0f} MB") for role, size in peak.items())


def _quix(stack: Stack, pace: float, say: Say) -> Iterator[Figure]:
    """The pace of Quix Streams, and ours against it; where it cannot be installed, a line that says why."""
    say("installing Quix Streams")
    try:
        python = peers.quix_python(stack)
    except Unavailable as exc:
        yield Figure(f"left out: Quix Streams {peers.QUIX}", str(exc))
        return
    with Installation(stack, "stockquix") as shop:
        movements.publish(shop.settings, _QUIX_MOVEMENTS, BATCH)
        for style, words in peers.QUIX_STYLES.items():
            say(f"Quix Streams, {words}")
            arguments = [style, str(_QUIX_MOVEMENTS // BATCH)]
            said = peers.said(_QUIX, arguments, shop.settings, "folded", python)
            peer = _QUIX_MOVEMENTS / said["seconds"]
            yield figures.limit(f"Quix Streams {peers.QUIX}, {words}", peer, "movements/s")
            yield Figure("folded, batches of 500", f"{pace:,.0f} movements/s", pace / peer,
                         f">= {QUIX_RATIO} x Quix", pace >= QUIX_RATIO * peer)  # fmt: skip


def _against(name: str, value: float, peer: float, target: int, ratio: int, unit: str) -> Figure:
    met = value >= target and value >= ratio * peer
    return Figure(name, f"{value:,.0f} {unit}", value / peer, f">= {target:,}, {ratio} x plain", met)


def _recovered(shop: Installation) -> float:
    """Records a second that a worker with an empty table reads of `stock.levels`."""
    shop.start("streams")
    deadline = time.monotonic() + movements.QUIET_S
    while (records := _metric(shop, "tillstream_table_restored_total")) == 0:
        if time.monotonic() > deadline:
            raise Unavailable("streams recovered no level")
        time.sleep(0.1)
    return records / _metric(shop, "tillstream_table_restore_seconds_sum")


def _metric(shop: Installation, name: str) -> float:
    text = httpx.get(shop.urls["streams"]).text
    found = re.search(_METRIC.format(name=name, table=re.escape(topics.STOCK_LEVELS)), text, re.MULTILINE)
    return float(found[1]) if found else 0.0
