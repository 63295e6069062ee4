"""The console in a real browser: headless Chromium, at a desk's and at a phone's width, by mouse and by keyboard."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from pipeline import Pipeline, eventually
from playwright.sync_api import Browser, Page, expect, sync_playwright
from test_end_to_end import order

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; Debian: apt-get install chromium")
QUIET = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET + root)
        yield browser
        browser.close()


class Visit:
    """A page of the console; at the end nothing was blocked, nothing failed, and nobody else was asked for anything."""

    def __init__(self, pipeline: Pipeline, browser: Browser, size: Any = DESK) -> None:
        self.pipeline = pipeline
        self.tenant, self.key = pipeline.tenant()
        self.origin = str(pipeline.http.base_url).rstrip("/")
        self.context = browser.new_context(viewport=size)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text) if "Content Security" in said.text else None)
        self.page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.wrong.append(request.url)

    def __enter__(self) -> "Visit":
        self.page.goto(f"{self.origin}/console")
        return self

    def __exit__(self, *exc: Any) -> None:
        self.context.close()
        assert self.wrong == []

    def log_in(self, key: str = "") -> None:
        self.page.get_by_label("Tenant").fill(self.tenant)
        self.page.get_by_label("API key").fill(key or self.key)
        self.page.get_by_role("button", name="Log in").click()

    def send(self, path: str, body: Any, kind: str = "application/json") -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.pipeline.http.post(
            f"/api/v1/tenants/{self.tenant}{path}",
            content=content,
            headers={"X-API-Key": self.key, "Content-Type": kind},
        )
        assert answer.is_success, answer.text
        return answer.json()

    def section(self, name: str) -> Any:
        return self.page.locator(f"#{name}")


def test_a_wrong_key_is_told_and_a_good_one_shows_what_comes(pipeline: Pipeline, browser: Browser) -> None:
    with Visit(pipeline, browser) as visit:
        visit.log_in(key="ts_nonsense")
        expect(visit.page.get_by_role("alert")).to_contain_text("key")
        visit.log_in(key="ts_\N{HORIZONTAL ELLIPSIS}")  # a header cannot hold it
        expect(visit.page.get_by_role("alert")).to_contain_text("This is no API key")
        visit.log_in()
        expect(visit.page.get_by_role("heading", name="Now")).to_be_focused()
        expect(visit.section("uploads")).to_contain_text("No uploads yet")
        visit.send("/ingest/orders", b"".join(order(n) for n in range(120)), "application/x-ndjson")
        expect(visit.section("now").locator("dl")).to_contain_text(re.compile(r"applied\s*120"))
        expect(visit.section("now").locator("rect")).not_to_have_count(0)
        stored = visit.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert stored == '[{},{},""]'
        visit.page.get_by_role("button", name="Log out").click()
        expect(visit.page.get_by_label("API key")).to_have_value("")
        assert visit.key not in visit.page.content()


def revoke(visit: Visit) -> str:
    """End the key that the page has; the tenant's new one."""
    admin = {"Authorization": f"Bearer {visit.pipeline.settings.admin_token}"}
    keys = f"/api/v1/admin/tenants/{visit.tenant}"
    [old] = visit.pipeline.http.get(keys, headers=admin).json()["keys"]
    visit.key = visit.pipeline.http.post(f"{keys}/keys", json={}, headers=admin).json()["api_key"]
    assert visit.pipeline.http.delete(f"{keys}/keys/{old['key_id']}", headers=admin).status_code == 200
    return visit.key


