"""Send realistic traffic of a small shop: a first impression, without unusual messages."""

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from random import Random

import urllib3

from destination.segment.client import Answer, segment_headers, send
from destination.segment.shop import Message, shop_traffic

CUSTOMER = "simulated-shop"


def send_shop_traffic(
    url: str,
    api_key: str,
    *,
    ca_file: str | None,
    messages: int,
    random: Random,
    rate: float | None,
    step: Callable[[], None],
) -> Counter[str]:
    """Send messages sequentially, and count the answers by outcome.

    `rate` is in messages per second. The outcomes are `stored`, `queued`, `duplicate`, `refused` and `failed`. Raises
    `urllib3.exceptions.HTTPError` if the endpoint does not answer.
    """
    visits = itertools.chain.from_iterable(shop_traffic(random) for _ in itertools.count())
    counts: Counter[str] = Counter()
    with urllib3.PoolManager(ca_certs=ca_file) as http:
        for message in itertools.islice(visits, messages):
            counts[_outcome(_post(http, url, api_key, message))] += 1
            step()
            if rate:
                time.sleep(1 / rate)
    return counts


def _post(http: urllib3.PoolManager, url: str, api_key: str, message: Message) -> Answer:
    return send(http, url, segment_headers(api_key), json.dumps(message).encode())


def _outcome(answer: Answer) -> str:
    if answer.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED) and isinstance(answer.body, dict):
        return str(answer.body.get("status"))
    return "refused" if answer.status == HTTPStatus.BAD_REQUEST else "failed"
