"""Validation by jsonschema, whose validators are built once.

https://python-jsonschema.readthedocs.io/en/stable/referencing/
"""

import json
import os
from pathlib import Path

from jsonschema import Draft7Validator
from jsonschema import ValidationError as InvalidMessage
from referencing import Registry
from referencing.jsonschema import DRAFT7

__all__ = ["InvalidMessage", "check"]

SCHEMAS = {path.name: json.loads(path.read_text()) for path in Path(os.environ["SCHEMAS"]).glob("*.json")}
REGISTRY = Registry().with_resources((name, DRAFT7.create_resource(schema)) for name, schema in SCHEMAS.items())
VALIDATORS = {name: Draft7Validator(schema, registry=REGISTRY) for name, schema in SCHEMAS.items()}


def check(message):
    """Raise `InvalidMessage` for what the schema of its call type refuses."""
    VALIDATORS[f"{message.get('type')}.json"].validate(message)
