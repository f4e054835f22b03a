"""Try keys that must be refused, in a run of `destination simulate`."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from destination.segment.client import segment_headers
from destination.segment.contract import JsonObject
from destination.segment.endpoint import Endpoint, Reply
from destination.simulation.breaches import Breaches
from destination.simulation.routes import answer_of, content_of

REFUSED = "an invalid key is refused with the expected answer"
REVOKED = "a revoked key is refused after KeyCacheSeconds"
CODES = {
    "expired": "expired_key",
    "revoked": "revoked_key",
    "suspended": "suspended_key",
    "scoped": "call_type_not_allowed",
}
"""The fault of a key -> the code by which it must be refused."""
MAX_TRIES = 20
PAUSE_SECONDS = 0.3
USES = 12
"""Concurrent requests with a key before its revocation, so that every function caches it."""
LONGEST_CACHE_SECONDS = 75
"""The default of KeyCacheSeconds (60), with tolerance for a busy machine."""


@dataclass(frozen=True, kw_only=True)
class ProbeKey:
    """A key and its fault, a word of `CODES`."""

    fault: str
    key: str


class KeyProbes:
    """Sends a message with each of some `keys`, and with `used_key` before and after the call of `revoke`.

    Messages with a valid key have an unknown call type, so that nothing is stored. A function may use a revoked key for
    `cache_seconds`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: Sequence[ProbeKey],
        *,
        used_key: str | None,
        revoke: Callable[[], object],
        call_type: str,
        in_batches: bool,
        cache_seconds: float = LONGEST_CACHE_SECONDS,
    ) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._used_key = used_key
        self._revoke = revoke
        self._call_type = call_type
        self._in_batches = in_batches
        self._cache_seconds = cache_seconds

    def begin(self, breaches: Breaches) -> None:
        """Try the bad keys, use the valid one, and revoke it."""
        asyncio.run(self._begin(breaches))

    def end(self, breaches: Breaches) -> None:
        """Wait until all functions refuse the revoked key."""
        if self._used_key is not None:
            asyncio.run(self._wait_for_revocation(self._used_key, breaches))

    async def _begin(self, breaches: Breaches) -> None:
        try:
            for probe in self._keys:
                due, found = answer_of(CODES[probe.fault]), await self._answer(probe.key, self._message(probe.fault))
                if found is not None and found != due:
                    about = f"a {probe.fault} key, {self._call_type} call"
                    breaches.add(REFUSED, about, expected=due, found=found)
            if self._used_key is not None:
                await asyncio.gather(*(self._post(self._used_key, UNSUPPORTED) for _ in range(USES)))
                await asyncio.to_thread(self._revoke)
        finally:
            await self._endpoint.close()

    async def _wait_for_revocation(self, key: str, breaches: Breaches) -> None:
        began = time.monotonic()
        due = answer_of(CODES["revoked"])
        try:
            while True:
                replies = await asyncio.gather(*(self._post(key, UNSUPPORTED) for _ in range(USES)))
                found = [self._read(reply) for reply in replies if reply is not None]
                others = [answer for answer in found if answer != due and not answer.startswith(("5", "429"))]
                others += [answer for answer in found if answer == answer_of("unsupported_call_type")]
                if found and not others:
                    return
                if time.monotonic() - began > self._cache_seconds:
                    break
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            await self._endpoint.close()
        if others:
            seconds = f"{self._cache_seconds:g} s after it was revoked"
            breaches.add(REVOKED, "a key that was in use", expected=due, found=f"{others[0]}, {seconds}")

    async def _answer(self, key: str, message: JsonObject) -> str | None:
        """Return a final answer, None if there is none."""
        for _ in range(MAX_TRIES):
            reply = await self._post(key, message)
            if reply is not None and (reply.status < 500 or reply.status == 501) and reply.status != 429:  # noqa: PLR2004
                return self._read(reply)
            await asyncio.sleep(PAUSE_SECONDS)
        return None

    async def _post(self, key: str, message: JsonObject) -> Reply | None:
        headers = segment_headers(key)
        if self._in_batches:
            token = base64.b64encode(f"{key}:".encode()).decode()
            headers = {"Content-Type": "application/json", "Authorization": f"Basic {token}"}
        body = json.dumps({"batch": [message]} if self._in_batches else message).encode()
        try:
            return await self._endpoint.post(self._endpoint.head(headers), body)
        except OSError:  # a time-out is one too
            return None

    def _read(self, reply: Reply) -> str:
        """Return status and code; for a batch, of its one message."""
        content = content_of(reply)
        rejected = content.get("rejected")
        if isinstance(rejected, list) and len(rejected) == 1 and isinstance(rejected[0], dict):
            code = str(rejected[0].get("code"))
            try:
                return answer_of(code)
            except KeyError:
                return code
        word = content.get("code") or content.get("status") or ("accepted" if reply.status == 200 else "")  # noqa: PLR2004
        return f"{reply.status} {word}".strip()

    def _message(self, fault: str) -> JsonObject:
        fields: dict[str, JsonObject] = {
            "track": {"event": "Key Tried"},
            "group": {"groupId": "g"},
            "alias": {"previousId": "p"},
        }
        return {
            "type": self._call_type,
            "messageId": f"key-probe-{fault}",
            "userId": "key-probe",
            "originalTimestamp": "2026-03-01T00:00:00.000Z",
            **fields.get(self._call_type, {}),
        }


UNSUPPORTED: JsonObject = {"type": "sing", "messageId": "key-probe", "userId": "key-probe"}
