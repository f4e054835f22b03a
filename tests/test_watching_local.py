"""Test the request log of a local server. Other processes can read it while it is written."""

import asyncio
import itertools
import json
import shutil
import textwrap
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import click
import pytest
from request_lines import ACCEPTED, FAILED, REFUSED, access_line, function_line, function_lines

from destination.local.functions import Function, Functions, FunctionTimeoutError
from destination.local.gateway import AccessLog
from destination.watching.lines import Wanted
from destination.watching.local_log import PIECE_BYTES, LocalLog
from destination.watching.log_file import RequestLogFile, older
from destination.watching.request_log import Period

EVERYTHING = Period.everything()
BEGIN = 1_700_000_000_000
"""A time in milliseconds since 1970."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "requests.jsonl"


@pytest.fixture
def begin(path):
    """Return a function that begins the log of a server."""
    with ExitStack() as logs:
        yield lambda **options: logs.enter_context(closing(RequestLogFile(path, **options)))


def ids(lines):
    return [line.message_ids[0] for line in lines]


def test_keys_of_a_customer_have_their_last_use(begin, path):
    log = begin()
    for answered, key, customer, time in (
        (ACCEPTED, "3f1c", "acme", 1000),
        (REFUSED, "3f1c", "acme", 3000),
        (ACCEPTED, "3f1c", "acme", 2000),
        (ACCEPTED, "77aa", "acme", 500),
        (ACCEPTED, "3f1c", "other", 4000),
    ):
        log.write(function_line(answered, key=key, customer_id=customer, time=BEGIN + time))
    log.write(function_line(time=BEGIN + 1500))
    uses = LocalLog(path).key_uses("acme", EVERYTHING)
    assert {key: (use.time.timestamp() * 1000 - BEGIN, use.status) for key, use in uses.items()} == {
        "3f1c": (3000, 400),
        "77aa": (500, 200),
        None: (1500, 200),
    }
    assert LocalLog(path).key_uses("acme", Period.last(timedelta(hours=1), "")) == {}


# Writing


def test_a_line_can_be_read_at_once(begin, path):
    written = begin()
    written.write(function_line(message_id="m"))
    assert ids(LocalLog(path).lines_of("m", EVERYTHING)) == ["m"]


def test_log_is_new_for_each_server(begin, path):
    first = begin(max_bytes=1)
    first.write(function_line(message_id="old"))
    first.write(function_line(message_id="young"))
    begin().write(function_line(message_id="new"))
    assert path.read_text().count("\n") == 1
    assert not older(path).exists()


def test_log_has_at_most_two_files(begin, path):
    log = begin(max_bytes=2000)
    for number in range(50):
        log.write(function_line(message_id=f"m-{number}"))
    assert set(path.parent.iterdir()) == {path, older(path)}
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= 4000
    assert ids(LocalLog(path).lines_of("m-49", EVERYTHING)) == ["m-49"]


def test_both_files_are_read_oldest_first(begin, path):
    log = begin(max_bytes=1500)
    for number in range(2):
        log.write(function_line(message_id=f"m-{number}"))
        log.write(function_line(message_id="m"))
    assert older(path).exists()
    times = [line.time for line in LocalLog(path).lines_of("m", EVERYTHING)]
    assert len(times) == 2
    assert times == sorted(times)


def test_unwritable_log_is_reported_once_and_stops_nothing(begin, path, capsys):
    log = begin(max_bytes=1)
    log.write("first")
    shutil.rmtree(path.parent)
    log.write("second")
    log.write("third")
    told = capsys.readouterr().err
    assert told.count("The request log can't be written: ") == 1
    assert "Traceback" not in told


def test_unknown_facts_are_written_like_api_gateway():
    log = AccessLog('{"id": "$context.requestId", "why": "$context.integrationErrorMessage"}')
    assert log.line({"requestId": "r", "status": 200}) == '{"id": "r", "why": "-"}'


SLOW = """
import time

def answer(event, context):
    print(event["print"])
    time.sleep(event["seconds"])
