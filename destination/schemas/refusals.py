"""Find schemas that refuse every message of their call type, or messages as Segment always sends them.

A customer can change or add most fields, so rules about those can be satisfied. Nobody can change the fields of `SENT`,
or prevent Segment from adding `ADDED`. So each schema judges the samples in `events/`. An error counts if the customer
could not prevent it by another value or another field. The rules of one value are also compared with each other: no
value has at least five and at most three characters.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

from jsonschema import Draft7Validator, ValidationError

from destination.paths import ROOT
from destination.schemas.places import Place, SchemaFault
from handler.canonicalise import canonicalise
from handler.decode import JsonObject
from handler.diagnose import FORMATS, schema_registry, with_own_rules
from handler.explain import rule_text, spell_path
from handler.patterns import python_schema
from handler.spec import CALL_TYPES, DELETE, TOP

EVENTS = ROOT / "events"

SENT = ("message_id", "original_timestamp", "received_at", "sent_at", "timestamp", "type")
"""The fields that no customer chooses."""
ADDED = (*SENT, "_metadata", "channel", "context", "integrations", "project_id", "version")
"""The fields that Segment and its libraries add."""
REQUIRED = {
    "track": ("event",),
    "group": ("group_id",),
    "alias": ("previous_id", "user_id"),
    DELETE: ("user_id",),
}
"""The fields that messages of a call type always have, besides their type and message id."""
REPAIRED_BY_A_FIELD = {"contains", "dependencies", "dependentRequired", "minContains", "required"}
CLOSING = {"additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties"}
"""Keywords that judge fields by name, or fields that no other keyword names."""

BOUNDS = {
    ("minLength", "maxLength"): ("string",),
    ("minItems", "maxItems"): ("array",),
    ("minProperties", "maxProperties"): ("object",),
    ("minimum", "maximum"): ("integer", "number"),
    ("exclusiveMinimum", "maximum"): ("integer", "number"),
    ("minimum", "exclusiveMaximum"): ("integer", "number"),
    ("exclusiveMinimum", "exclusiveMaximum"): ("integer", "number"),
    ("minContains", "maxContains"): ("array",),
}
"""Pairs of keywords: the first must not exceed the second -> the types that they judge."""
TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
MAX_DEPTH = 12

References = Mapping[int, Place | None]
"""The id of a schema -> the target of its reference."""


@dataclass(frozen=True, kw_only=True)
class _Error:
    """An error that no customer can prevent."""

    field: str
    """The refused top-level field, "" for the message as a whole."""
    value: Any
    rule: str
    path: tuple[str | int, ...]
    """The path from the root of the schema, in the form of `jsonschema`: without `$ref` and `if`."""


def refusal_faults(
    documents: Mapping[str, JsonObject], places: Mapping[int, Place], follow: References
) -> list[SchemaFault]:
    """Return the rules by which a schema refuses messages that it must accept."""
    faults: list[SchemaFault] = []
    python_documents: dict[str, JsonObject] = {name: python_schema(document) for name, document in documents.items()}
    registry = schema_registry(python_documents)
    for call_type in CALL_TYPES:
        file = f"{call_type}.json"
        root = places[id(documents[file])]
        never = list(_Values(places=places, follow=follow).faults(root, call_type))
        faults += never
        if never:
            continue
        validator = with_own_rules(root.dialect)(python_documents[file], registry=registry, format_checker=FORMATS)
        judged = [list(_hopeless(validator.iter_errors(sample))) for sample in samples(call_type)]
        found = [error for errors in judged for error in errors if error.field]
        if all(judged):
            _, fewest = min((len(errors), number) for number, errors in enumerate(judged))
            found += judged[fewest]
        faults += [_fault(root, error, follow) for error in found]
    first = {(fault.file, fault.pointer): fault for fault in reversed(faults)}  # samples often differ in the same place
    return list(first.values())


def samples(call_type: str) -> list[JsonObject]:
    """Return canonical messages of a call type: as in `events/`, with every field of Segment, and with very few."""
    event = json.loads((EVENTS / f"{call_type}.json").read_text("utf-8"))
    usual = json.loads(event["body"])
    names = ("type", "anonymousId", "userId", "previousId", "groupId", "event", "timestamp")
    few = {name: usual[name] for name in names if name in usual}
    full = usual | {"channel": "server", "projectId": "example", "version": 2, "_metadata": {"bundled": []}}
    swift = usual | {"messageId": "0E5D8A3C-2A1B-4F0B-9E1D-6C3F0B7A9D52"}
    sent = [usual, few, full, swift]
    if call_type not in ("alias", DELETE):
        sent.append({name: value for name, value in few.items() if name != "userId"} | {"anonymousId": "a-1"})
        sent.append({name: value for name, value in few.items() if name != "anonymousId"} | {"userId": "u-1"})
    if call_type == "track":
        sent += [message | {"event": "Signed Up", "properties": {}} for message in (few, full)]
    return [canonicalise(message)[0].body for message in sent]


def _hopeless(errors: Iterable[ValidationError]) -> Iterator[_Error]:
    """Yield errors that a customer can't prevent by another value or another field."""
    for error in errors:
        keyword = cast("str | None", error.validator)
        if keyword in ("anyOf", "oneOf") and error.context:
            groups = itertools.groupby(error.context, key=lambda inner: inner.schema_path[0])
            branches = [list(_hopeless(group)) for _, group in groups]
            if all(branches):
                yield from branches[0]
        elif keyword == "oneOf" and not _is_always_ambiguous(cast("list[object]", error.validator_value)):
            continue
        elif keyword not in REPAIRED_BY_A_FIELD and _concerns_segment(error):
            [field] = list(error.absolute_path)[:1] or [""]
            yield _Error(
                field=str(field),
                value=error.instance,
                rule=f"the message {rule_text(keyword, error.validator_value, error.instance)}" if keyword else "false",
                path=tuple(error.absolute_schema_path),
            )


