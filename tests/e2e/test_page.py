"""Test the debugger page in a real browser. The tests are skipped on a machine without Chromium."""

import json
import re
import shutil
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="make .venv/.browser installs it")
from axe_playwright_python.sync_playwright import Axe
from debugged_stack import debugged_stack
from local_server import MAX_WAIT_SECONDS, serving, start, wait_until
from playwright.sync_api import expect, sync_playwright
from request_lines import REFUSED, function_line

from destination.deployment import demo
from destination.paths import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
VIEWS = ("live", "tester", "keys", "messages", "rejects")
CLASSES = dict.fromkeys(("keys", "messages", "rejects"), "plain:not([hidden])")
TRACK = {"type": "track", "userId": "seen", "event": "Lamp Lit"}
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
OK = 200
HOSTILE = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>\'"&amp;</bdi>'

expect.set_options(timeout=MAX_WAIT_SECONDS * 1000)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return a local server with its own copy of the schemas, which a test may edit."""
    checkout = tmp_path_factory.mktemp("page")
    shutil.copytree(ROOT / "schemas", checkout / "schemas")
    with serving(checkout, "--processes", "2") as server:
        yield server


@contextmanager
def opened(browser, url, *, viewport=DESKTOP, scheme="light", expects_errors=False):
    """Open the page. At the end, assert that it logged no error and sent no request to another host."""
    context = browser.new_context(
        viewport=viewport, color_scheme=scheme, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()
    complaints, strangers = [], []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith((url, "data:")) else strangers.append(request.url)
    )
    page.goto(url + "/")
    expect(page.get_by_role("navigation")).to_contain_text("Keys")
    yield page
    context.close()
    assert strangers == []
    if not expects_errors:
        assert complaints == []


@pytest.fixture
def page(browser, server):
    with opened(browser, server.url) as page:
        yield page


def fresh(**fields):
    return {**TRACK, "messageId": str(uuid.uuid4()), "timestamp": "2026-03-12T09:30:00Z", **fields}


def visit(page, view):
    page.evaluate("view => { location.hash = view }", view)
    expect(page.locator(f"main > section.{CLASSES.get(view.partition('?')[0], view)}")).to_be_visible()


def here(page):
    """Return the visible view. The other views are in the document, too."""
    return page.locator("main > section:not([hidden])")


def row(page, text):
    """Return the list row that contains a text."""
    return (
        page.get_by_role("list", name="Requests, the last answered first")
        .get_by_role("listitem")
        .filter(has_text=text)
        .first
    )


def number(page, name):
    """Return one of the numbers at the top."""
    return int(page.locator(f".tally.of-{name} dd").inner_text().replace(",", ""))


WIDTHS = (390, 768, 1024, 1400)
LONG_WORD = "An_event_name_without_any_space_" * 6
LONGEST_ID = "m" * 100
MISFITS = """() => {
  const seen = (it) => it.checkVisibility({visibilityProperty: true}) && !it.closest('.unseen, svg, select, input');
  const clips = (it) => getComputedStyle(it).overflowX !== 'visible';
  const isClipped = ({parentElement: up}) => up !== document.body && (clips(up) || isClipped(up));
  const isCut = (it) => ['hidden', 'clip'].includes(getComputedStyle(it).overflowX) && it.clientWidth > 1
    && it.scrollWidth > it.clientWidth + 1 && getComputedStyle(it).textOverflow !== 'ellipsis';
  const isOut = (it) => { const {left, right, width} = it.getBoundingClientRect();
    return width > 0 && (left < -0.5 || right > innerWidth + 0.5) && !isClipped(it) };
  return [...document.body.querySelectorAll('*')].filter(seen).filter((it) => isCut(it) || isOut(it))
    .map((it) => `${it.tagName}.${it.className} ${it.textContent.slice(0, 40)}`);
}"""
"""Elements that are partly outside the window, or that cut their content without an ellipsis."""


FOUR_FRAMES = """async () => {
  for (let frame = 0; frame < 4; frame++) await new Promise((drawn) => requestAnimationFrame(drawn));
}"""
"""After four frames the layout is complete: the page measures its parts in one frame, and draws its lists in the next.
"""


@contextmanager
def sized(page, width):
    """Give the window another width for a while."""
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate(FOUR_FRAMES)
    yield
    page.set_viewport_size(DESKTOP)


def make_key(server, customer, **fields):
    """Create an API key with the page's own route, and return it with its record."""
    facts = {"label": "", "expires": "", "scopes": [], **fields}
    return server.request("POST", "/_local/keys", json={"customer_id": customer, **facts}).body


