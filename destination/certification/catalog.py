"""Draft the destination's public page in Segment's catalogue from the deployed configuration.

Its sections are in the order of Segment's template for Direct destinations:
https://github.com/segmentio/segment-docs/blob/develop/templates/partners/direct-destination.md
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from destination.certification.samples import Samples
from destination.deployment.target import Target
from handler import errors
from handler.canonicalise import canonicalise
from handler.decode import JsonObject
from handler.errors import Refusal
from handler.spec import CALL_TYPES, CONTEXT, DELETE, SETTINGS

TODO = "TODO"
"""Marks a place for facts that only the partner knows."""
ONE_OF_SEVERAL = "message"
"""The name of a rule about the whole message."""
PURPOSES = {
    "identify": "say who a user is",
    "track": "say what a user did",
    "page": "say which page a user saw",
    "screen": "say which screen of an app a user saw",
    "group": "say which account a user belongs to",
    "alias": "say that two ids are one user",
}
ADVICE: dict[type[Refusal], tuple[str, str]] = {
    errors.MissingCredentials: (
        errors.MissingCredentials.text,
        "Enter the API key in the settings of the destination.",
    ),
    errors.UnknownKey: (errors.UnknownKey.text, "Copy the whole API key into the settings again."),
    errors.ExpiredKey: (errors.ExpiredKey.text, "Get a new API key, and enter it in the settings."),
    errors.RevokedKey: (errors.RevokedKey.text, "Get a new API key, and enter it in the settings."),
    errors.SuspendedKey: (errors.SuspendedKey.text, "Contact support."),
    errors.CallTypeNotAllowed: (
        "This API key may not send … calls",
        "Use an API key that may send these calls, or don't send them to this destination.",
    ),
    errors.InvalidMessage: (
        "a text of one of the calls above, or that a field must be of another type",
        "Correct the field that the text names, then send the call again.",
    ),
    errors.InvalidSettings: ("that a setting is required, or not valid", "Correct the settings of the destination."),
    errors.UnsupportedCallType: (
        "… calls are not supported",
        "Don't send these calls to this destination: the supported calls are described above.",
    ),
    errors.MessageTooLarge: (errors.MessageTooLarge.text, "Send less in one call."),
    errors.NestedTooDeeply: (errors.NestedTooDeeply.text, "Send traits or properties with fewer levels."),
    errors.NumberOutOfRange: (errors.NumberOutOfRange.text, "Send a smaller number, or send it as text."),
    errors.UserErased: (errors.UserErased.text, "Nothing: the user was deleted."),
}
"""The text of each final error, and the customer's remedy; an ellipsis stands for a variable part."""
NOT_THE_CUSTOMERS = frozenset(
    {
        *(errors.NotBasic, errors.NotBase64, errors.NoColon, errors.InvalidEncoding, errors.InvalidJson),
        *(errors.NotAnObject, errors.MissingType, errors.InternalError),
        *(errors.BatchTooLarge, errors.MissingBatch, errors.NothingAccepted, errors.WrongType),
    }
)
"""Errors that a customer can't cause through Segment: it creates credentials and bodies, and sends no batches."""


@dataclass(frozen=True, kw_only=True)
class Partner:
    """The partner's own facts; None is left to be filled in."""

    name: str
    website: str | None
    support: str | None
    keys_at: str | None
    rate: int | None


def page_of(partner: Partner, target: Target, samples: Samples) -> str:
    """Return the page of a deployment."""
    return "\n".join(_page(partner, target, samples))


def _page(partner: Partner, target: Target, samples: Samples) -> Iterator[str]:
    supported = [name for name in CALL_TYPES if name in target.stores.supported_call_types.split(",")]
    yield from ("---", f"title: {json.dumps(f'{partner.name} Destination', ensure_ascii=False)}", "---", "")
    yield from _introduction(partner)
    yield from _getting_started(partner)
    yield from ("## Supported methods", "")
    yield f"{partner.name} supports the following methods, as specified in the [Segment Spec](/docs/connections/spec)."
    for call_type in supported:
        if call_type != DELETE:
            yield from _method(partner, call_type, samples)
    yield from _settings(samples)
    yield from _deletion(partner, target, supported)
    yield from _errors(partner)
    yield from _limits(partner, target)


def _introduction(partner: Partner) -> Iterator[str]:
    website = partner.website or f"{TODO}-your-website"
    link = f"{website.rstrip('/')}/?utm_source=segmentio&utm_medium=docs&utm_campaign=partners"
    yield f"[{partner.name}]({link}) {TODO}: one or two sentences about what it does for its customers."
    yield ""
    support = f"mailto:{partner.support or f'{TODO}-support-address'}"
    yield (
        f"This destination is maintained by {partner.name}. For any issues with the destination, "
        f"[contact the {partner.name} support team]({support})."
    )
    yield ""


def _getting_started(partner: Partner) -> Iterator[str]:
    keys_at = f"[{partner.name}]({partner.keys_at})" if partner.keys_at else f"{partner.name} ({TODO}: where)"
    yield from (
        "## Getting started",
        "",
        "1. In the Segment app, open the catalogue of destinations and click **Add Destination**.",
        f"2. Search for {partner.name} and select it.",
        f"3. Choose the source that sends data to {partner.name}.",
        f"4. Copy your API key in {keys_at}.",
        "5. Enter the API key in the settings of the destination, and enable it.",
        "",
        f"Calls that are sent after that appear in {partner.name} {TODO}: where, and how soon.",
        "",
    )


