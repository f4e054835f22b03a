"""Validation as the documentation of Powertools shows it: the schema, a dictionary, is handed over with each message.

https://docs.aws.amazon.com/powertools/python/latest/utilities/validation/
"""

import json
import os
from pathlib import Path

from aws_lambda_powertools.utilities.validation import SchemaValidationError as InvalidMessage
from aws_lambda_powertools.utilities.validation import validate

__all__ = ["InvalidMessage", "check"]

SCHEMAS = {path.name: json.loads(path.read_text()) for path in Path(os.environ["SCHEMAS"]).glob("*.json")}


def check(message):
    """Raise `InvalidMessage` for what the schema of its call type refuses; references have no scheme, just a name."""
    validate(event=message, schema=SCHEMAS[f"{message.get('type')}.json"], handlers={"": SCHEMAS.__getitem__})