def cut_texts(elements):
    """Return the texts of the elements that show an ellipsis."""
    return elements.evaluate_all("all => all.filter(it => it.scrollWidth > it.clientWidth).map(it => it.textContent)")


def lines_of(element):
    """Return how many lines the text of an element takes."""
    return element.evaluate("it => it.clientHeight / parseFloat(getComputedStyle(it).lineHeight)")


# Live


def test_empty_page_explains_itself_and_sends_a_test_message(browser, tmp_path):
    with serving(tmp_path, "--processes", "1") as server, opened(browser, server.url) as page:
        expect(page.get_by_role("main")).to_contain_text(f"{server.url}/segment")
        expect(page.get_by_role("main")).to_contain_text(demo.GOOD_KEY)
        page.get_by_role("button", name="Send a test message").click()
        expect(page.get_by_role("complementary")).to_contain_text("Stored at ")
        expect(row(page, "identify")).to_be_visible()


def test_one_button_sends_sample_traffic_of_a_shop(browser, tmp_path):
    with serving(tmp_path, "--processes", "1") as server, opened(browser, server.url, expects_errors=True) as page:
        page.get_by_role("button", name="Send sample traffic").click()
        expect(page.get_by_role("button", name="Sending")).to_be_disabled()
        refused = server.request("POST", "/_local/sample-traffic", json={})
        assert (refused.status, refused.body["message"][:28]) == (400, "Sample traffic is being sent")
        expect(page.get_by_role("button", name="Send sample traffic")).to_be_enabled()
        wait_until(lambda: number(page, "stored") > 50)
        assert (number(page, "duplicate"), number(page, "refused"), number(page, "failed")) == (1, 1, 0)
        for text in ("Home", "Product Viewed", "Order Completed", "previous id", "company-77", "must not be empty"):
            page.get_by_label("Filter by text").fill(text)
            expect(row(page, text)).to_be_visible()


def test_request_appears_and_opens_with_all_details(page, server):
    user = str(uuid.uuid4())
    server.post(fresh(userId=user, context=None))
    row(page, user).click()
    details = page.get_by_role("complementary")
    for text in (
        "Lamp Lit",
        "null counts as absent",
        "was userId",
        "…good",
        "Stored at ",
        "canonicalise",
        f"demo#user#{user}",
    ):
        expect(details).to_contain_text(text)
    page.keyboard.press("Escape")
    expect(details).to_be_hidden()


def test_refused_request_shows_each_error_at_its_place(page, server):
    user = str(uuid.uuid4())
    server.post(fresh(userId=user, properties="none"))
    row(page, user).click()
    wrong = page.get_by_role("complementary").locator(".line.violation").first
    expect(wrong).to_contain_text('"properties": "none"')
    expect(wrong).to_contain_text("properties must be an object, not a string")


def test_batch_is_one_row_with_separate_messages(page, server):
    good, bad = fresh(userId=str(uuid.uuid4())), fresh(event="")
    body = json.dumps({"writeKey": demo.GOOD_KEY, "batch": [good, bad]}).encode()
    server.request("POST", "/v1/batch", headers={"Content-Type": "application/json"}, body=body)
    found = row(page, "batch of 2")
    expect(found).to_contain_text("1 stored")
    expect(found).to_contain_text("1 refused")
    found.click()
    details = page.get_by_role("complementary")
    expect(details.locator(".line.violation").first).to_contain_text("event must not be empty")
    details.get_by_role("button").filter(has_text=good["messageId"]).click()
    expect(details).to_contain_text(f"demo#user#{good['userId']}")


