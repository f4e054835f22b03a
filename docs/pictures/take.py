"""Take the pictures of the debugger page in docs/ again: a local server, some traffic, and a browser that looks.

    make screenshots

Chromium must be on the machine.
"""

import json
import math
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3
from playwright.sync_api import Page, expect, sync_playwright

from destination.segment.client import segment_headers, send

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
PORT = "8088"
URL = f"http://127.0.0.1:{PORT}"
SIZE = {"width": 1280, "height": 760}
START_SECONDS = 60
TRAFFIC_SECONDS = 45
RATE, TWICE, WRONG, BATCHES = 9, 0.08, 0.05, 0.04
"""Requests a second, and the shares of what is sent twice, is wrong, or is a batch."""


def main() -> None:
    """Take all pictures."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium on this machine: apt-get install chromium")
    with _server(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light", device_scale_factor=1)
        page.goto(URL)
        print(f"Playing {TRAFFIC_SECONDS} seconds of traffic …")
        _play(TRAFFIC_SECONDS)
        _take(page, "live", wait_seconds=0.5)
        _tester(page, "several spellings of one field")
        _take(page, "tester")
        _tester(page, "traits not an object")
        page.get_by_role("link", name="See in Live").click()
        expect(page.get_by_role("complementary")).to_contain_text("Milliseconds per step")
        _take(page, "request")
        browser.close()


@contextmanager
def _server() -> Iterator[None]:
    command = [sys.executable, "-m", "destination", "serve", "--port", PORT]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        wait = iter(server.stdout or ())
        while "Control-C" not in next(wait):
            pass
        try:
            yield
        finally:
            server.terminate()


def _play(seconds: float) -> None:
    """Send what customers might, as Segment sends it: some of it twice, some wrong, at times a batch."""
    chance = random.Random(7)  # noqa: S311 -- it hides nothing
    keys = [_new_key(customer) for customer in ("acme", "globex", "initech")]
    until = time.monotonic() + seconds
    with urllib3.PoolManager() as http:
        while time.monotonic() < until:
            headers = segment_headers(chance.choice(keys))
            message = _message(chance)
            body: object = message
            path = "/segment"
            if chance.random() < BATCHES:
                path, body = "/v1/batch", {"batch": [_message(chance) for _ in range(chance.randrange(3, 30))]}
            for _ in range(2 if chance.random() < TWICE else 1):
                send(http, URL + path, headers, json.dumps(body).encode())
            time.sleep(chance.expovariate(RATE * (1 + math.sin(time.monotonic() / 8) / 2)))


def _message(chance: random.Random) -> dict[str, Any]:
    call_type, event = chance.choice(
        [
            *(("track", event) for event in ("Order Completed", "Product Viewed", "Plan Changed", "Invoice Paid")),
            *(("page", name) for name in ("Pricing", "Docs", "Checkout")),
            *(("identify", ""), ("group", ""), ("screen", "Cart")),
        ]
    )
    message: dict[str, Any] = {
        "type": call_type,
        "userId": f"user-{chance.randrange(4700, 4760)}",
        "messageId": f"ajs-next-{chance.randrange(10**12)}",
        "timestamp": datetime.now(UTC).isoformat(),
    }
    if call_type == "group":
        message["groupId"] = "account-0815"
    elif call_type != "identify":
        message["event" if call_type == "track" else "name"] = event
    if chance.random() < WRONG:
        message |= {"event": "", "type": "track"}
    return message


def _new_key(customer: str) -> str:
    arguments = ("keys", "create", "--customer", customer, "--json", "--url", URL)
    made = subprocess.run([sys.executable, "-m", "destination", *arguments], cwd=ROOT, check=True, capture_output=True)
    key: str = json.loads(made.stdout)["api_key"]
    return key


def _tester(page: Page, sample: str) -> None:
    page.get_by_role("link", name="Event tester").click()
    page.get_by_label("Sample").select_option(label=sample)
    expect(page.locator(".verdict")).to_contain_text("Would be")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_text("Response from destination")).to_be_visible()


def _take(page: Page, name: str, *, wait_seconds: float = 1.5) -> None:
    path = FOLDER / f"{name}.png"
    page.wait_for_timeout(wait_seconds * 1000)  # for what fades
    page.screenshot(path=path)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
