"""Send sample traffic from the page's button: the messages of a small shop, one after another, to the local server."""

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from threading import Lock, Thread
from typing import Any

import click
import urllib3

from destination.debugger.tester import Draft
from destination.deployment import demo
from destination.segment.shop import shop_traffic
from handler.routes import SEGMENT

PACE_SECONDS = 0.2
"""Average pause between two messages: slow enough to watch them arrive."""


@dataclass(frozen=True, kw_only=True)
class SampleTraffic:
    """Sends a shop's traffic in its own thread, which ends with the process; one run at a time."""

    post: Callable[[Draft], object]
    pace_seconds: float = PACE_SECONDS
    _running: Lock = field(default_factory=Lock)

    def start(self) -> dict[str, Any]:
        """Start to send, and return the numbers of messages and seconds; raises `click.ClickException` during a run."""
        if not self._running.acquire(blocking=False):
            raise click.ClickException("Sample traffic is being sent already: wait until it ends")
        seed = uuid.uuid4().int
        messages = sum(1 for _ in shop_traffic(Random(seed)))  # noqa: S311 -- only to vary the traffic
        Thread(target=self._send, args=(Random(seed),), daemon=True).start()  # noqa: S311
        return {"messages": messages, "seconds": round(messages * self.pace_seconds)}

    def _send(self, random: Random) -> None:
        try:
            for message in shop_traffic(random):
                self.post(Draft(path=SEGMENT.path, text=json.dumps(message), api_key=demo.GOOD_KEY))
                time.sleep(random.uniform(0.2, 1.8) * self.pace_seconds)
        except urllib3.exceptions.HTTPError:
            return  # the server ends, or does not answer: the page shows that
        finally:
            self._running.release()
