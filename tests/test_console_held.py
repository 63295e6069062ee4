"""Held prices in the console: they come by themselves and are decided, one by one or together."""

import json

import pytest
from pipeline import Pipeline, eventually
from playwright.sync_api import Browser, expect
from visiting import CHROMIUM, PHONE, Visit, browser

__all__ = ["browser"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; Debian: apt-get install chromium")


def hold_shifts(visit: Visit) -> None:
    policy = {"policies": {"prices": {"actions": {"decimal_shift": "hold"}}}}
    admin = {"Authorization": f"Bearer {visit.pipeline.settings.admin_token}"}
    changed = visit.pipeline.http.patch(f"/api/v1/admin/tenants/{visit.tenant}", json=policy, headers=admin)
    assert changed.status_code == 200, changed.text


def test_alerts_come_by_themselves_and_held_prices_are_decided(pipeline: Pipeline, browser: Browser) -> None:
    with Visit(pipeline, browser) as visit:
        hold_shifts(visit)
        visit.log_in()
        expect(visit.section("alerts").locator(".live")).to_have_text("live")
        prices = [{"product_id": p, "new_price": 40} for p in ("A", "B")] * 6
        visit.send("/price-events", b"\n".join(json.dumps(p).encode() for p in prices), "application/x-ndjson")
        pipeline.drained()
        for product in ("A", "B"):
            visit.send(f"/products/{product}/price-event", {"new_price": 4})
        expect(visit.section("alerts").locator("li")).to_have_count(2)
        held = visit.section("held").locator("li")
        expect(held).to_have_count(2)
        expect(held.first).to_contain_text("decimal shift")
        visit.page.get_by_role("button", name="approve the price of A").focus()
        visit.page.keyboard.press("Enter")
        expect(visit.section("held")).to_contain_text("A: approved")
        # A key that is held down decides no other price.
        expect(visit.page.get_by_role("checkbox", name="choose the price of B")).to_be_focused()
        visit.page.get_by_role("button", name="reject the price of B").click()
        expect(visit.section("held")).to_contain_text("B: rejected")
        expect(visit.page.get_by_role("heading", name="Held prices")).to_be_focused()
        badges = visit.section("alerts").locator(".badge")
        expect(badges).to_have_text(["rejected", "approved"])
        eventually(lambda: price(visit, "A") == "4.00")
        assert price(visit, "B") == "40.00"
        visit.send("/products/C/price-event", {"new_price": 40})
        visit.send("/products/C/price-event", {"new_price": 4})
        expect(held.filter(has_text="decimal shift")).to_have_count(1)
        visit.page.route("**/price-alerts?status=held*", lambda route: route.abort())  # so that the page learns it late
        expect(visit.section("held").locator(".problem")).to_contain_text("cannot be reached")
        visit.send("/products/C/price-event", {"new_price": 41})
        visit.page.get_by_role("button", name="approve the price of C").click()
        expect(visit.section("held")).to_contain_text("another price came since")


def test_a_held_price_that_was_overtaken_waits_no_more(pipeline: Pipeline, browser: Browser) -> None:
    with Visit(pipeline, browser) as visit:
        hold_shifts(visit)
        for amount in (40, 4):
            visit.send("/products/C/price-event", {"new_price": amount})
        visit.log_in()
        held, badges = visit.section("held").locator("li"), visit.section("alerts").locator(".badge")
        expect(held).to_have_count(1)
        visit.send("/products/C/price-event", {"new_price": 41})
        expect(held).to_have_count(0)
        expect(visit.section("held")).to_contain_text("No price waits for a decision")
        expect(badges).to_have_text(["superseded"])
        visit.page.reload()
        visit.log_in()
        expect(badges).to_have_text(["superseded"])
        expect(held).to_have_count(0)


def held_prices(visit: Visit, number: int) -> None:
    """So many prices wait, P0 the oldest."""
    hold_shifts(visit)
    for amount in (40, 4):
        prices = [{"product_id": f"P{n}", "new_price": amount} for n in range(number)]
        visit.send("/price-events", b"\n".join(json.dumps(p).encode() for p in prices), "application/x-ndjson")
        visit.pipeline.drained()


def test_several_held_prices_are_decided_at_once_by_keyboard_on_a_phone(pipeline: Pipeline, browser: Browser) -> None:
    with Visit(pipeline, browser, PHONE) as visit:
        held_prices(visit, 7)
        visit.log_in()
        section, page, keyboard = visit.section("held"), visit.page, visit.page.keyboard
        items, several = section.locator(".list li"), section.locator(".several")
        expect(items).to_have_count(7)
        expect(several.get_by_role("button", name="Approve")).to_be_disabled()
        for product in ("P1", "P2"):
            page.get_by_role("checkbox", name=f"choose the price of {product}").focus()
            keyboard.press("Space")
        expect(several.get_by_role("checkbox", name="2 of 7 chosen")).to_be_checked(indeterminate=True)
        reject = several.get_by_role("button", name="Reject 2")
        reject.focus()
        keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Reject 2 held prices?")
        expect(dialog.get_by_role("listitem")).to_have_text(["P2 40.00 EUR → 4.00 EUR", "P1 40.00 EUR → 4.00 EUR"])
        expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(reject).to_be_focused()
        expect(items).to_have_count(7)
        keyboard.press("Enter")
        keyboard.press("Tab")
        keyboard.press("Enter")
        expect(section).to_contain_text("2 rejected")
        expect(items).to_have_count(5)
        expect(page.get_by_role("heading", name="Held prices")).to_be_focused()

        several.get_by_role("checkbox", name="Choose all 5 shown").check()
        page.route("**/price-alerts?status=held*", lambda route: route.abort())
        expect(section.locator(".problem")).to_contain_text("cannot be reached")
        visit.send("/products/P6/price-event", {"new_price": 41})  # which the page does not know
        several.get_by_role("button", name="Approve 5").click()
        page.get_by_role("dialog", name="Approve 5 held prices?").get_by_role("button", name="Approve 5").click()
        said = section.locator(".said")
        expect(said).to_contain_text("4 approved")
        expect(said).to_contain_text("1 unchanged, decided already or another price came since")
        expect(items).to_have_count(0)
        expect(several).to_be_hidden()
        pipeline.drained()
        assert [price(visit, f"P{n}") for n in range(7)] == ["4.00", "40.00", "40.00", "4.00", "4.00", "4.00", "41.00"]
        page.unroute_all()
        page.reload()
        visit.log_in()
        expect(visit.section("alerts").locator("li")).to_have_count(7)
        expect(items).to_have_count(0)


def test_a_decision_that_does_not_get_through_leaves_the_prices_to_be_decided(
    pipeline: Pipeline, browser: Browser
) -> None:
    with Visit(pipeline, browser) as visit:
        held_prices(visit, 3)
        visit.log_in()
        section = visit.section("held")
        section.get_by_role("checkbox", name="Choose all 3 shown").check()
        visit.page.route("**/price-decisions", lambda route: route.abort())
        section.get_by_role("button", name="Approve 3").click()
        visit.page.get_by_role("dialog").get_by_role("button", name="Approve 3").click()
        expect(section.locator(".problem")).to_contain_text("cannot be reached")
        expect(section.locator(".list li")).to_have_count(3)
        visit.page.unroute_all()
        section.get_by_role("button", name="Approve 3").click()
        visit.page.get_by_role("dialog").get_by_role("button", name="Approve 3").click()
        expect(section).to_contain_text("3 approved")
        expect(section).to_contain_text("No price waits")


def test_a_price_waits_behind_many_that_are_decided(pipeline: Pipeline, browser: Browser) -> None:
    with Visit(pipeline, browser) as visit:
        for amount in (10, 1):  # most of them fall too far together: the body is held
            prices = [json.dumps({"product_id": f"P{n}", "new_price": amount}).encode() for n in range(230)]
            visit.send("/price-events", b"\n".join(prices), "application/x-ndjson")
            pipeline.drained()
        listed = f"/api/v1/tenants/{visit.tenant}/price-alerts?status=held&limit=226"
        newest = pipeline.http.get(listed, headers={"X-API-Key": visit.key}).json()["data"]
        held = [{"product_id": alert["product_id"], "held_offset": alert["held_offset"]} for alert in newest]
        visit.send("/price-decisions", {"decision": "approve", "decided_by": "me", "held": held})
        pipeline.drained()
        visit.log_in()
        expect(visit.section("held").locator("li")).to_have_count(230 - len(newest))


def price(visit: Visit, product: str) -> str:
    answer = visit.pipeline.http.get(
        f"/api/v1/tenants/{visit.tenant}/prices/{product}", headers={"X-API-Key": visit.key}
    )
    found: str = answer.json()["price"]
    return found