def test_content_never_widens_the_details_of_a_request(page, server):
    user = f"{uuid.uuid4()}{'u' * 90}"
    server.post(fresh(userId=user, event=LONG_WORD, messageId=LONGEST_ID, properties={LONG_WORD: LONG_WORD * 9}))
    server.post(fresh(userId=user, event={LONG_WORD: LONG_WORD}, messageId=[LONG_WORD], type="track"))
    server.post(fresh(userId=user, type=LONG_WORD))
    batch = [fresh(), fresh(event="")] * 50
    body = json.dumps({"writeKey": demo.GOOD_KEY, "batch": batch}).encode()
    server.request("POST", "/v1/batch", headers={"Content-Type": "application/json"}, body=body)
    rows = page.get_by_role("list", name="Requests").get_by_role("listitem").filter(has_text=user[:36])
    expect(rows).to_have_count(3)
    for index in range(3):
        rows.nth(index).click()
        expect(page.get_by_role("complementary")).to_contain_text("Request as received")
        for width in (*WIDTHS, DESKTOP["width"]):
            with sized(page, width):
                assert page.evaluate(MISFITS) == []
                if width >= 900:
                    assert cut_texts(page.locator(".tally dt")) == []
                    assert cut_texts(page.locator(".row .event").filter(has_text="batch of")) == []
                box = page.get_by_role("button", name="Close the details").bounding_box()
                assert box["x"] + box["width"] <= width
        page.get_by_role("button", name="Close the details").click()


def test_charts_and_numbers_are_empty_before_the_first_numbers_arrive(browser, server):
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.route("**/_local/live", lambda _: None)  # never answered
    page.goto(server.url + "/")
    expect(page.locator(".types .share")).to_have_count(8)
    assert page.locator(".types .track i").evaluate_all("bars => bars.map(bar => bar.offsetWidth)") == [0] * 8
    assert set(page.locator(".types b, .tally dd").all_inner_texts()) == {"\N{EN DASH}"}
    context.close()


def test_rows_are_filtered_by_outcome_call_type_customer_and_text(page, server):
    mark = str(uuid.uuid4())
    server.post(fresh(userId=f"a-{mark}"))
    server.post(fresh(userId=f"b-{mark}", type="page", name="Home"))
    server.post(fresh(userId=f"c-{mark}", event=""))
    names = ("a", "b", "c")

    def shown():
        return [name for name in names if row(page, f"{name}-{mark}").count()]

    page.get_by_label("Filter by text").fill(mark)
    wait_until(lambda: shown() == ["a", "b", "c"])
    page.get_by_role("button", name=re.compile("^refused")).click()
    wait_until(lambda: shown() == ["c"])
    page.get_by_role("button", name=re.compile("^refused")).click()
    here(page).get_by_label("Call type", exact=True).select_option("page")
    wait_until(lambda: shown() == ["b"])
    here(page).get_by_label("Call type", exact=True).select_option("")
    here(page).get_by_label("Customer", exact=True).select_option("demo")
    wait_until(lambda: shown() == ["a", "b", "c"])
    page.get_by_label("Filter by text").fill("no row has this")
    expect(page.get_by_role("main")).to_contain_text("No request matches these filters")


def test_words_of_the_filter_may_match_different_columns(page, server):
    mark = uuid.uuid4().hex
    server.post(fresh(userId=f"a-{mark}", event="Order Completed"))
    server.post(fresh(userId=f"b-{mark}", event="Completed Order"))
    found = page.locator(".row .user")
    for words, users in (
        (f"demo order COMPLETED {mark}", ["b", "a"]),
        (f'"order completed" {mark}', ["a"]),
        (f"demo stored track 200 /segment a-{mark}", ["a"]),
        (f"demo refused {mark}", []),
        (f'{mark} "order comp', ["a"]),
    ):
        page.get_by_label("Filter by text").fill(words)
        expect(found).to_have_text([f"{user}-{mark}" for user in users])
    expect(page.get_by_role("main")).to_contain_text("1 of ")
    expect(page.get_by_role("main")).to_contain_text("must occur in one of: answered, status, outcome, call type")


def test_long_ids_stay_distinguishable_and_outcomes_are_not_cut(page, server):
    mark = uuid.uuid4().hex
    customers = [f"simulated-{mark}-{number}" for number in range(2)]
    for customer in customers:
        server.post(fresh(userId=f"{mark}-long-id-of-{customer}"), key=make_key(server, customer)["api_key"])
    body = json.dumps({"writeKey": demo.GOOD_KEY, "batch": [fresh(userId=mark), fresh(userId=mark, event="")]}).encode()
    server.request("POST", "/v1/batch", headers={"Content-Type": "application/json"}, body=body)
    expect(row(page, "part refused")).to_be_visible()
    for width in WIDTHS:
        with sized(page, width):
            assert cut_texts(page.locator(".row .outcome")) == []
            for name in ("customer", "user"):
                ends = page.locator(f".row .{name} > :last-child:not(:empty):visible").filter(
                    has_text=re.compile("-[01]$")
                )
                for end in ends.all()[:2]:
                    box, cell = end.bounding_box(), end.locator("..").bounding_box()
                    assert box["width"] > 20
                    assert box["x"] + box["width"] <= cell["x"] + cell["width"] + 1
    with sized(page, 1400):
        for customer in customers:
            assert row(page, customer).locator(".customer > :first-child").evaluate("it => it.offsetWidth") > 60


