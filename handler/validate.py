"""Step 4: validate a message by the schema of its call type, and settings by their own schema.

`schemas/` has one JSON Schema per call type, with shared definitions in `common.json`, and `settings.json`.

There are two validators. `CompiledValidator` is fast and can only accept: a document that its generated code
(`compile.py`) accepts is valid. For any other document it loads `JsonSchemaValidator` (`diagnose.py`), which decides.
`explain.py` turns its errors into texts for the customer. No message is refused without `jsonschema`.
"""

import importlib
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, Self

from handler.canonicalise import Message
from handler.compile import FORMATS, compile_schemas, digest, read_schemas
from handler.decode import JsonObject, type_name
from handler.errors import InvalidMessage, InvalidSettings, MissingType, UnsupportedCallType, Violation, WrongType
from handler.spec import CALL_TYPES, SETTINGS, TOP
from handler.time_limit import CheckTime, TooSlowError

SCHEMA_NAMES = (*CALL_TYPES, SETTINGS)

TOO_SLOW = "This takes too long to check: a rule of our schema {name}.json needs too many steps for it"


def check_call_type(message: Message, supported: Collection[str], *, expected: str | None = None) -> str:
    """Return the call type of a message; raises `MissingType`, `WrongType` or `UnsupportedCallType`."""
    call_type = message.type
    if not isinstance(call_type, str) or not call_type:
        raise MissingType
    if expected is not None and call_type != expected:
        raise WrongType(expected)
    if call_type not in supported:
        raise UnsupportedCallType(call_type if call_type in CALL_TYPES else None)
    return call_type


class Validator(Protocol):
    """Validates documents by schemas, which have names."""

    def violations(self, name: str, document: JsonObject, time: CheckTime) -> tuple[Violation, ...]:
        """Return the violations of a schema by a document; raises `TooSlowError` if that takes more than `time`."""


class CompiledValidator:
    """Accepts documents by a module that `compile_schemas` generated, and lets another validator decide on the rest.

    `load` returns the other validator. It is called when it is needed first, since loading takes a third of a cold
    start: now if a schema could not be compiled, so that no customer waits.
    """

    def __init__(self, module: Any, names: Collection[str], load: Callable[[], Validator]) -> None:  # noqa: ANN401
        self._module = module
        self._load = load
        if not module.COMPILED.issuperset(names):
            self._fallback  # noqa: B018 -- loads it

    def violations(self, name: str, document: JsonObject, time: CheckTime) -> tuple[Violation, ...]:
        """Return the violations of a schema by a document; raises `TooSlowError` if that takes more than `time`."""
        if name not in self._module.CAN_BE_SLOW:
            is_valid = self.accepts(name, document)
        else:
            is_valid = time.run(self.accepts, name, document)
        return () if is_valid else self._fallback.violations(name, document, time)

    def accepts(self, name: str, document: JsonObject) -> bool:
        """Return whether the generated code accepts a document, which then is valid."""
        if name not in self._module.COMPILED:
            return False
        try:
            self._module.validate({name: document}, FORMATS)
        except self._module.JsonSchemaValueException:
            return False
        return True

    @cached_property
    def _fallback(self) -> Validator:
        return self._load()


class Schemas:
    """The schemas of some files, by name, with the module that `compile_schemas` generated from them."""

    def __init__(self, files: Mapping[str, bytes], compiled: Any) -> None:  # noqa: ANN401 -- a module
        def load() -> Validator:
            from handler.diagnose import JsonSchemaValidator  # noqa: PLC0415 -- only refusals need `jsonschema`

            return JsonSchemaValidator(files, SCHEMA_NAMES)

        self._validator = CompiledValidator(compiled, SCHEMA_NAMES, load)
        self._needs_no_settings = self._validator.accepts(SETTINGS, {})  # most messages come without settings

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a schema folder. `destination schemas check` validates the schemas themselves."""
        files = read_schemas(folder)
        return cls(files, _compiled(files))

    def check_message(self, call_type: str, body: JsonObject, time: CheckTime | None = None) -> None:
        """Raise `InvalidMessage` if a canonical message breaks the schema of its call type, or has no valid key.

        `time` is shared by the checks of a request. A message that can't be checked in that time is refused too.
        """
        if violations := self._violations(call_type, body, time or CheckTime()):
            raise InvalidMessage(violations)
        _check_key(body)

    def check_settings(self, settings: JsonObject, time: CheckTime | None = None) -> None:
        """Raise `InvalidSettings` if the customer's settings break `settings.json`, or can't be checked in `time`."""
        if settings == {} and self._needs_no_settings:
            return
        if violations := self._violations(SETTINGS, settings, time or CheckTime()):
            raise InvalidSettings(violations)

    def _violations(self, name: str, document: JsonObject, time: CheckTime) -> tuple[Violation, ...]:
        try:
            return self._validator.violations(name, document, time)
        except TooSlowError:
            return (Violation(pointer="", message=TOO_SLOW.format(name=name)),)


def _check_key(body: JsonObject) -> None:
    """Raise `InvalidMessage` if a message lacks a part of its record's key, whatever the schemas allow."""
    subject = "user_id" if "user_id" in body else "anonymous_id"
    if subject not in body:
        raise InvalidMessage((Violation(pointer="", message="userId or anonymousId is required"),))
    for name in ("message_id", subject):
        if not isinstance(body[name], str):
            text = f"{TOP.spelling[name]} must be a string, not {type_name(body[name])}"
            raise InvalidMessage((Violation(pointer=f"/{name}", message=text),))


def _compiled(files: Mapping[str, bytes]) -> ModuleType:
    """Return the module that the artifact has for exactly these schemas, or generate one now."""
    try:
        built = importlib.import_module("handler.compiled")
    except ModuleNotFoundError:
        built = None
    if built is not None and digest(files) == built.DIGEST:
        return built
    made = ModuleType("compiled schemas")
    exec(compile_schemas(files, SCHEMA_NAMES), made.__dict__)  # noqa: S102 -- our own code
    return made