def _is_always_ambiguous(branches: list[object]) -> bool:
    """Return whether two alternatives always match, although only one may."""
    return sum(branch is True or branch == {} for branch in branches) > 1


def _concerns_segment(error: ValidationError) -> bool:
    path, rules = list(error.absolute_path), set(error.absolute_schema_path)
    if not path or (len(path) == 1 and path[0] in SENT):
        return True
    return len(path) == 1 and path[0] in ADDED and "properties" not in rules and bool(CLOSING & rules)


def _fault(root: Place, error: _Error, follow: References) -> SchemaFault:
    place, path = _locate(root, error.path, follow)
    closing = next((part for part in error.path if part in CLOSING), None)
    if closing and error.field not in SENT:
        kept = path[: path.index(closing) + 1] if closing in path else path
        return place.fault(
            f"{closing} refuses fields that Segment adds to messages, such as {error.field or 'context'}: leave it out "
            "at the top of a message",
            *kept,
        )
    if not error.field:
        return place.fault(f"this refuses every message ({error.rule}): leave it out", *path)
    field = spell_path([error.field], root.file)
    sample = json.dumps(error.value, ensure_ascii=False)
    return place.fault(
        f"Segment sends messages whose {TOP.spelling.get(field, field)} is {sample}: allow it here", *path
    )


def _locate(root: Place, path: Iterable[str | int], follow: References) -> tuple[Place, tuple[str | int, ...]]:
    """Return the place in a file, and the path from there, of a path without `$ref` and `if`."""
    place, current = root, cast("Any", root.schema)
    here: list[str | int] = []
    for part in path:
        if isinstance(current, dict) and part not in current and (target := follow.get(id(current))):
            place, here, current = target, [], target.schema
        if isinstance(current, dict) and part not in current:  # a pattern for names, which Python spells differently
            break
        current = current[part]
        here.append(part)
    return place, tuple(here)