@pytest.mark.parametrize("told_by", ["polls", "stream"])
def test_a_key_that_was_revoked_leads_back_to_the_login_and_leaves_no_data(
    pipeline: Pipeline, browser: Browser, told_by: str
) -> None:
    with Visit(pipeline, browser) as visit:
        visit.send("/stock-events", {"product_id": "Secret tea", "kind": "received", "quantity": 4711})
        for amount in (40, 40, 40, 40, 40, 40, 4):
            visit.send("/products/Secret mug/price-event", {"new_price": amount})
        pipeline.drained()
        visit.log_in()
        old, page = visit.key, visit.page
        expect(visit.section("alerts").locator("li")).to_contain_text("Secret mug")
        expect(visit.section("alerts").locator(".live")).to_have_text("live")
        find(visit, "Product", "Secret tea")
        expect(visit.section("stock")).to_contain_text("4,711")
        if told_by == "stream":
            page.route(re.compile("/activity|/uploads|status=held"), lambda route: route.abort())
            expect(visit.section("now").locator(".problem")).to_contain_text("cannot be reached")
        revoke(visit)
        if told_by == "stream":  # whose next event says so
            visit.send("/products/Secret mug/price-event", {"new_price": 400})
        expect(page.get_by_role("alert")).to_contain_text("does not work any more")
        expect(page.get_by_label("Tenant")).to_be_focused()
        expect(page.get_by_label("API key")).to_have_value("")
        expect(page.locator("#sections")).to_be_hidden()
        left = page.content()
        assert [word for word in ("Secret", "4,711", "4711", visit.tenant, old) if word in left] == []
        page.unroute_all()
        visit.log_in()
        expect(page.get_by_role("heading", name="Now")).to_be_focused()
        expect(visit.section("stock").locator(".found")).to_be_empty()
        page.reload()
        expect(page.get_by_label("Tenant")).to_be_visible()
        expect(page.locator("#login .problem")).to_be_empty()


def test_uploads_with_progress_and_refused_rows(pipeline: Pipeline, browser: Browser) -> None:
    with Visit(pipeline, browser) as visit:
        visit.log_in()
        token = visit.send("/uploads", {"entity": "orders", "name": "<b>May</b>.csv", "chunks": 2})["token"]
        url = f"/api/v1/tenants/{visit.tenant}/uploads/{token}/chunks/"
        headers = {"X-API-Key": visit.key}
        assert pipeline.http.put(url + "1", content=order(1) + b'{"bad": 1}\n', headers=headers).status_code == 202
        uploads = visit.section("uploads")
        expect(uploads).to_contain_text("<b>May</b>.csv")  # as text
        expect(uploads).to_contain_text("1 of 2 chunks")
        assert pipeline.http.put(url + "2", content=order(2), headers=headers).status_code == 202
        visit.send(f"/uploads/{token}/complete", {"chunks": 2})
        expect(uploads).to_contain_text("partially completed")
        expect(uploads).to_contain_text("2 applied, 1 rejected")
        with visit.page.expect_download() as download:
            uploads.get_by_role("button", name="Refused rows").click()
        rows = [json.loads(line) for line in download.value.path().read_text().splitlines()]
        assert [(row["chunk"], row["line"]) for row in rows] == [(1, 2)]


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
        expect(visit.page.get_by_role("button", name="approve the price of B")).to_be_focused()
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


def test_stock_and_ledger_by_keyboard_alone(pipeline: Pipeline, browser: Browser) -> None:
    with Visit(pipeline, browser) as visit:
        moved = [{"product_id": "Tea/1", "kind": kind, "quantity": n} for kind, n in (("received", 5), ("sold", 9))]
        event = visit.send("/stock-events", b"\n".join(json.dumps(m).encode() for m in moved), "application/x-ndjson")
        pipeline.drained()
        keyboard = visit.page.keyboard
        keyboard.press("Tab")
        keyboard.type(visit.tenant)
        keyboard.press("Tab")
        keyboard.type(visit.key)
        keyboard.press("Enter")
        expect(visit.page.get_by_role("heading", name="Now")).to_be_focused()
        find(visit, "Product", "Tea/1")
        found = visit.section("stock")
        expect(found.locator("tbody tr")).to_have_count(2)
        expect(found).to_contain_text("insufficient_stock")
        expect(found.locator("dd").first).to_have_text("5")
        find(visit, "Event id", event["event_ids"][0])
        expect(visit.section("ledger")).to_contain_text("applied")
        expect(visit.section("ledger")).to_contain_text("insufficient_stock")
        find(visit, "Event id", "nobody's")
        expect(visit.section("ledger").locator(".problem")).to_contain_text("not in the ledger")