def test_rows_are_sorted_by_their_times(page, server):
    mark = uuid.uuid4().hex
    messages = [fresh(userId=mark, properties={"text": "x" * size}) for size in (1, 400_000, 1, 300_000, 1) * 4]
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(server.post, messages)]
    page.get_by_label("Filter by text").fill(mark)
    expect(page.get_by_text(f"{len(messages)} of ")).to_be_visible()
    times = page.locator(".row .time").all_inner_texts()
    assert len(times) > 10
    assert times == sorted(times, reverse=True)


def test_requests_are_counted_with_the_messages_in_them(page, server):
    expect(page.locator(".tally.of-requests")).to_have_text(re.compile("[0-9]"))
    requests, messages = number(page, "requests"), number(page, "messages")
    body = json.dumps({"writeKey": demo.GOOD_KEY, "batch": [fresh() for _ in range(3)]}).encode()
    server.request("POST", "/v1/batch", headers={"Content-Type": "application/json"}, body=body)
    wait_until(lambda: number(page, "requests") == requests + 1)
    assert number(page, "messages") == messages + 3
    assert number(page, "messages") == sum(number(page, name) for name in ("stored", "duplicate", "refused", "failed"))
    expect(page.locator(".tally.of-messages dt")).to_have_text("Messages")


def test_id_that_is_not_a_string_is_shown_as_json(page, server):
    user = str(uuid.uuid4())
    server.post(fresh(messageId=["no", user], userId={"is": user}))
    row(page, user).click()
    details = page.get_by_role("complementary")
    expect(details.locator(".facts")).to_contain_text(f'["no", "{user}"]')
    expect(details.locator(".facts")).to_contain_text(f'{{"is": "{user}"}}')
    expect(details.get_by_role("link", name=user)).to_have_count(0)


def test_paused_list_does_not_move_and_counts_new_requests(page, server):
    before, user = str(uuid.uuid4()), str(uuid.uuid4())
    server.post(fresh(userId=before))
    expect(row(page, before)).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    for _ in range(3):
        server.post(fresh(userId=user))
    resume = page.get_by_role("button", name="Resume (3 new)")
    expect(resume).to_be_visible()
    assert row(page, user).count() == 0
    resume.click()
    expect(row(page, user)).to_be_visible()


def test_clear_resets_the_list_and_the_numbers(page, server):
    user = str(uuid.uuid4())
    server.post(fresh(userId=user))
    expect(row(page, user)).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    wait_until(lambda: number(page, "requests") == 0)
    expect(page.get_by_role("listitem")).to_have_count(0)
    server.post(fresh())
    wait_until(lambda: (number(page, "requests"), number(page, "stored")) == (1, 1))


def test_keyboard_moves_through_the_rows(page, server):
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    for user in (first, second):
        server.post(fresh(userId=user))
        expect(row(page, user)).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_label("Filter by text")).to_be_focused()
    row(page, second).get_by_role("button").focus()
    page.keyboard.press("ArrowDown")
    expect(row(page, first).get_by_role("button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary")).to_contain_text(first)
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("complementary")).to_contain_text(second)
    expect(row(page, second).get_by_role("button")).to_have_attribute("aria-current", "true")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("complementary")).to_contain_text(first)
    page.keyboard.press("Escape")
    expect(row(page, first).get_by_role("button")).to_be_focused()
    row(page, second).click()
    expect(page.get_by_role("complementary")).to_contain_text(second)
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("complementary")).to_contain_text(first)
    row(page, second).get_by_role("button").focus()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("complementary")).to_contain_text(first)  # the focused row is not the open row


