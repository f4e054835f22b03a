"""The parts of a checklist, and the finding for each point."""

from dataclasses import dataclass
from enum import StrEnum

from destination.certification.wire import WireExchange


class Verdict(StrEnum):
    """The verdict on a point."""

    PASS = "pass"  # noqa: S105 -- not a password
    FAIL = "fail"
    WARNING = "warning"
    NOT_CHECKED = "not checked"


class NotCheckable(Exception):
    """A point that can't be judged; the text says why, and what is needed."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """A verdict with its reason, and the exchanges that prove it."""

    verdict: Verdict
    says: str
    evidence: tuple[WireExchange, ...] = ()


def passed(says: str, *evidence: WireExchange) -> CheckResult:
    """Return that a point is met."""
    return CheckResult(verdict=Verdict.PASS, says=says, evidence=evidence)


def failed(says: str, *evidence: WireExchange) -> CheckResult:
    """Return that a point is not met."""
    return CheckResult(verdict=Verdict.FAIL, says=says, evidence=evidence)


def warned(says: str, *evidence: WireExchange) -> CheckResult:
    """Return that a point is met, but may cause problems later."""
    return CheckResult(verdict=Verdict.WARNING, says=says, evidence=evidence)


PAGE = "Building a Direct Destination"
"""https://segment.com/docs/partners/direct-destination/"""
ACCEPTING = f"{PAGE}, Accepting Segment Data"
AUTHORIZATION = f"{PAGE}, Authorization"
HEADERS = f"{PAGE}, Headers"
BODY = f"{PAGE}, Request body"
STATUS = f"{PAGE}, Status code"
RESPONSE = f"{PAGE}, Response body"
SPEC = "Segment Spec, Common Fields"
"""https://segment.com/docs/connections/spec/common/"""
FAQ = "Partner FAQs"
"""https://segment.com/docs/partners/faqs/"""
DELETION = "User Deletion and Suppression"
"""https://segment.com/docs/privacy/user-deletion-and-suppression/"""
HTTP_API = "HTTP API Source"
"""https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/"""
OURS = "this destination's own documentation"