@dataclass(frozen=True, kw_only=True)
class _Values:
    """The values that can satisfy all schemas that judge them."""

    places: Mapping[int, Place]
    follow: References

    def faults(self, root: Place, call_type: str) -> Iterator[SchemaFault]:
        """Yield the required fields for which no value is possible."""
        always = (*REQUIRED.get(call_type, ()), "message_id", "type")
        yield from self._impossible([root], always, depth=0)

    def _impossible(self, together: list[Place], always: Iterable[str], depth: int) -> list[SchemaFault]:
        """Return why no value can satisfy some schemas together; nothing if one may."""
        if depth > MAX_DEPTH:
            return []
        together = list(self._joined(together))
        types = TYPES
        for place in together:
            named = place.schema.get("type", TYPES)
            types &= _with_integers([named] if isinstance(named, str) else named)
            if not types:
                return [place.fault("no value has this type and those that other rules here ask for", "type")]
        return (
            _bound_faults(together, types)
            or _closed_faults(together)
            or _choice_faults(together)
            or (self._required_faults(together, always, depth) if types == {"object"} or depth == 0 else [])
            or self._alternative_faults(together, always, depth)
        )

    def _joined(self, together: Iterable[Place]) -> Iterator[Place]:
        """Yield schemas and all others that always judge the same value."""
        waiting, seen = list(together), set[int]()
        while waiting:
            place = waiting.pop(0)
            if id(place.schema) in seen:
                continue
            seen.add(id(place.schema))
            target = self.follow.get(id(place.schema))
            if target is not None:
                waiting.append(target)
            if target is not None and place.dialect is Draft7Validator:
                continue  # keywords next to a reference don't count
            yield place
            inner = enumerate(place.schema.get("allOf", ()))
            waiting += [_inner(place, schema, "allOf", index) for index, schema in inner if isinstance(schema, dict)]

    def _required_faults(self, together: list[Place], always: Iterable[str], depth: int) -> list[SchemaFault]:
        """Return why no value is possible for one of the required properties."""
        names = {*always, *(name for place in together for name in place.schema.get("required", ()))}
        return next(filter(None, (self._property_faults(together, name, depth) for name in sorted(names))), [])

    def _alternative_faults(self, together: list[Place], always: Iterable[str], depth: int) -> list[SchemaFault]:
        """Return why none of some alternatives can match."""
        alternatives = (
            self._branch_faults(together, place, keyword, always, depth)
            for place in together
            for keyword in ("anyOf", "oneOf")
            if keyword in place.schema
        )
        return next(filter(None, alternatives), [])

    def _property_faults(self, together: list[Place], name: str, depth: int) -> list[SchemaFault]:
        """Return why no value is possible for a required property."""
        inner: list[Place] = []
        for place in together:
            properties = place.schema.get("properties", {})
            if name in properties:
                if properties[name] is False:
                    return [place.fault(f"{name} is required, and false refuses every value of it", "properties", name)]
                if isinstance(properties[name], dict):
                    inner.append(_inner(place, properties[name], "properties", name))
            elif "patternProperties" not in place.schema:
                more = place.schema.get("additionalProperties", True)
                if depth and more is False:
                    text = f"{name} is required, and additionalProperties refuses it: add {name} to properties"
                    return [place.fault(text, "additionalProperties")]
                if isinstance(more, dict):
                    inner.append(_inner(place, more, "additionalProperties"))
        return self._impossible(inner, (), depth + 1) if inner else []

    def _branch_faults(
        self, together: list[Place], place: Place, keyword: str, always: Iterable[str], depth: int
    ) -> list[SchemaFault]:
        """Return why none of some alternatives can match."""
        found: list[SchemaFault] = []
        others = [_without_alternatives(other) for other in together]
        for index, branch in enumerate(place.schema[keyword]):
            if branch is False:
                faults = [place.fault("false refuses every value: leave it out", keyword, index)]
            elif isinstance(branch, dict):
                faults = self._impossible([*others, _inner(place, branch, keyword, index)], always, depth + 1)
            else:
                faults = []
            if not faults:
                return []
            found += faults
        return found[:1]