def _method(partner: Partner, call_type: str, samples: Samples) -> Iterator[str]:
    title = call_type.capitalize()
    yield from ("", f"### {title}", "")
    yield f"Send [{title}](/docs/connections/spec/{call_type}) calls to {PURPOSES.get(call_type, TODO)}. For example:"
    fields = dict(samples.mandatory(call_type))
    context = {name.split(".")[1] for name in fields if name.startswith("context.")}
    body = canonicalise(samples.message(call_type))[0].body
    yield from ("", "```js", _snippet(call_type, body, context), "```", "")
    yield f"In {partner.name} they become {TODO}: what, and where it is seen."
    if fields:
        if "userId" in fields:
            fields.pop(ONE_OF_SEVERAL, None)  # that field satisfies the rule
        yield from ("", "Required:", "", "| field | what you read when it is missing |", "|---|---|")
        for field, text in fields.items():
            yield f"| {'one of several' if field == ONE_OF_SEVERAL else _code(field)} | {_cell(text)} |"


def _snippet(call_type: str, body: JsonObject, context: set[str]) -> str:
    """Return the call in the form of Segment's library for browsers, with these context fields in its spelling."""
    traits, properties = body.get("traits", {}), body.get("properties", {})
    arguments: dict[str, list[Any]] = {
        "identify": [body.get("user_id"), traits],
        "track": [body.get("event"), properties],
        "page": [*filter(None, (body.get("category"),)), body.get("name"), properties],
        "screen": [*filter(None, (body.get("category"),)), body.get("name"), properties],
        "group": [body.get("group_id"), traits],
        "alias": [body.get("user_id"), body.get("previous_id")],
    }
    spelled = {CONTEXT.spelling.get(name, name): value for name, value in body.get("context", {}).items()}
    options = {"context": {name: value for name, value in spelled.items() if name in context}} if context else {}
    given = [
        argument
        for argument in arguments.get(call_type, [properties])
        if argument is not None and (argument or options)
    ]
    given += [options] if options else []
    texts = (json.dumps(argument, indent=2, ensure_ascii=False) for argument in given)
    return f"analytics.{call_type}({', '.join(texts)});"


def _settings(samples: Samples) -> Iterator[str]:
    mandatory = dict(samples.mandatory(SETTINGS))
    fields = samples.fields(SETTINGS)
    yield from ("", "## Settings", "", "| setting | | what it is |", "|---|---|---|")
    yield "| API Key | required | The key that Segment authenticates with. |"
    for name in dict.fromkeys((*fields, *mandatory)):
        schema = fields.get(name)
        described = schema.get("description", "") if isinstance(schema, dict) else ""
        is_required = "required" if name in mandatory else ""
        yield f"| {_code(name)} | {is_required} | {_cell(described) or f'{TODO}: what it is'} |"


def _deletion(partner: Partner, target: Target, supported: list[str]) -> Iterator[str]:
    stores = target.stores
    yield from ("", "## Deletion of users", "")
    if DELETE not in supported:
        yield f"{TODO}: this deployment does not support delete calls, which Segment requires (SupportedCallTypes)."
        return
    linked = ", and of anonymous ids that the user's calls named" if stores.erasure_scope == "linked" else ""
    yield (
        "When you [delete a user in Segment](/docs/privacy/user-deletion-and-suppression/), the request is passed on "
        f"to {partner.name}, which erases what it stored of that `userId`{linked}."
    )
    if not stores.sink.is_queryable:
        yield f"{TODO}: messages go to a queue here; say when your consumer erases the user."
    if stores.event_retention_days != "0":
        yield f"Calls are deleted after {stores.event_retention_days} days in any case."


def _errors(partner: Partner) -> Iterator[str]:
    yield from ("", "## Troubleshooting", "")
    yield (
        "When a call is not accepted, the Event Tester, the debugger and Event Delivery show why. Segment does not "
        "send such a call again."
    )
    yield from ("", "| you read | what to do |", "|---|---|")
    yield from (f"| {text} | {advice} |" for text, advice in ADVICE.values())
    yield from ("| anything else | Contact support. |", "")
    yield (
        f"Answers 500 and 503 mean that {partner.name} can't take the call at the moment: Segment sends it again for "
        "up to four hours, and it is stored once."
    )


def _limits(partner: Partner, target: Target) -> Iterator[str]:
    region = None if target.is_local else target.account.dynamodb().meta.region_name
    yield from ("", "## Replays, rates and regions", "")
    yield (
        f"{partner.name} respects the `timestamp` of a call, does not depend on the order of calls, and stores a "
        "repeated call once. So [replays](/docs/guides/what-is-replay/) are possible."
    )
    rate = f"{partner.rate:,}" if partner.rate else f"{TODO}: how many"
    yield f"It accepts up to {rate} calls a second. Data is stored in the AWS region {region or f'{TODO}: which'}."


def _cell(text: str) -> str:
    """Return a text for a cell of a table: without Markdown, HTML and variables of the page."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("{", "&#123;")
    return re.sub(r"([\\|*_\[\]`])", r"\\\1", text)


def _code(name: str) -> str:
    """Return a name as code for a cell of a table; as text if code can't contain it."""
    return _cell(name) if re.search(r"[|`{\n]", name) else f"`{name}`"
