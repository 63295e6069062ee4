"""What `tillstream demo --keep` sends outlives a gateway that starts again."""

import asyncio
from contextlib import suppress

import httpx
from pipeline import Pipeline, eventually

from deploy import live_traffic
from producers.generate import Plan


def test_traffic_goes_on_where_the_gateway_starts_again(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway")
    tenant, key = own_pipeline.tenant()
    gateway = own_pipeline.children["gateway"]

    def taken() -> bool:
        with suppress(httpx.TransportError):
            return "tillstream_produced_total{" in own_pipeline.http.get("/metrics").text
        return False

    async def scene() -> None:
        traffic = asyncio.create_task(
            live_traffic.send(str(own_pipeline.http.base_url), {tenant: key}, Plan(1, 10, 10))
        )
        await asyncio.to_thread(eventually, taken)
        own_pipeline.kill("gateway")
        await asyncio.to_thread(eventually, lambda: gateway.restarts == 1 and taken())
        assert not traffic.done()
        traffic.cancel()
        with suppress(asyncio.CancelledError):
            await traffic

    asyncio.run(scene())
