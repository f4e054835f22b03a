import pytest

from handler.observe import MAX_LOGGED_CHARS, NAMESPACE, SERVICE, RequestLine


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
    line = RequestLine("r-1")
    line.note(customer_id="acme", **({"call_type": dimensions["CallType"]} if "CallType" in dimensions else {}))
    line.write(metric, status, dimensions.get("Code"))
    [written] = lines()
    assert (written["request_id"], written["customer_id"]) == ("r-1", "acme")
    assert (written["outcome"], written["status"]) == (metric.lower(), status)
    assert {"CallType": written.get("call_type"), "Code": written.get("code")}.items() >= dimensions.items()
    [directive] = written["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == NAMESPACE
    assert [definition["Name"] for definition in directive["Metrics"]] == [metric]
    assert written[metric] == [1.0]
    [names] = directive["Dimensions"]
    assert {name: written[name] for name in names} == {"service": SERVICE, **dimensions}


def test_a_line_tells_the_milliseconds_of_each_step_and_of_all(lines):
    line = RequestLine("r-1")
    line.begin("decode")
    line.begin("write")
    line.write("Failed", 500, "internal_error")
    [written] = lines()
    assert written["milliseconds"].keys() == {"decode", "write", "total"}
    assert all(milliseconds >= 0 for milliseconds in written["milliseconds"].values())


def test_nothing_of_a_request_is_left_for_the_next_one(lines):
    first = RequestLine("r-1")
    first.note(customer_id="acme", call_type="track")
    first.write("Refused", 400, "invalid_json")
    RequestLine("r-2").write("Accepted", 200)
    written = lines()[1]
    assert written["request_id"] == "r-2"
    assert not {"customer_id", "call_type", "CallType", "Code", "Refused"} & written.keys()
    assert written["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"]]


@pytest.mark.parametrize("text", ["a\nb\r\n{}", "\u2028\u2029\x85\x00", "\ud800", '"}\n{"status": 200', "é😀"])
def test_a_callers_text_cannot_break_the_line(lines, text):
    line = RequestLine("r-1")
    line.note(message_id=text)
    line.write("Accepted", 200)
    [written] = lines()
    assert written["message_id"] == text


def test_a_callers_text_is_cut_short(lines):
    line = RequestLine("r-1")
    line.note(message_id="m" * 1_000_000)
    line.write("Accepted", 200)
    [written] = lines()
    assert written["message_id"] == "m" * MAX_LOGGED_CHARS