def test_row_being_read_stays_in_place_while_others_arrive(page, server):
    last = str(uuid.uuid4())
    for _ in range(60):
        server.post(fresh())
    server.post(fresh(userId=last))
    expect(row(page, last)).to_be_visible()
    page.mouse.move(640, 600)
    page.mouse.wheel(0, 900)
    page.wait_for_timeout(300)

    def read():
        return page.evaluate("document.elementFromPoint(640, 600).closest('button').getAttribute('aria-label')")

    before = read()
    for _ in range(20):
        server.post(fresh())
    expect(page.get_by_role("button", name=re.compile("20 new"))).to_be_visible()
    assert read() == before


def test_live_numbers_agree_with_a_simulation(browser, tmp_path):
    with serving(tmp_path, "--processes", "2") as server, opened(browser, server.url) as page:
        options = (
            "--messages",
            "200",
            "--concurrency",
            "2",  # As many clients as function processes: no request waits for a process, and fails on a busy machine.
            "--duplicates",
            "0.2",
            "--invalid",
            "0.1",
            "--time-scale",
            "3600",
            "--url",
            server.url,
        )
        with start(server.checkout, "simulate", "--json", *options, stdout=subprocess.PIPE) as simulation:
            report = json.loads(simulation.communicate()[0])
        wait_until(lambda: number(page, "stored") == report["stored"])
        assert number(page, "duplicate") == report["duplicates_refused"] > 0
        page.get_by_label("Filter by text").fill("key-probe")  # refused, and not among the reported messages
        key_probes = int(page.get_by_text(re.compile("requests shown")).inner_text().split()[0])
        assert number(page, "refused") - key_probes == report["refused_as_expected"] > 0
        assert number(page, "failed") == 0
        assert number(page, "requests") == report["stored"] + number(page, "duplicate") + number(page, "refused")
        for chart in ("Messages per second", "Time to answer", "Call types"):
            expect(page.get_by_role("img", name=re.compile(f"^{chart}.*[0-9]"))).to_be_visible()


def test_hidden_page_disconnects_and_catches_up_when_shown(page, server):
    def show(state):
        page.evaluate(
            "state => { Object.defineProperty(document, 'hidden', {value: state === 'hidden', configurable: true});"
            "Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange')) }",
            state,
        )

    expect(page.get_by_role("navigation")).to_be_visible()
    show("hidden")
    user = str(uuid.uuid4())
    server.post(fresh(userId=user))
    page.wait_for_timeout(1000)
    assert row(page, user).count() == 0
    show("visible")
    expect(row(page, user)).to_be_visible()


def test_page_shows_that_the_server_has_ended(browser, tmp_path):
    with serving(tmp_path, "--processes", "1") as server, opened(browser, server.url, expects_errors=True) as page:
        server.process.terminate()
        expect(page.get_by_text("does not answer")).to_be_visible()


# The event tester


def test_each_sample_gets_the_predicted_answer_and_appears(page):
    visit(page, "tester")
    choice = page.get_by_label("Sample")
    expect(choice.locator("optgroup")).to_have_count(4)
    values = choice.locator("optgroup option").evaluate_all("options => options.map(option => option.value)")
    assert len(values) > 25
    for value in values:
        with page.expect_response("**/_local/check") as checked:
            choice.select_option(value)
        foretold = checked.value.json()["status"]
        verdict = "Would be accepted" if foretold == OK else f"Would be refused: {foretold}"
        expect(page.locator(".verdict")).to_contain_text(verdict)
        with page.expect_response("**/_local/send") as sent:
            page.get_by_role("button", name="Send", exact=True).click()
        status = sent.value.json()["answer"]["status"]
        assert status in ((OK, 202) if foretold == OK else (foretold,))
        expect(page.get_by_text("Response from destination")).to_be_visible()
        expect(page.locator(".result .badge").first).to_have_text(str(status))
    page.get_by_role("link", name=re.compile("^See in Live")).click()
    expect(page.get_by_role("complementary")).to_contain_text("Request as received")


def test_errors_are_shown_while_typing_and_link_to_their_line(page):
    visit(page, "tester")
    editor = page.get_by_label("Message, as JSON")
    editor.fill('{\n  "type": "track",\n  "userId": "u",\n  "event": ""\n}')
    verdict = page.locator(".verdict")
    expect(verdict).to_contain_text("Would be refused: 400")
    assert verdict.inner_text().count("event must not be empty") == 1
    verdict.get_by_role("button").click()
    expect(editor).to_be_focused()
    assert editor.evaluate("it => it.value.slice(it.selectionStart, it.selectionEnd)") == '  "event": ""'
    editor.fill('{\n  "type": "track",\n  "userId": "u",\n  "event": "x"\n}')
    expect(verdict).to_contain_text("Would be accepted: track")


