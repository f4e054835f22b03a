"""Compare the contract, as literal tables, with the product and its documentation."""

import re

import pytest

from destination.paths import ROOT
from destination.segment.contract import (
    CALL_TYPES,
    KEPT_ALONE,
    KEPT_OF_A_BATCH,
    MAX_BATCH_MESSAGES,
    RETRIED_BY_LIBRARIES,
    RETRIED_BY_SEGMENT,
    STATUS_BY_CODE,
    STORE_FAULT_CODES,
)
from handler import spec, split
from handler.errors import Refusal

ANSWERS = (ROOT / "docs" / "reference" / "answers.md").read_text("utf-8")


def refusals(kind=Refusal):
    """Yield the code and the status of every refusal of the handler."""
    for below in kind.__subclasses__():
        if "code" in vars(below):
            yield below.code, below.status
        yield from refusals(below)


def test_handler_has_exactly_the_codes_of_the_contract():
    assert dict(refusals()) == STATUS_BY_CODE


def test_the_documentation_lists_the_codes_of_the_contract():
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", ANSWERS, re.MULTILINE)
    assert {code: int(status) for status, code in rows} == STATUS_BY_CODE


@pytest.mark.parametrize("codes", [KEPT_ALONE, KEPT_OF_A_BATCH, STORE_FAULT_CODES])
def test_sets_of_codes_contain_only_contract_codes(codes):
    assert codes <= STATUS_BY_CODE.keys()


def test_call_types_and_limits_equal_the_handlers():
    assert (CALL_TYPES, MAX_BATCH_MESSAGES) == (spec.CALL_TYPES, split.MAX_BATCH_MESSAGES)


def test_final_and_retried_answers_are_distinguished():
    retried = {status for code, status in STATUS_BY_CODE.items() if status in RETRIED_BY_SEGMENT}
    assert retried == {500, 503}
    assert {423} == RETRIED_BY_SEGMENT - RETRIED_BY_LIBRARIES
