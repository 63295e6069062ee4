"""A visit to the console in a real browser: headless Chromium, at a desk's and at a phone's width."""

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from pipeline import Pipeline
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
