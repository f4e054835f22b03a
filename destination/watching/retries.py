"""Describe what the sender of a message did after an answer; `docs/reference/answers.md` has the rules."""

from http import HTTPStatus

from destination.segment.contract import RETRIED_BY_LIBRARIES, RETRIED_BY_SEGMENT
from destination.watching.lines import AccessLine, FunctionLine
from handler.routes import SEGMENT

SENDERS = {
    SEGMENT.path: ("Segment", "for up to four hours", 'Segment shows "Delivered".'),
    "/v1/import": ("The import", "until it gives up", "The import does not send it again."),
}
LIBRARY = ("The library", "as often as it is set to", "The library does not send it again.")
"""Route -> its sender, how long the sender retries, and the sentence about a success. All other senders are
libraries."""


def describe_retry(line: FunctionLine, answer: AccessLine | None) -> str:
    """Return sentences about one delivery, by the API's answer if it is known, otherwise by the function's."""
    status = line.status if answer is None or answer.status is None else answer.status
    is_segment = line.route == SEGMENT.path
    sender, how_long, done = SENDERS.get(line.route, LIBRARY)
    was_taken = line.outcome in ("accepted", "duplicate")
    if status in (RETRIED_BY_SEGMENT if is_segment else RETRIED_BY_LIBRARIES):
        taken = ", although the message was stored: the retry is a duplicate" if was_taken else ""
        return f"{sender} sends it again, {how_long}{taken}."
    if status < HTTPStatus.MULTIPLE_CHOICES:
        if was_taken:
            return done
        return f"{sender} sees the refusal in a {status}, and does not send it again.{_kept(line)}"
    return f"Final: {sender} does not send it again.{_kept(line)}"


def _kept(line: FunctionLine) -> str:
    if line.kept is None:
        return ""
    return " It was kept among the rejects." if line.kept else " It was not kept among the rejects."