def test_resent_sample_is_a_duplicate(page):
    visit(page, "tester")
    page.get_by_label("Message, as JSON").fill(json.dumps(fresh()))
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".result")).to_contain_text('"status": "stored"')
    page.get_by_role("button", name="Send again").click()
    expect(page.locator(".result")).to_contain_text('"status": "duplicate"')


def test_request_can_be_copied_as_a_command(page):
    visit(page, "tester")
    message = fresh()
    page.get_by_label("Message, as JSON").fill(json.dumps(message))
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert message["messageId"] in page.evaluate("navigator.clipboard.readText()")


def test_request_can_be_opened_in_the_tester(page, server):
    message = fresh(userId=str(uuid.uuid4()))
    server.post(message)
    row(page, message["userId"]).click()
    page.get_by_role("button", name="Open in tester").click()
    assert json.loads(page.get_by_label("Message, as JSON").input_value()) == message


def test_narrow_window_shows_the_answer_before_the_request(page):
    visit(page, "tester")
    page.get_by_role("button", name="Send", exact=True).click()
    request, answer = page.get_by_text("Request from Segment"), page.get_by_text("Response from destination")
    expect(answer).to_be_visible()
    for width in WIDTHS:
        with sized(page, width):
            first, second = answer.bounding_box(), request.bounding_box()
            assert first["y"] < second["y"] or (width != WIDTHS[0] and second["x"] < first["x"])
            assert page.evaluate(MISFITS) == []
    with sized(page, 390):
        page.get_by_role("button", name="Send again").click()
        expect(page.locator(".result")).to_contain_text('"status": "duplicate"')
        expect(answer).to_be_in_viewport()


def test_large_text_does_not_block_the_page(page):
    visit(page, "tester")
    text = json.dumps(fresh(properties={"words": ["word" * 25] * 5000}), indent=1)
    assert len(text) > 500_000
    editor = page.get_by_label("Message, as JSON")
    editor.evaluate("(it, text) => { it.value = text; it.dispatchEvent(new Event('input')) }", text)  # as if pasted
    expect(page.locator(".verdict")).to_contain_text("Would be accepted: track")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".result")).to_contain_text('"status": "stored"')


# Keys, messages, rejects


def test_key_is_created_used_revoked_and_then_refused(page):
    visit(page, "keys")
    here(page).get_by_label("Customer").fill("acme")
    here(page).get_by_label("Label").fill("by hand")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("main")).to_contain_text("shown again")
    key = page.locator(".new code").inner_text()
    assert key.startswith("ddk_")
    page.get_by_role("button", name="Use in tester").click()
    page.get_by_label("Message, as JSON").fill(json.dumps(fresh()))
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".result .badge").first).to_have_text("200")
    with page.expect_response("**/_local/keys"):
        visit(page, "keys")
    page.get_by_role("button", name=f"Revoke the key ending in {key[-4:]} of acme").click()
    page.get_by_role("button", name=f"Yes, revoke the key ending in {key[-4:]} of acme").click()
    expect(page.get_by_role("row").filter(has_text="by hand")).to_contain_text("revoked")
    visit(page, "tester")

    def refused():
        with page.expect_response("**/_local/send") as sent:
            page.get_by_role("button", name="Send", exact=True).click()
        return sent.value.json()["answer"]["status"] == 401

    wait_until(refused)
    expect(page.locator(".result .badge").first).to_have_text("401")
    expect(page.locator(".result")).to_contain_text("API key is revoked")


def test_revoking_a_key_asks_first_and_escape_cancels(page, server):
    last_four = make_key(server, "c" * 64, label="l" * 64)["key"]["last_four"]
    visit(page, "keys")
    ask = page.get_by_role("button", name=f"Revoke the key ending in {last_four}")
    for width in WIDTHS:
        with sized(page, width):
            assert page.evaluate(MISFITS) == []
            ask.click()
            question = page.locator(".confirm p")
            expect(question).to_have_text(f"Revoke …{last_four} of {'c' * 64}? This cannot be undone.")
            assert lines_of(question) < 4.5
            assert page.evaluate(MISFITS) == []
            expect(page.get_by_role("button", name="Keep")).to_be_focused()
            page.keyboard.press("Escape")
            expect(question).to_have_count(0)
            expect(ask).to_be_focused()
    expect(page.get_by_role("row").filter(has_text=f"…{last_four}")).to_contain_text("active")


