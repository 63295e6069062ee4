"""Whether a worker of streams grows while it folds: resident memory after so many movements of 50,000 products.

A level remembers the product's last 32 movements (16 bytes each), so that memory fills until each product had 32: by
random products some 2,500,000 movements. What comes after that must cost nothing but the ids of messages, which are
remembered for 7 days.
"""

from collections.abc import Iterator
from typing import Final

from deploy.bench import movements
from deploy.bench.figures import Figure
from deploy.bench.installation import Installation, Say
from deploy.stack import Stack

_STEPS: Final = (500_000, 2_000_000, 3_000_000, 5_000_000)
_FULL: Final = 3_000_000
_BATCH: Final = 500
_MOST_GROWTH: Final = 0.05


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """Resident memory of one worker after 500,000 to 5,000,000 movements, whatever the count."""
    with Installation(stack, "growth") as shop:
        shop.start("streams")
        sent, resident = 0, dict[int, float]()
        for seed, total in enumerate(_STEPS):
            say(f"{total:,} movements")
            movements.publish(shop.settings, total - sent, _BATCH, seed)
            sent = total
            movements.pace(shop.settings, total)
            resident[total] = shop.resident("streams")
    for total, size in resident.items():
        ratio = size / resident[_FULL]
        grown = total > _FULL
        yield Figure(
            f"resident after {total:,} movements", f"{size:,.1f} MB", ratio,
            f"<= {1 + _MOST_GROWTH:.2f}" if grown else "", ratio <= 1 + _MOST_GROWTH if grown else None,
        )  # fmt: skip