CHOOSING = (
    *("const", "enum", "exclusiveMaximum", "exclusiveMinimum", "maxItems", "maxLength", "maxProperties", "maximum"),
    *("minItems", "minLength", "minProperties", "minimum", "type"),
)
"""Keywords that judge a value without references or patterns."""


def _closed_faults(together: Iterable[Place]) -> list[SchemaFault]:
    """Return where a schema refuses every value: `false`, `not` of everything, or an empty `enum`."""
    for place in together:
        for index, schema in enumerate(place.schema.get("allOf", ())):
            if schema is False:
                return [place.fault("false refuses every value: leave it out", "allOf", index)]
        if place.schema.get("not", False) in (True, {}):
            return [place.fault("not refuses every value here: leave it out, or put a schema into it", "not")]
        if place.schema.get("enum") == []:
            return [place.fault("enum has no values, so it refuses every value: list some", "enum")]
    return []


def _choice_faults(together: Iterable[Place]) -> list[SchemaFault]:
    """Return where no value in `const` or `enum` satisfies the other schemas."""
    validators = [_chooser(place) for place in together]
    for place in together:
        for keyword in {"const", "enum"} & place.schema.keys():
            values = [place.schema[keyword]] if keyword == "const" else place.schema[keyword]
            if not any(all(validator.is_valid(value) for validator in validators) for value in values):
                return [place.fault(f"{keyword} lists no value that the other rules here allow", keyword)]
    return []


def _chooser(place: Place) -> Any:  # noqa: ANN401 -- a validator of any dialect
    """Return a validator for the keywords of a schema that are in `CHOOSING`."""
    rules = {keyword: rule for keyword, rule in place.schema.items() if keyword in CHOOSING}
    return with_own_rules(place.dialect)(rules)


def _inner(place: Place, schema: JsonObject, *path: str | int) -> Place:
    return Place(schema=schema, file=place.file, path=(*place.path, *path), dialect=place.dialect)


def _without_alternatives(place: Place) -> Place:
    schema = {name: rule for name, rule in place.schema.items() if name not in ("allOf", "anyOf", "oneOf")}
    return Place(schema=schema, file=place.file, path=place.path, dialect=place.dialect)


def _with_integers(types: Iterable[str]) -> frozenset[str]:
    names = frozenset(types)
    return names | {"integer"} if "number" in names else names


def bound_faults(place: Place) -> list[SchemaFault]:
    """Return where the bounds of one schema exclude each other."""
    return _bound_faults([place], frozenset())


def _bound_faults(together: Iterable[Place], types: frozenset[str]) -> list[SchemaFault]:
    """Return where bounds exclude every value of some types; without types, where they exclude each other."""
    bounds: dict[str, tuple[Any, Place]] = {}
    for place in together:
        for keyword in {keyword for pair in BOUNDS for keyword in pair} & place.schema.keys():
            value = place.schema[keyword]
            known = bounds.get(keyword)
            is_lower = keyword.lower().startswith(("min", "exclusivemin"))
            if known is None or (value > known[0] if is_lower else value < known[0]):
                bounds[keyword] = (value, place)
    excluded: set[str] = set()
    faults = []
    for (low, high), judged in BOUNDS.items():
        if low not in bounds or high not in bounds:
            continue
        (least, _), (most, place) = bounds[low], bounds[high]
        is_strict = "exclusive" in (low + high)
        if Fraction(str(least)) > Fraction(str(most)) or (is_strict and least == most):
            excluded |= set(judged)
            faults.append(place.fault(f"no value is allowed by {low} {least} and {high} {most}: correct one", high))
    return faults if types <= excluded else []