def test_a_search_of_the_ledger_shows_the_rows_that_were_refused(pipeline: Pipeline, browser: Browser) -> None:
    with Visit(pipeline, browser) as visit:
        bad = b'{"external_order_id": "<b>X</b>"}\n'
        event = visit.send("/ingest/orders", bad + order(1), "application/x-ndjson")["event_ids"][0]
        url = f"/api/v1/tenants/{visit.tenant}/ingest/orders"
        refused = pipeline.http.post(url, content=bad * 120, headers={"X-API-Key": visit.key}).json()["rejected_ids"][0]
        pipeline.drained()
        visit.log_in()
        ledger = visit.section("ledger")
        for searched, rejected in ((event, 1), (refused, 120)):
            path = f"/api/v1/tenants/{visit.tenant}/events/{searched}"
            eventually(lambda p=path: pipeline.http.get(p, headers={"X-API-Key": visit.key}).json().get("rejected"))
            find(visit, "Event id", searched)
            expect(ledger.locator("dl")).to_contain_text(re.compile(rf"rejected\s*{rejected}"))
            expect(ledger.get_by_role("listitem").first).to_contain_text("total_amount is required")
            expect(ledger.locator("code").first).to_have_text('{"external_order_id": "<b>X</b>"}')
        expect(ledger.locator(".badge")).to_have_text("rejected")
        expect(ledger).to_contain_text("20 more are not shown")
        expect(visit.section("now").locator("dl")).to_contain_text(re.compile(r"applied\s*1\s*rejected\s*121"))


def find(visit: Visit, label: str, text: str) -> None:
    """Tab to a field, as somebody without a mouse does, and search."""
    field = visit.page.get_by_role("textbox", name=label)
    for _ in range(60):
        if field.evaluate("element => element === document.activeElement"):
            break
        visit.page.keyboard.press("Tab")
    expect(field).to_be_focused()
    visit.page.keyboard.press("Control+A")
    visit.page.keyboard.type(text)
    visit.page.keyboard.press("Enter")


def test_on_a_phone_nothing_is_wider_than_the_screen(pipeline: Pipeline, browser: Browser) -> None:
    with Visit(pipeline, browser, PHONE) as visit:
        visit.send("/ingest/orders", b'{"bad": 1}\n' + order(1), "application/x-ndjson")
        visit.log_in()
        expect(visit.section("now").locator("dl")).to_contain_text("applied")
        width = visit.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"]
        small = visit.page.evaluate(
            "[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.offsetHeight < 32).length"
            " + [...document.querySelectorAll('nav a')].filter(a => a.getBoundingClientRect().height < 24).length"
        )
        assert small == 0


def test_a_gateway_that_went_away_is_told_and_comes_back(pipeline: Pipeline, browser: Browser) -> None:
    with Visit(pipeline, browser) as visit:
        visit.log_in()
        live = visit.section("alerts").locator(".live")
        expect(live).to_have_text("live")
        visit.context.set_offline(True)
        expect(visit.section("now").locator(".problem")).to_contain_text("cannot be reached")
        visit.context.set_offline(False)
        expect(visit.section("now").locator(".problem")).to_be_empty()
        expect(live).to_have_text("live")


def test_the_page_lets_in_nothing_from_elsewhere(pipeline: Pipeline) -> None:
    for path in ("/console/", "/console/console.js", "/console/console.css"):
        answer = pipeline.http.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy
    assert pipeline.http.get("/console").headers["location"] == "console/"
    assert pipeline.http.get("/console/console.py").status_code == 404
