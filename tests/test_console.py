"""The console in a real browser, by mouse and by keyboard; held prices are in test_console_held.py."""

import json
import re
from pathlib import Path

import pytest
from pipeline import Pipeline, eventually
from playwright.sync_api import Browser, expect
from test_end_to_end import order
from visiting import CHROMIUM, PHONE, Visit, browser, find

from deploy.broker import Broker, free_port
from deploy.supervisor import Child, Supervisor
from producers import admin

__all__ = ["browser"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; Debian: apt-get install chromium")


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
        expect(visit.section("now")).to_have_class("stale")
        visit.context.set_offline(False)
        expect(visit.section("now").locator(".problem")).to_be_empty()
        expect(visit.section("now")).not_to_have_class("stale")
        expect(live).to_have_text("live")


def test_nothing_is_taken_in_while_kafka_is_away_and_the_page_says_so(
    own_pipeline: Pipeline, browser: Browser, tmp_path: Path
) -> None:
    broker = Broker(tmp_path / "kafka", port=free_port())
    with Supervisor() as supervisor:
        kafka = supervisor.add(Child("kafka", broker.command, tmp_path / "kafka.log", stop_within=broker.stop_within))
        broker.wait_ready(kafka.alive)
        own_pipeline.settings = own_pipeline.settings_with(kafka_bootstrap_servers=broker.bootstrap_servers)
        admin.ensure(own_pipeline.settings)
        own_pipeline.start("gateway")
        with Visit(own_pipeline, browser) as visit:
            visit.log_in()
            expect(visit.section("now").locator("dl")).to_contain_text("applied")
            kafka.stop()
            expect(visit.section("now").locator(".problem")).to_contain_text("Nothing is taken in at the moment")
            kafka.start()
            broker.wait_ready(kafka.alive)
            expect(visit.section("now").locator(".problem")).to_be_empty(timeout=20_000)


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
