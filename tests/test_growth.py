"""A worker's memory while it folds on and on: `tillstream bench --only growth` does so with more."""

import psutil
from pipeline import Pipeline

from deploy.bench import movements

PRODUCTS = 5_000
STEP = 250_000
"""50 movements a product, so that each level holds the 32 ids that it may."""


def test_movements_of_the_same_products_take_no_more_memory(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams@a", restarted=False)
    worker = own_pipeline.children["streams@a"]
    resident = []
    for step in range(1, 6):
        movements.publish(own_pipeline.settings, STEP, 500, step, PRODUCTS)
        movements.pace(own_pipeline.settings, step * STEP)
        resident.append(psutil.Process(worker.pid).memory_info().rss / 1e6)
    # Buffers settle in the first steps; an object kept of each movement after the second would be 40 MB.
    assert resident[-1] < resident[1] + 15, resident