"""


def test_late_output_of_a_timed_out_function_is_kept(tmp_path):
    (tmp_path / "slow.py").write_text(textwrap.dedent(SLOW))
    late = []

    async def scene():
        functions = Functions(
            Function(name="Slow", handler="slow.answer", timeout_seconds=30), {"PYTHONPATH": str(tmp_path)}
        )
        await functions.start(1)
        with pytest.raises(FunctionTimeoutError):
            await functions.invoke({"print": "late", "seconds": 0.5}, integration_seconds=0.1, late=late.append)
        in_time = await functions.invoke({"print": "in time", "seconds": 0}, late=late.append)
        await functions.stop()
        return in_time

    assert asyncio.run(scene()).log == "in time\n"
    assert [invocation.log for invocation in late] == ["late\n"]


# Reading


def test_search_finds_only_lines_of_the_message(begin, path):
    log = begin()
    for message_id in ("m", "m-1", "-m", "M"):
        log.write(function_line(message_id=message_id))
    log.write(function_line(message_ids=["a", "m"], request_id="r-2"))
    found = LocalLog(path).lines_of("m", EVERYTHING)
    assert [line.request_id for line in found] == ["r-1", "r-2"]


@pytest.mark.parametrize("message_id", ['日本 "#%x', "\\u0041", "\x00\n", "\ud800", "😀" * 60])
def test_message_with_any_id_is_found(begin, path, message_id):
    begin().write(function_line(message_id=message_id))
    assert len(LocalLog(path).lines_of(message_id, EVERYTHING)) == 1


def test_lines_before_the_period_are_left_out(begin, path):
    log = begin()
    now = datetime.now(UTC).timestamp() * 1000
    log.write(function_line(message_id="m", time=int(now - 2 * 3600 * 1000)))
    log.write(function_line(message_id="m", time=int(now)))
    hour = Period.last(timedelta(hours=1), "the last hour")
    assert len(LocalLog(path).lines_of("m", hour)) == 1
    assert LocalLog(path).figures(hour).total.accepted == 1
    assert LocalLog(path).figures(EVERYTHING).total.accepted == 2


def test_the_answer_of_the_api_is_found_by_the_request(begin, path):
    log = begin()
    log.write(function_line(message_id="m", request_id="r-1"))
    log.write(access_line(200, request_id="r-1"))
    log.write(access_line(503, request_id="r-2"))
    local = LocalLog(path)
    answers = local.answers(local.lines_of("m", EVERYTHING))
    assert {request_id: answer.status for request_id, answer in answers.items()} == {"r-1": 200}


def test_figures_add_up_messages_by_customer_and_call_type(begin, path):
    log = begin()
    log.write(function_line(message_ids=["a", "b", "c"]))
    log.write(function_line(REFUSED, message_id="d"))
    log.write(function_line(REFUSED, message_id="e"))
    log.write(function_line(FAILED, messages=20, call_type=None))
    log.write(function_line(ACCEPTED, customer_id="b-corp", call_type="page"))
    for status, integration in ((200, 200), (200, 200), (404, "-"), ("-", 200)):
        log.write(access_line(status, integrationStatus=integration))
    figures = LocalLog(path).figures(EVERYTHING)
    track = figures.tallies[("acme", "track")]
    assert (track.accepted, track.duplicates, track.refused, track.failed) == (3, 0, {"invalid_message": 2}, {})
    assert figures.tallies[("acme", None)].failed == {"event_store_unavailable": 20}
    assert figures.senders == {"acme", "b-corp"}
    assert figures.total.accepted == 4
    route = "POST /segment"
    assert figures.answers == {(route, 200, True): 2, (route, 404, False): 1, (route, None, True): 1}
    assert figures.first == datetime(2026, 3, 12, 9, 30, tzinfo=UTC)


def test_incomplete_line_is_read_when_complete(path):
    line = function_line(message_id="m")
    path.write_text(function_line(message_id="before") + "\n" + line[:40])
    following = LocalLog(path).follow(Wanted(), 10)
    assert ids([next(following)]) == ["before"]
    assert next(following) is None
    with path.open("a") as file:
        file.write(line[40:] + "\n")
    assert ids([next(following)]) == ["m"]
    assert len(LocalLog(path).lines_of("m", EVERYTHING)) == 1


def test_follow_continues_through_new_files_and_servers(begin, path):
    log = begin(max_bytes=1500)
    for number in range(3):
        log.write(function_line(message_id=f"m-{number}"))
        log.write(function_line(REFUSED, message_id="unwanted"))
    following = LocalLog(path).follow(Wanted(outcomes=frozenset({"accepted"})), 2)
    assert ids(itertools.islice(following, 2)) == ["m-1", "m-2"]
    for number in range(3, 6):
        log.write(function_line(message_id=f"m-{number}"))
        assert ids([next(line for line in following if line is not None)]) == [f"m-{number}"]
    begin().write(function_line(message_id="new"))
    assert next(line for line in following if line is not None).message_ids == ("new",)


def test_follow_starts_now_by_default(begin, path):
    log = begin()
    log.write(function_line(message_id="before"))
    following = LocalLog(path).follow(Wanted(), 0)
    assert next(following) is None
    log.write(function_line(message_id="after"))
    assert ids([next(following)]) == ["after"]


@pytest.mark.parametrize("last", [0, 1])
def test_line_incomplete_at_the_start_is_live(path, last):
    line = function_line(message_id="m")
    path.write_text(function_line(message_id="before") + "\n" + line[:40])
    following = LocalLog(path).follow(Wanted(), last)
    assert [line.message_ids for line in iter(following.__next__, None)] == [("before",)][:last]
    with path.open("a") as file:
        file.write(line[40:] + "\n")
    assert ids([next(following)]) == ["m"]


@pytest.mark.parametrize("message_id", ["m", "m" * 2 * PIECE_BYTES])
def test_line_of_any_length_may_be_incomplete_at_the_start(path, message_id):
    line = json.dumps({**json.loads(function_line()), "message_id": message_id})
    path.write_text(line + "\n" + line[:-9])
    following = LocalLog(path).follow(Wanted(), 0)
    assert next(following) is None
    with path.open("a") as file:
        file.write(line[-9:] + "\n")
    assert ids([next(following)]) == [message_id]


def test_lines_written_while_old_ones_are_read_are_live(path):
    class Wants(Wanted):
        """Match every line. The server writes at the same time."""

        def takes(self, line):
            if line.message_ids[0] == "before":
                with path.open("a") as file:
                    file.writelines(function_line(message_id=f"live-{number}") + "\n" for number in range(3))
            return True

    path.write_text(function_line(message_id="before") + "\n")
    following = LocalLog(path).follow(Wants(), 1)
    assert ids([next(following)]) == ["before"]
    assert next(following) is None
    assert ids(itertools.islice(following, 3)) == ["live-0", "live-1", "live-2"]


def test_emptied_file_is_followed_from_its_beginning(path):
    path.write_text("".join(function_line(message_id=f"m-{number}") + "\n" for number in range(3)))
    following = LocalLog(path).follow(Wanted(), 0)
    assert next(following) is None
    path.write_text("")
    assert next(following) is None
    path.write_text(function_line(message_id="new") + "\n")
    assert ids([next(following)]) == ["new"]


def test_emptied_and_refilled_file_is_followed_from_its_beginning(path):
    path.write_text("".join(function_line(message_id=f"m-{number}") + "\n" for number in range(3)))
    following = LocalLog(path).follow(Wanted(), 0)
    assert next(following) is None
    path.write_text(function_line(message_id="new") + "\n")
    assert ids([next(line for line in following if line is not None)]) == ["new"]


def test_all_periods_are_counted_in_one_pass(begin, path):
    log = begin()
    now = datetime.now(UTC).timestamp() * 1000
    log.write(function_line(time=int(now - 2 * 3600 * 1000)))
    log.write(function_line(time=int(now)))
    local = LocalLog(path)
    assert local.figures(Period.last(timedelta(hours=1), "the last hour")).total.accepted == 1
    path.unlink()
    figures = local.figures(EVERYTHING)
    assert figures.total.accepted == 2
    figures.keep("other")
    assert local.figures(EVERYTHING).total.accepted == 2


def test_removed_file_is_reported(path):
    for ask in (
        lambda log: log.lines_of("m", EVERYTHING),
        lambda log: log.figures(EVERYTHING),
        lambda log: next(log.follow(Wanted(), 0)),
    ):
        with pytest.raises(click.ClickException, match=r"can't be read: .*A new one is written when the server starts"):
            ask(LocalLog(path))


def test_figures_of_a_customer_exclude_other_customers(begin, path):
    log = begin()
    log.write(function_line(message_id="a"))
    log.write(function_line(ACCEPTED, customer_id="b-corp", call_type="page"))
    log.write(access_line(200))
    figures = LocalLog(path).figures(EVERYTHING)
    figures.keep("acme")
    assert ({customer for customer, _ in figures.tallies}, figures.answers) == ({"acme"}, {})
    assert figures.contradictions == []


# Contradictions between the figures


def contradictions(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return LocalLog(path).figures(EVERYTHING).contradictions


def refused_and_answered(count):
    return [line for number in range(count) for line in (function_line(REFUSED), access_line(400))]


def test_consistent_figures_have_no_contradictions(path):
    batch = function_lines(ACCEPTED, message_ids=["a"] * 7, route="/v1/batch")
    health = access_line(200, routeKey="GET /health")
    wrong_route = access_line(404, routeKey="-", integrationStatus="-")
    lines = [*refused_and_answered(9), *batch, access_line(200), *[health] * 9, *[wrong_route] * 9]
    assert contradictions(path, *lines) == []


def test_answers_without_a_line_of_the_function_are_a_contradiction(path):
    [sentence] = contradictions(path, *[access_line(401) for _ in range(49)])
    assert sentence.startswith("The function's lines have 0 requests that it answered 4xx, and the API's have 49. ")


def test_lines_without_an_answer_of_the_api_are_a_contradiction(path):
    late = [line for _ in range(9) for line in (function_line(), access_line(503, integrationStatus="-"))]
    [sentence] = contradictions(path, *late)
    assert sentence.startswith("The function's lines have 9 requests that it answered 2xx, and the API's have 0. ")
    assert "API Gateway gave another answer, such as after a time-out" in sentence


def test_a_refusal_that_is_counted_as_accepted_is_a_contradiction(path):
    wrong = [line for _ in range(3) for line in (function_line(replace(REFUSED, metric="Accepted")), access_line(400))]
    [sentence] = contradictions(path, *wrong)
    assert sentence.startswith("3 messages are counted as accepted or duplicates, and were answered an error")


def test_a_few_missing_lines_are_not_a_contradiction(path):
    assert contradictions(path, *refused_and_answered(20), access_line(400), access_line(400)) == []
