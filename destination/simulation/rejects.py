"""Compare the kept rejects with the refused messages: all of them, as sent, and no others."""

import json
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from destination.deployment.reject_table import SHARDS, last_days
from destination.deployment.target import Target
from destination.segment.due import escaped, repeated, sha256
from destination.simulation.fingerprint import RejectKey, reject_key
from destination.simulation.ledger import Ledger, SentReject
from destination.simulation.routes import is_write_key, json_text
from destination.simulation.stored import parts_that_differ, short
from destination.simulation.traffic import Traffic

RUN_DAYS = 2
"""The days on which a run leaves rejects: it may run over midnight."""


@dataclass(frozen=True, kw_only=True)
class RejectRecord:
    """A stored reject; `batch_index` is None for a message that was sent alone."""

    customer_id: str
    facts: Mapping[str, str]
    body: str
    settings: str

    @property
    def is_of_batch(self) -> bool:
        """Return whether the message was sent in a batch."""
        return "batch_index" in self.facts

    @property
    def document(self) -> Any:  # noqa: ANN401 -- any JSON value
        """The body as JSON, None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def key(self) -> RejectKey:
        """The key that identifies the reject."""
        document = self.document
        if self.is_of_batch and isinstance(document, dict):
            return reject_key(self.customer_id, repeated(document), "")
        return reject_key(self.customer_id, self.body, self.settings)

    @property
    def due_hash(self) -> str:
        """The hash that it must have."""
        document = self.document
        text = json_text(repeated(document)) if self.is_of_batch and isinstance(document, dict) else self.body
        return sha256(f"{self.settings}\n{text}")


@dataclass(frozen=True, kw_only=True)
class RejectComparison:
    """The number of kept rejects, of refused messages without one, and of unexpected rejects.

    `unsent` rejects are not faults if earlier runs `may_have_sent` them.
    """

    kept: int
    missing: int
    unsent: int
    may_have_sent: bool

    @property
    def failed(self) -> bool:
        """Return whether anything is wrong."""
        return bool(self.missing or (self.unsent and not self.may_have_sent))


def compare_rejects(
    target: Target,
    ledger: Ledger,
    traffic: Traffic,
    *,
    erased: Collection[str] = (),
    may_have_sent: bool = False,
) -> RejectComparison:
    """Compare; rejects of `erased` subjects may be gone. Raises `STORE_ERRORS`."""
    found = {reject.key: reject for reject in _read(target, traffic.customer_ids)}
    must = {key for key in ledger.kept if ledger.rejects[key].subject not in erased}
    missing, unsent = must - found.keys(), found.keys() - ledger.rejects.keys()
    for key in missing:
        _tell_missing(ledger, traffic, ledger.rejects[key], [found[other] for other in unsent])
    for key in found.keys() & ledger.rejects.keys():
        _check(ledger, found[key], ledger.rejects[key])
    for key in unsent:
        _check_write_key(ledger, found[key])
    return RejectComparison(
        kept=len(found.keys() & ledger.rejects.keys()),
        missing=len(missing),
        unsent=len(unsent),
        may_have_sent=may_have_sent,
    )


def _tell_missing(ledger: Ledger, traffic: Traffic, sent: SentReject, unsent: Collection[RejectRecord]) -> None:
    """Report that a reject is missing, or that it has another body."""
    parcel = traffic.parcel(sent.sending)
    customer_id = traffic.customer_ids[parcel.customer]
    about = f"{customer_id}, {parcel.plain.get('type', 'no type')} {short(parcel.plain.get('messageId'))}"
    body = parcel.body.decode("utf-8", "replace")
    alike = next((one for one in unsent if one.customer_id == customer_id and _is_alike(one, body, parcel.plain)), None)
    if alike is None:
        promise = "if the answer says that a message is kept, the message is among the rejects"
        ledger.breaches.add(promise, about, expected=f"a reject with {short(body)}", found="none")
        return
    differing = list(parts_that_differ(json.loads(body), alike.document)) if alike.document is not None else []
    path, due, there = (
        differing[0]
        if differing and not alike.is_of_batch
        else ("", f"{len(body):,} characters {short(body)}", f"{len(alike.body):,} characters {short(alike.body)}")
    )
    ledger.breaches.add(
        "a reject has the body that was sent",
        about,
        expected=f"{path} {due or 'absent'}".strip(),
        found=f"{path} {there or 'nothing'}".strip(),
    )


def _is_alike(reject: RejectRecord, body: str, plain: Mapping[str, Any]) -> bool:
    """Return whether a reject may be the kept form of a body."""
    times = [text for name in ("originalTimestamp", "timestamp") if isinstance(text := plain.get(name), str)]
    start = reject.body[:200]
    return bool(start) and (body.startswith(start) or any(time in reject.body for time in times))


def _check(ledger: Ledger, reject: RejectRecord, sent: SentReject) -> None:
    """Compare the attributes of a reject with the expected ones."""
    facts = reject.facts
    for name, due in (("code", sent.code), ("subject", sent.subject), ("body_hash", reject.due_hash)):
        if facts.get(name) != due:
            ledger.breaches.add(
                f"a reject has the expected {name}",
                f"{reject.customer_id}, reject {facts.get('body_hash', '')[:12]}",
                expected=str(due),
                found=str(facts.get(name)),
            )


def _check_write_key(ledger: Ledger, reject: RejectRecord) -> None:
    document = reject.document
    if isinstance(document, dict) and any(map(is_write_key, document)):
        ledger.breaches.add(
            "the key of a source (writeKey) is never stored",
            f"{reject.customer_id}, reject {reject.facts.get('body_hash', '')[:12]}",
            expected="a body without writeKey",
            found="one with it",
        )


def _read(target: Target, customer_ids: Collection[str]) -> Iterator[RejectRecord]:
    """Read the rejects of these customers."""
    client, table = target.account.dynamodb(), target.stores.rejects_table
    if target.is_local:  # an embedded AWS reads the whole table for every query anyway
        for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
            yield from (_reject(item) for item in page["Items"] if item["customer_id"]["S"] in customer_ids)
        return
    for customer_id in customer_ids:
        for day in last_days(RUN_DAYS, datetime.now(UTC).date()):
            for shard in SHARDS:
                pages = client.get_paginator("query").paginate(
                    TableName=table,
                    KeyConditionExpression="customer_day_shard = :shard",
                    ExpressionAttributeValues={":shard": {"S": f"{escaped(customer_id)}#{day}#{shard}"}},
                    ConsistentRead=True,
                )
                yield from (_reject(item) for page in pages for item in page["Items"])


def _reject(item: Mapping[str, Any]) -> RejectRecord:
    facts = {name: value["S"] for name, value in item.items() if "S" in value}
    body = item.get("body", {})
    try:
        text = zlib.decompress(body["B"]).decode() if "B" in body else body.get("S", "")
    except (ValueError, zlib.error):
        text = ""
    return RejectRecord(
        customer_id=item["customer_id"]["S"], facts=facts, body=text, settings=facts.get("settings", "")
    )
