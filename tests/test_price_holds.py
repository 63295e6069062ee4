"""Which held prices wait: what is listed agrees with what streams make of a decision."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline import eventually
from test_price_http import NDJSON, Trader, lines, market, to

__all__ = ["market"]
BEGUN = datetime(2026, 1, 31, 12, tzinfo=UTC)


def at(hours: float) -> str:
    return (BEGUN + timedelta(hours=hours)).isoformat()


# What comes after a price of 100 that is held against one of 10 from 0:00 o'clock, and happened at 3:00; what that is
# by itself, and whether the held one waits no more.
FOLLOWING: dict[str, tuple[dict[str, Any], str, bool]] = {
    "nothing": ({}, "", False),
    "another price": (to("10.40", occurred_at=at(4)), "accepted", True),
    "an odd price": (to("19.00", occurred_at=at(4)), "anomaly", True),
    "another held price": (to("101.00", occurred_at=at(4)), "held", True),
    "the price in force, said again": (to("10.00", occurred_at=at(4)), "accepted", True),
    "the price in force, said again earlier": (to("10.00", occurred_at=at(2)), "accepted", True),
    "a price from before it": (to("10.40", occurred_at=at(2)), "accepted", False),
    "a price from before the one in force": (to("10.40", occurred_at=at(-1)), "superseded", False),
    "a price that is none": (to("0.00", occurred_at=at(4)), "rejected", False),
}


def test_a_held_price_waits_until_a_later_one_takes_its_place(market: Any) -> None:
    trader = Trader(market)
    trader.policy(actions={"decimal_shift": "hold"})
    trader.judged(*[to("10.00", name, occurred_at=at(0)) for name in FOLLOWING])
    held = trader.judged(*[to("100.00", name, occurred_at=at(3)) for name in FOLLOWING])
    assert {verdict["status"] for verdict in held} == {"held"}
    followed = trader.judged(*[{**change, "product_id": n} for n, (change, _, _) in FOLLOWING.items() if change])
    assert {v["product_id"]: v["status"] for v in followed} == {
        name: status for name, (_, status, _) in FOLLOWING.items() if status
    }
    market.drained()
    listed = trader.alerts(len(FOLLOWING), status="held", limit=100)
    first = {alert["product_id"]: alert for alert in listed if alert["new_price"] == "100.00"}
    assert {name for name, alert in first.items() if alert["superseded_by"]} == {
        name for name, (_, _, gone) in FOLLOWING.items() if gone
    }
    assert all(alert["decision"] is None for alert in listed)
    by = first["another held price"]["superseded_by"]
    [second] = [alert for alert in listed if alert["new_price"] == "101.00"]
    assert (by["status"], by["new_price"], by["event_id"]) == ("held", "101.00", second["event_id"])
    assert by["logged_at"] == second["logged_at"]
    assert second["superseded_by"] is None  # it waits in its place

    command = ["--tenant-id", trader.tenant, "--api-key", trader.key]
    command += ["--gateway-url", f"http://127.0.0.1:{market.settings.gateway_port}"]
    waiting = market.cli("prices", "held", "--json", *command).stdout.splitlines()
    assert len(waiting) == sum(not gone for _, _, gone in FOLLOWING.values()) + 1
    shown = market.cli("prices", "alerts", "--product-id", "another price", *command).stdout
    assert "[superseded by 10.40]" in shown

    # Streams carry out a decision just where the list says that the price waits.
    offset = held[0]["held_offset"]
    said = {"decision": "approve", "held": [{"product_id": name, "held_offset": offset} for name in FOLLOWING]}
    decided = lines(trader.request("POST", "price-decisions", said, **NDJSON))[1:-1]
    assert {verdict["product_id"]: verdict["status"] == "superseded" for verdict in decided} == {
        name: gone for name, (_, _, gone) in FOLLOWING.items()
    }
    trader.judged(*[to("100.10", name) for name in FOLLOWING])  # what comes after a decision takes no place
    market.drained()
    known = eventually(lambda: trader.get("price-alerts", status="held", limit=100)["data"])
    ended = {alert["product_id"]: alert for alert in known if alert["new_price"] == "100.00"}
    assert {name: (bool(alert["decision"]), bool(alert["superseded_by"])) for name, alert in ended.items()} == {
        name: (not gone, gone) for name, (_, _, gone) in FOLLOWING.items()
    }


def test_of_one_body_the_last_held_price_of_a_product_waits(market: Any) -> None:
    trader = Trader(market)
    trader.judged(to(10, "A"), to(10, "B"))
    trader.policy(actions={"decimal_shift": "hold"})
    trader.judged(to(100, "A"), to(101, "A"), to(100, "B"), to("10.50", "B"))
    market.drained()
    told = {(alert["product_id"], alert["new_price"]): alert for alert in trader.alerts(3, status="held")}
    assert {name: (by := alert["superseded_by"]) and by["new_price"] for name, alert in told.items()} == {
        ("A", "100.00"): "101.00", ("A", "101.00"): None, ("B", "100.00"): "10.50",
    }  # fmt: skip
