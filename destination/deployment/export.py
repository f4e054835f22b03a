"""Export the stored data of one person, for a request of access (GDPR, article 15).

It finds the data with the functions of `consumer/erasure/subject.py`. So an export shows exactly what an erasure
deletes and counts.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from consumer.contacts.table import ContactTable
from consumer.erasure.subject import REJECT_KEY, Scope, linked_subject, links_of, rejects_of, stored_of
from consumer.erasure.table import ErasureTable
from consumer.runtime.stored import UNREADABLE, Item, image_of
from destination.deployment.erasure import Person
from destination.deployment.event_table import fetch_items, to_json
from destination.deployment.reject_table import StoredRejects
from destination.deployment.target import Target
from handler.decode import JsonObject
from handler.record import sha256
from handler.spec import DELETE

PAGE_ITEMS = 100
KINDS = ("message", "erasure_request", "reject", "linked_message", "linked_reject", "contact", "receipt")
"""The kinds of documents in an export."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """The stored data of a person: under the id, and with `ErasureScope=linked` under linked anonymous ids.

    `counts` counts the documents by kind, as far as they have been read.
    """

    target: Target
    person: Person
    counts: Counter[str] = field(default_factory=Counter)

    def documents(self) -> Iterator[JsonObject]:
        """Yield a JSON object for each stored item, with its `kind`; raises `STORE_ERRORS`.

        The kinds are `message`, `erasure_request` (a `delete` message that the eraser has not carried out), `reject`,
        `contact` and `receipt`. Items under a linked id have the kind `linked_message` or `linked_reject`.
        """
        for document in self._documents():
            self.counts[document["kind"]] += 1
            yield document

    @cached_property
    def linked_subjects(self) -> tuple[str, ...]:
        """Return the subjects of the anonymous ids in the person's messages."""
        client, table = self.target.account.dynamodb(), self.target.stores.event_table
        links = links_of(client, table, self.person.subject, lambda _: None)
        subjects = {linked_subject(self.person.customer_id, link) for link in links}
        return tuple(sorted(subjects - {self.person.subject}))

    @property
    def has_linked(self) -> bool:
        """Return whether the export includes items under linked ids, as an erasure would."""
        return self.target.stores.erasure_scope == Scope.LINKED

    def _documents(self) -> Iterator[JsonObject]:
        yield from self._messages(self.person.subject, "message")
        yield from self._rejects(self.person.subject, "reject")
        if self.has_linked:
            for subject in self.linked_subjects:
                yield from self._messages(subject, "linked_message")
                yield from self._rejects(subject, "linked_reject")
        yield from self._contact()
        yield from self._receipts()

    def _messages(self, subject: str, kind: str) -> Iterator[JsonObject]:
        client, table = self.target.account.dynamodb(), self.target.stores.event_table
        keys = [(item["subject"]["S"], item["position"]["S"]) for item in stored_of(client, table, subject)]
        for begin in range(0, len(keys), PAGE_ITEMS):
            items = fetch_items(self.target, keys[begin : begin + PAGE_ITEMS])
            for item in sorted(items, key=lambda item: item["position"]["S"]):
                is_delete = item.get("type") == {"S": DELETE}
                # a delete of a linked id is a request of its own
                if not (is_delete and subject != self.person.subject):
                    yield {"kind": "erasure_request" if is_delete else kind, **_message(item)}

    def _rejects(self, subject: str, kind: str) -> Iterator[JsonObject]:
        client, name = self.target.account.dynamodb(), self.target.stores.rejects_table
        table = StoredRejects(client, name)
        for key in rejects_of(client, name, subject):
            reject = table.find(*(key[part]["S"] for part in REJECT_KEY))
            contents = reject and table.contents(reject)
            if reject and contents:
                yield {"kind": kind, **reject.to_json(), "body": contents.body, "settings": contents.settings_header}

    def _contact(self) -> Iterator[JsonObject]:
        stores = self.target.stores
        if stores.consumer == "on":
            table = ContactTable(self.target.account.dynamodb(), stores.contact_table, customer=self.person.customer_id)
            [contact_id] = self.person.ids.values()
            profile = table.find(contact_id)
            if profile is not None:
                yield {"kind": "contact", **table.to_json(profile)}

    def _receipts(self) -> Iterator[JsonObject]:
        table = ErasureTable(self.target.account.dynamodb(), self.target.stores.erasure_table)
        for receipt in table.receipts(self.person.customer_id, user_hash=sha256(self.person.subject)):
            yield {"kind": "receipt", **receipt.to_json()}


def _message(item: Item) -> JsonObject:
    """Return a stored message in the form of `messages show`; if somebody has edited it, return its attributes."""
    try:
        return to_json(item)
    except UNREADABLE:
        return {"unreadable": image_of(item)}
