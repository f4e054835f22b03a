"""Test that `destination simulate` sees a key that must not be accepted."""

import base64
import json

import pytest
from endpoint import endpoint, response

from destination.segment.endpoint import Endpoint
from destination.simulation.breaches import Breaches
from destination.simulation.key_probes import CODES, USES, KeyProbes, ProbeKey
from destination.simulation.routes import answer_of

KEYS = [ProbeKey(fault=fault, key=f"key-{fault}") for fault in CODES]


class Destination:
    """A destination that knows keys. `wrong` are incorrect answers to a key."""

    def __init__(self, *, wrong=None, forgets=True, fails=0):
        self.wrong = wrong or {}
        self.forgets = forgets
        self.fails = fails
        self.revoked = False
        self.probed = []

    def __call__(self, request):
        if self.fails:
            self.fails -= 1
            return response(503)
        token = request.head.partition("Authorization: Basic ")[2].split()[0]
        key = base64.b64decode(token).decode().removesuffix(":")
        body = json.loads(request.body)
        self.probed.append(key)
        if key in self.wrong:
            code = self.wrong[key]
        elif key == "used":
            code = "revoked_key" if self.revoked and self.forgets else "unsupported_call_type"
        else:
            code = CODES[key.removeprefix("key-")]
        status = int(answer_of(code).split()[0]) if code else 200
        is_of_message = "batch" in body and status != 401 and code != "suspended_key"
        if is_of_message:
            rejected = [{"index": 0, "code": code}] if code else []
            told = {"accepted": not rejected, "duplicates": 0, "rejected": rejected}
            return response(400 if rejected else 200, json.dumps(told | {"code": "nothing_accepted"}))
        return response(status, json.dumps({"code": code} if code else {"status": "stored"}))

    def revoke(self):
        self.revoked = True


def probe(destination, *, in_batches=False, **options):
    """Try the keys, and return the findings."""
    breaches = Breaches()
    with endpoint(destination) as server:
        probes = KeyProbes(
            Endpoint(server.url, timeout_seconds=5),
            KEYS,
            used_key="used",
            revoke=destination.revoke,
            call_type="track",
            in_batches=in_batches,
            **options,
        )
        probes.begin(breaches)
        probes.end(breaches)
    return "\n".join(breaches.lines())


@pytest.mark.parametrize("in_batches", [False, True])
def test_destination_that_refuses_all_probes_is_correct(in_batches):
    destination = Destination()
    assert probe(destination, in_batches=in_batches) == ""
    assert {*destination.probed} == {"used", *(one.key for one in KEYS)}
    assert destination.probed.count("used") == 2 * USES


def test_probe_is_repeated_after_a_503():
    assert probe(Destination(fails=3)) == ""


@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("fault", CODES)
def test_a_key_that_is_accepted_is_found(fault, in_batches):
    text = probe(Destination(wrong={f"key-{fault}": ""}), in_batches=in_batches)
    assert f"a {fault} key" in text
    assert f"expected {answer_of(CODES[fault])}, found 200" in text


def test_wrong_refusal_of_a_key_is_found():
    text = probe(Destination(wrong={"key-expired": "suspended_key"}))
    assert "expected 401 expired_key, found 403 suspended_key" in text


def test_revoked_key_that_stays_accepted_is_found():
    text = probe(Destination(forgets=False), cache_seconds=0.1)
    assert "a key that was in use: expected 401 revoked_key, found 501 unsupported_call_type" in text
