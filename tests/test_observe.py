import re

import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from handler.canonicalise import MAX_BATCH_MESSAGES
from handler.observe import MAX_LOGGED_CHARS, MAX_LOGGED_TEXT_CHARS, NAMESPACE, Answered, RequestLine

ACCEPTED = Answered(metric="Accepted", status=200)


@pytest.mark.parametrize(
    ("metric", "status", "dimensions"),
    [
        ("Accepted", 200, {"CallType": "track"}),
        ("Duplicate", 200, {"CallType": "page"}),
        ("Refused", 400, {"CallType": "track", "Code": "invalid_message"}),
        ("Refused", 501, {"CallType": "other", "Code": "unsupported_call_type"}),
        ("Refused", 401, {"Code": "unknown_key"}),
        ("Failed", 503, {"Code": "key_store_unavailable"}),
    ],
)
def test_a_request_leaves_one_line_that_counts_it_once(lines, metric, status, dimensions):
    line = RequestLine("r-1", service="stack", version="7")
    line.note(customer_id="acme", **({"call_type": dimensions["CallType"]} if "CallType" in dimensions else {}))
    line.write(Answered(metric=metric, status=status, code=dimensions.get("Code"), text="what the caller reads"))
    [written] = lines()
    assert (written["request_id"], written["customer_id"]) == ("r-1", "acme")
    told = [written[name] for name in ("outcome", "status", "text")]
    assert told == [metric.lower(), status, "what the caller reads"]
    assert {"CallType": written.get("call_type"), "Code": written.get("code")}.items() >= dimensions.items()
    [directive] = written["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == NAMESPACE
    assert [definition["Name"] for definition in directive["Metrics"]] == [metric]
    assert written[metric] == [1.0]
    assert directive["Dimensions"] == [["service"], *(["service", name] for name in dimensions)]
    counted = {"service": "stack", **dimensions}
    assert {name: written[name] for name in counted} == counted


@pytest.mark.parametrize("call_type", ["track", None])
@pytest.mark.parametrize("code", ["invalid_message", None])
def test_a_line_counts_as_powertools_would(lines, call_type, code):
    line = RequestLine("r-1", service="stack", version="7")
    line.note(messages=3)
    line.write_messages(Answered(metric="Refused", status=400, code=code), call_type, ["m-1", "m-2", "m-3"])
    metrics = EphemeralMetrics(namespace=NAMESPACE)
    metrics.add_dimension(name="service", value="stack")
    for dimension, value in (("CallType", call_type), ("Code", code)):
        if value is not None:
            metrics.add_dimensions(**{"service": "stack", dimension: value})
    metrics.add_metric(name="Refused", unit=MetricUnit.Count, value=3)
    [written] = lines()
    expected = metrics.serialize_metric_set()
    expected["_aws"]["Timestamp"] = written["_aws"]["Timestamp"]
    assert written.items() >= expected.items()


def test_line_has_the_milliseconds_of_each_step_and_the_total(lines):
    line = RequestLine("r-1", service="stack", version="7")
    line.begin("decode")
    line.begin("write")
    line.write(Answered(metric="Failed", status=500, code="internal_error"))
    [written] = lines()
    assert written["milliseconds"].keys() == {"decode", "write", "total"}
    assert all(milliseconds >= 0 for milliseconds in written["milliseconds"].values())


def test_line_has_nothing_from_the_previous_request(lines):
    first = RequestLine("r-1", service="stack", version="7")
    first.note(customer_id="acme", call_type="track")
    first.write(Answered(metric="Refused", status=400, code="invalid_json"))
    RequestLine("r-2", service="stack", version="7").write(ACCEPTED)
    written = lines()[1]
    assert written["request_id"] == "r-2"
    assert not {"customer_id", "call_type", "CallType", "Code", "Refused"} & written.keys()
    assert written["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"]]


def test_line_has_the_version_and_counts_one_request(lines):
    RequestLine("r-1", service="stack", version="7").write(ACCEPTED)
    [written] = lines()
    assert (written["version"], written["requests"]) == ("7", 1)


@pytest.mark.parametrize("groups", [[1], [2500], [150, 7, 1], [1] * 2500], ids=lambda groups: f"{len(groups)} groups")
def test_the_lines_of_a_batch_add_up_to_one_request(lines, groups):
    line = RequestLine("r-1", service="stack", version="7")
    line.note(messages=sum(groups))
    for size in groups:
        line.write_messages(ACCEPTED, "track", ["m"] * size)
    assert sum(written["requests"] for written in lines()) == pytest.approx(1, abs=0.001)


def test_a_share_of_a_request_has_no_exponent(capsys):
    line = RequestLine("r-1", service="stack", version="7")
    line.note(messages=MAX_BATCH_MESSAGES)
    line.write_messages(ACCEPTED, "track", ["m"])
    [share] = re.findall(r'"requests": ([^,]+),', capsys.readouterr().out)
    assert re.fullmatch(r"0\.\d+", share)


@pytest.mark.parametrize("text", ["a\nb\r\n{}", "\u2028\u2029\x85\x00", "\ud800", '"}\n{"status": 200', "é😀"])
def test_a_callers_text_cannot_break_the_line(lines, text):
    line = RequestLine("r-1", service="stack", version="7")
    line.note(message_id=text)
    line.write(ACCEPTED)
    [written] = lines()
    assert written["message_id"] == text


def test_a_callers_text_is_cut_short(lines):
    line = RequestLine("r-1", service="stack", version="7")
    line.note(message_id="m" * 1_000_000)
    line.write(ACCEPTED)
    [written] = lines()
    assert written["message_id"] == "m" * MAX_LOGGED_CHARS


def test_a_text_that_names_a_callers_field_is_cut_short(lines):
    RequestLine("r-1", service="stack", version="7").write(
        Answered(metric="Refused", status=400, code="invalid_message", text="t" * 9999)
    )
    [written] = lines()
    assert written["text"] == "t" * MAX_LOGGED_TEXT_CHARS


def test_the_same_answer_of_two_deployments_counts_for_each(lines):
    for service in ("acme-eu", "acme-us"):
        RequestLine("r-1", service=service, version="7").write(ACCEPTED)
    assert [line["service"] for line in lines()] == ["acme-eu", "acme-us"]
