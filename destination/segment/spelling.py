"""Spell the field names of `destination simulate`'s messages as different sources do."""

from collections.abc import Callable, Mapping
from random import Random

from destination.segment.contract import JsonObject
from destination.segment.names import CONTEXT_NAMES, CONTEXT_OBJECT_NAMES, OLD_ALIAS_NAMES, TOP_NAMES, WRITE_KEY

_TOP_NAMES = {**TOP_NAMES, WRITE_KEY: "write_key"}
_NAMES = {**_TOP_NAMES, **CONTEXT_NAMES}
for _names in CONTEXT_OBJECT_NAMES.values():
    _NAMES |= _names


def snake_case(name: str) -> str:
    """Return a name of the spec as it is stored."""
    return _NAMES.get(name, name)


def _words(name: str) -> list[str]:
    return snake_case(name).split("_")


SPELLINGS: dict[str, Callable[[str], str]] = {
    "user_id": snake_case,
    "UserID": lambda name: "".join("ID" if word == "id" else word.title() for word in _words(name)),
    "User ID": lambda name: " ".join("ID" if word == "id" else word.title() for word in _words(name)),
    "user-id": lambda name: "-".join(_words(name)),
    "USER_ID": lambda name: snake_case(name).upper(),
}
"""A spelling of `userId` -> a function that spells any name of the spec in the same way."""


def respelled(draw: Random, message: JsonObject) -> JsonObject:
    """Spell a message as its source does: mostly as the spec, some in another casing, old aliases with old names."""
    if message.get("type") == "alias":
        spelling = draw.choice(("spec", "old", "User ID"))
        if spelling == "old":
            old_names = {today: old for old, today in OLD_ALIAS_NAMES.items()}
            return {old_names.get(name, name): value for name, value in message.items()}
    else:
        spelling = draw.choices(("spec", "both", *SPELLINGS), (70, 2, 15, 4, 3, 3, 3))[0]
    if spelling == "spec":
        return message
    if spelling == "both":
        return message | {snake_case(name): value for name, value in message.items() if name in ("userId", "messageId")}
    return spelled(message, SPELLINGS[spelling])


def spelled(message: JsonObject, spell: Callable[[str], str]) -> JsonObject:
    """Change the spelling of the spec's fields, at the top and in the context; the input has the spec's spelling."""
    respelled = _spell_fields(message, _TOP_NAMES, spell)
    context = respelled.get(spell("context"))
    if isinstance(context, dict):
        objects = {
            name: _spell_fields(context[name], names, spell)
            for name, names in CONTEXT_OBJECT_NAMES.items()
            if isinstance(context.get(name), dict)
        }
        respelled[spell("context")] = _spell_fields(context | objects, CONTEXT_NAMES, spell)
    return respelled


def _spell_fields(source: JsonObject, names: Mapping[str, str], spell: Callable[[str], str]) -> JsonObject:
    """Change the spelling of the spec's fields only; a leading underscore counts, so such fields are not the spec's."""
    return {spell(name) if name in names and name[0] != "_" else name: value for name, value in source.items()}
