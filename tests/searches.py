"""How many examples the tests by hypothesis try: all in `make searches`, a tenth of them in `make test`."""

import os
from typing import Any

from hypothesis import settings

IS_THOROUGH = os.environ.get("TEST_SEARCHES") == "thorough"
MIN_EXAMPLES = 10
DEFAULT_EXAMPLES = 100
"""Hypothesis' own default."""


def examples(number: int) -> int:
    """Return how many examples to try of a number that a thorough search tries."""
    return number if IS_THOROUGH else max(MIN_EXAMPLES, number // 10)


def search(number: int, **options: Any) -> settings:
    """Return the settings of a test that tries a number of examples when it is thorough."""
    return settings(max_examples=examples(number), **options)