def test_page_says_why_a_key_cannot_be_created(browser, server):
    with opened(browser, server.url, expects_errors=True) as page:
        visit(page, "keys")
        here(page).get_by_label("Customer").fill("acme")
        here(page).get_by_label("Expires").fill("soon")
        page.get_by_role("button", name="Create key").click()
        expect(page.get_by_role("alert")).to_contain_text("soon is not a time: write 90d")


def test_messages_of_a_user_are_a_timeline(page, server):
    user = str(uuid.uuid4())
    server.post(fresh(userId=user, event="Later", timestamp="2026-03-13T09:30:00Z"))
    server.post(fresh(userId=user, event="Earlier"))
    row(page, user).click()
    page.get_by_role("complementary").get_by_role("link", name=user).click()
    timeline = page.locator(".timeline")
    expect(timeline).to_contain_text("2026-03-13")
    assert timeline.inner_text().index("Later") < timeline.inner_text().index("Earlier")
    timeline.get_by_role("button").filter(has_text="Later").click()
    expect(timeline).to_contain_text(f"demo#user#{user}")


def test_messages_can_be_found_by_id_and_sorted_by_time(page, server):
    user = str(uuid.uuid4())
    first = fresh(userId=user, event="Later", timestamp="2026-03-13T09:30:00Z")
    second = fresh(userId=user, event="Earlier")
    group = fresh(type="group", userId=user, groupId="g-1", timestamp="2026-03-11T09:30:00Z")
    for message in (
        first,
        second,
        group,
        fresh(type="alias", userId=user, previousId="p-1", timestamp="2026-03-10T09:30:00Z"),
    ):
        assert server.post(message).status == OK
    visit(page, f"messages?customer=demo&user={user}")
    rows = page.locator(".timeline .fold .grow")
    expect(rows).to_have_text(["Later", "Earlier", "group g-1", "previous id p-1"])
    expect(page.locator(".timeline")).to_contain_text("Sorted by the time of the event")
    expect(page.locator(".timeline")).to_contain_text(first["messageId"])
    page.get_by_label("Newest first, by").select_option("stored")
    expect(rows).to_have_text(["previous id p-1", "group g-1", "Earlier", "Later"])
    expect(page.locator(".timeline")).to_contain_text("Sorted by the time at which the destination stored")
    for width in WIDTHS:
        with sized(page, width):
            assert page.evaluate(MISFITS) == []
    for name in ("Customer", "User id", "or anonymous id"):
        here(page).get_by_label(name, exact=True).fill("")
    page.get_by_label("Message id").fill(second["messageId"])
    page.get_by_role("button", name="Show", exact=True).click()
    expect(rows).to_have_text(["Earlier"])
    page.get_by_label("Message id").fill("nobody has this")
    page.keyboard.press("Enter")
    expect(page.locator(".timeline")).to_contain_text("No such message is stored")


def test_reject_can_be_retried_after_its_schema_is_fixed(page, server):
    schema = server.checkout / "schemas" / "group.json"
    original = schema.read_text()
    schema.write_text(json.dumps({**json.loads(original), "required": ["group_id", "traits"]}))
    wait_until(lambda: "schemas/ changed" in server.output)
    user = str(uuid.uuid4())
    assert server.post({"type": "group", "groupId": "g", "userId": user}).status == 400
    visit(page, "rejects")
    reject = page.locator(".rejects > li").filter(has_text=user)
    expect(reject).to_contain_text("still refused")
    expect(reject).to_contain_text("traits is required for group calls")
    retry, retry_all = (
        reject.get_by_role("button", name=re.compile("^Retry")),
        page.get_by_role("button", name="Retry all"),
    )
    expect(retry).to_be_disabled()
    reject.get_by_role("button", expanded=False).click()
    expect(reject).to_contain_text("for the same reason")
    assert reject.inner_text().count("traits is required for group calls") == 1
    schema.write_text(original)
    page.get_by_role("button", name="Refresh").click()
    expect(reject).to_contain_text("would pass today")
    expect(retry_all).to_be_enabled()
    retry.click()
    expect(reject).to_contain_text("stored")
    expect(retry).to_be_disabled()
    expect(retry_all).to_have_text("Retry all that pass")
    expect(retry_all).to_be_disabled()
    listed = server.run("messages", "list", "--user", user, "--json").stdout
    assert json.loads(listed)["group_id"] == "g"


