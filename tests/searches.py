"""How many examples the tests with very many try: all in `make searches`, a part of them in `make test`.

These are the tests by hypothesis, and those with the marker `many_examples`.
"""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import settings

Example = TypeVar("Example")

IS_THOROUGH = os.environ.get("TEST_SEARCHES") == "thorough"
MIN_EXAMPLES = 10
STEP = 4
DEFAULT_EXAMPLES = 100
"""Hypothesis' own default."""


def examples(number: int) -> int:
    """Return how many examples to try of a number that a thorough search tries."""
    return number if IS_THOROUGH else max(MIN_EXAMPLES, number // 10)


def search(number: int, **options: Any) -> settings:
    """Return the settings of a test that tries a number of examples when it is thorough."""
    return settings(max_examples=examples(number), **options)


def some(given: Sequence[Example]) -> Sequence[Example]:
    """Return the examples to try of those that a thorough search tries: the first, and each `STEP`-th after it."""
    return given if IS_THOROUGH else given[::STEP]
