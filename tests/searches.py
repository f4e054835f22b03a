"""The number of examples of the tests with very many: all in `make searches`, a part in `make test`.

These are the tests with hypothesis, and the tests with the marker `many_examples`.
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
    """Return how many examples to try now, from the number of a thorough search."""
    return number if IS_THOROUGH else max(MIN_EXAMPLES, number // 10)


def search(number: int, **options: Any) -> settings:
    """Return the settings of a test with this number of examples in a thorough search."""
    return settings(max_examples=examples(number), **options)


def some(given: Sequence[Example]) -> Sequence[Example]:
    """Return the examples to try now from a thorough list: the first, and each `STEP`-th after it."""
    return given if IS_THOROUGH else given[::STEP]