# Layout, accessibility and security


def test_views_and_header_have_the_same_right_edge(page, server):
    server.post(fresh())
    ends = {}
    copy = page.get_by_role("button", name="Copy the endpoint")
    for view, last in (("live", ".charts"), ("keys", ".panel"), ("messages", ".panel")):
        visit(page, view)
        with sized(page, 1000):
            box, edge = here(page).locator(last).bounding_box(), copy.bounding_box()
        ends[view] = box["x"] + box["width"] - edge["x"] - edge["width"]
    assert ends == dict.fromkeys(ends, 0)


def test_hostile_texts_are_shown_as_text(page, server):
    mark = uuid.uuid4().hex
    bidi = "\u202e\u2066"
    server.post(
        fresh(
            event=HOSTILE + mark + bidi,
            userId=HOSTILE,
            traits={HOSTILE: HOSTILE},
            properties={HOSTILE: [HOSTILE]},
            messageId=(HOSTILE + mark)[:100],
        )
    )
    server.post(fresh(type=HOSTILE, userId=mark))
    server.post(b'{"type": "track", ' + HOSTILE.encode())
    server.request("GET", "/" + "%3Cscript%3E" + mark)
    row(page, mark).click()
    details = page.get_by_role("complementary")
    expect(details).to_contain_text("onerror")
    for view in ("messages?customer=demo", "rejects", "tester", "keys"):
        visit(page, view)
        page.wait_for_timeout(300)
    expect(page.get_by_role("main")).to_be_visible()
    assert page.evaluate("window.harmed") is None
    assert page.locator("main img, main script, main iframe").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_each_view_is_accessible_and_fits(browser, server, viewport, scheme):
    user = str(uuid.uuid4())
    server.post(fresh(userId=user))
    server.post(fresh(userId=user, event=""))
    with opened(browser, server.url, viewport=viewport, scheme=scheme) as page:
        faults = {}
        for view in (*VIEWS, f"messages?customer=demo&user={user}", "details"):
            visit(page, "live" if view == "details" else view)
            if view == "details":
                row(page, user).click()
                expect(page.get_by_role("complementary")).to_contain_text("Milliseconds per step")
            if view == "tester":
                page.get_by_role("button", name="Send", exact=True).click()
                expect(page.get_by_text("Response from destination")).to_be_visible()
            page.wait_for_timeout(400)
            found = Axe().run(page).response["violations"]
            faults[view] = [
                (one["id"], one["impact"], node["target"], node.get("failureSummary"))
                for one in found
                for node in one["nodes"]
            ]
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} is too wide"
        assert not any(faults.values()), faults


def test_stack_is_shown_read_only(browser, tmp_path):
    with debugged_stack(tmp_path) as stack, opened(browser, stack.url, expects_errors=True) as page:
        request_id = str(uuid.uuid4())
        stack.log("Function", function_line(REFUSED, request_id=request_id, message_id=request_id, kept=True))
        row(page, REFUSED.text).click()
        expect(page.get_by_role("complementary")).to_contain_text("It was kept among the rejects.")
        expect(page.get_by_role("complementary")).to_contain_text(request_id)
        expect(page.get_by_role("link", name="Event tester")).to_have_count(0)
        visit(page, "keys")
        expect(page.get_by_role("main")).to_contain_text("API keys")
        assert page.get_by_role("button", name=re.compile("Create|Revoke")).count() == 0
        visit(page, "rejects")
        expect(page.get_by_role("main")).to_contain_text("customer")
        assert page.get_by_role("button", name=re.compile("Retry")).count() == 0


def test_page_loads_nothing_external_and_inserts_no_html():
    for path in (ROOT / "destination" / "debugger" / "page").iterdir():
        text = Path(path).read_text()
        assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval\\(", text), path.name
        assert not re.search("https?://(?!www.w3.org/2000/svg)", text), path.name
