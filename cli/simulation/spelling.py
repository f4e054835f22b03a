"""How the messages of `destination simulate` spell their fields: each as its source does."""

from collections.abc import Callable
from random import Random

from handler.decode import JsonObject
from handler.spec import CONTEXT, CONTEXT_OBJECTS, TOP, Fields, snake_case


def _words(name: str) -> list[str]:
    return snake_case(name).split("_")


SPELLINGS: dict[str, Callable[[str], str]] = {
    "user_id": snake_case,
    "UserID": lambda name: "".join("ID" if word == "id" else word.title() for word in _words(name)),
    "User ID": lambda name: " ".join("ID" if word == "id" else word.title() for word in _words(name)),
    "user-id": lambda name: "-".join(_words(name)),
    "USER_ID": lambda name: snake_case(name).upper(),
}
"""How they spell `userId` -> how they spell any name of the spec."""


def respelled(draw: Random, message: JsonObject) -> JsonObject:
    """Spell a message as its source does: most as the spec, some in another casing, old aliases in other words."""
    if message["type"] == "alias":
        spelling = draw.choice(("spec", "old", "User ID"))
        if spelling == "old":
            return {{"previousId": "from", "userId": "to"}.get(name, name): value for name, value in message.items()}
    else:
        spelling = draw.choices(("spec", "both", *SPELLINGS), (70, 2, 15, 4, 3, 3, 3))[0]
    if spelling == "spec":
        return message
    if spelling == "both":
        return message | {snake_case(name): value for name, value in message.items() if name in ("userId", "messageId")}
    return spelled(message, SPELLINGS[spelling])


def spelled(message: JsonObject, spell: Callable[[str], str]) -> JsonObject:
    """Spell the spec's fields of a message anew, at the top and in its context."""
    respelled = _spell_fields(message, TOP, spell)
    context = respelled.get(spell("context"))
    if isinstance(context, dict):
        for name, fields in CONTEXT_OBJECTS.items():
            field = CONTEXT.spelling[name]
            if field in context:
                context[field] = _spell_fields(context[field], fields, spell)
        respelled[spell("context")] = _spell_fields(context, CONTEXT, spell)
    return respelled


def _spell_fields(source: JsonObject, fields: Fields, spell: Callable[[str], str]) -> JsonObject:
    """Spell the spec's fields anew and leave all others alone; a leading underscore counts, so it is one of those."""
    return {spell(name) if fields.canonical[name] and name[0] != "_" else name: value for name, value in source.items()}
