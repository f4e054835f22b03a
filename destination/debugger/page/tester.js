/** The view "Event tester": write a message, see whether it would be accepted, send it, and see the answer. */

import { get, latest, post } from "./api.js";
import { bdi, copyButton, count, h, labelled, long, plain, say, statusBadge, trouble } from "./dom.js";
import { showSide } from "./lines.js";

const CHECK_AFTER = 250;
const LINE = 20;
const MARGIN = 10;
const OTHER = "another";
const CAUSES = {
  good: "accepted",
  expired: "401, its time is over",
  revoked: "401, it was taken back",
  suspended: "403, it is suspended",
  scoped: "may send identify only, else 403",
  unknown: "401, nobody has it",
  none: "401, no credentials",
};

/** Make the view; `fill({path, text, settings, api_key})` fills in the given values. */
export function tester({ deployment }) {
  let samples = [];
  let last = null;
  let timer = 0;
  const asked = latest();
  const sent = latest();

  const sample = h("select", { change: useSample });
  const path = h(
    "select",
    { change: checkSoon },
    deployment.routes.map((route) => h("option", { value: route }, `POST ${route}`)),
  );
  const key = h(
    "select",
    { change: seeKey },
    deployment.keys.map(({ label }) =>
      h("option", { value: label }, CAUSES[label] ? `${label}: ${CAUSES[label]}` : label),
    ),
    h("option", { value: OTHER }, "another key…"),
  );
  const otherKey = h("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder: "ddk_…" });
  const otherField = labelled("Another API key", otherKey);
  const settings = h("textarea", { rows: 3, spellcheck: "false", input: checkSoon });
  const settingsPart = h(
    "details",
    { class: "settings" },
    h("summary", null, "Settings of the destination (optional)"),
    labelled("X-Segment-Settings, as JSON", settings),
  );
  const text = h("textarea", {
    class: "editor",
    wrap: "off",
    spellcheck: "false",
    autocapitalize: "off",
    autocomplete: "off",
    "aria-label": "Message, as JSON",
    readonly: true, // until the samples are loaded: the first one would overwrite typed text
    input: () => {
      sample.value = "";
      typed();
    },
    scroll: drawNumbers,
  });
  const numbers = h("div", { class: "gutter", "aria-hidden": "true" });
  const verdict = h("div", { class: "verdict", role: "status" });
  const send = h(
    "button",
    { type: "submit", class: "primary", disabled: true, "aria-keyshortcuts": "Control+Enter Meta+Enter" },
    "Send",
  );
  const again = h(
    "button",
    {
      type: "button",
      disabled: true,
      title: "Sends the same request again: it is answered as a duplicate",
      click: () => deliver(last),
    },
    "Send again",
  );
  const curl = copyButton("Copy as curl", async () => (await post("/_local/curl", written())).curl);
  const form = h(
    "form",
    {
      class: "write",
      submit: (event) => {
        event.preventDefault();
        deliver(written());
      },
      keydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
          event.preventDefault();
          deliver(written());
        }
      },
    },
    h(
      "div",
      { class: "choices" },
      labelled("Sample", sample),
      labelled("Endpoint", path),
      labelled("API key", key),
      otherField,
    ),
    h("div", { class: "editing" }, numbers, text),
    verdict,
    settingsPart,
    h("div", { class: "buttons" }, send, again, curl, h("span", { class: "dim wide" }, "Ctrl or ⌘ + Enter sends")),
  );
  const result = h("div", { class: "result" }, nothingSent());
  const element = h("section", { class: "tester" }, h("h1", { class: "unseen" }, "Event tester"), form, result);
  let problems = new Map();
  let lines = 1;
  otherField.hidden = true;

  function written() {
    const chosen = deployment.keys.find(({ label }) => label === key.value);
    return {
      path: path.value,
      api_key: chosen ? chosen.api_key : otherKey.value.trim(),
      text: text.value,
      settings: settings.value.trim(),
    };
  }

  function seeKey() {
    otherField.hidden = key.value !== OTHER;
    if (!otherField.hidden) otherKey.focus();
    checkSoon();
  }

  function useSample() {
    const chosen = sample.value && samples[sample.value];
    if (!chosen) return;
    const { value } = sample;
    fill({ ...chosen, text: renewed(chosen.text) });
    result.replaceChildren(nothingSent());
    sample.value = value;
  }

  function fill(request) {
    if (request.path !== undefined) {
      if (![...path.options].some((option) => option.value === request.path))
        path.append(h("option", { value: request.path }, `POST ${plain(request.path, 60)}`));
      path.value = request.path;
    }
    if (request.api_key !== undefined) {
      key.value = OTHER;
      otherKey.value = request.api_key;
      seeKey();
    }
    if (request.text !== undefined) {
      text.value = request.text;
      settings.value = request.settings ?? "";
      settingsPart.open = settings.value !== "";
      sample.value = "";
      text.scrollTop = text.scrollLeft = 0;
      typed();
    }
  }

  function typed() {
    const { value } = text;
    lines = 1;
    for (let at = value.indexOf("\n"); at >= 0; at = value.indexOf("\n", at + 1)) lines++;
    drawNumbers();
    checkSoon();
  }

  function drawNumbers() {
    const first = Math.max(0, Math.floor((text.scrollTop - MARGIN) / LINE));
    const last = Math.min(lines, first + Math.ceil((text.clientHeight || 1) / LINE) + 2);
    const shift = MARGIN + first * LINE - text.scrollTop;
    numbers.replaceChildren(
      ...Array.from({ length: Math.max(0, last - first) }, (_, i) => {
        const wrong = problems.get(first + i + 1);
        const number = h("span", { class: wrong && "wrong", title: wrong }, first + i + 1);
        if (i === 0) number.style.marginTop = `${shift}px`;
        return number;
      }),
    );
  }

  function checkSoon() {
    clearTimeout(timer);
    timer = setTimeout(check, CHECK_AFTER);
  }

  async function check() {
    const { path: route, text: value, settings: given } = written();
    const { data, error } = await asked(post("/_local/check", { path: route, text: value, settings: given }));
    if (error) verdict.replaceChildren(h("p", { class: "dim" }, error.message));
    if (!data) return;
    problems = new Map(data.problems.filter(({ line }) => line).map(({ line, message }) => [line, plain(message)]));
    drawNumbers();
    const isGood = data.status < 300;
    const isInPart = isGood && data.refused > 0;
    const some = isInPart
      ? `${count(data.accepted)} of ${count(data.accepted + data.refused)} messages`
      : data.call_type;
    const isListed = data.problems.some(({ message }) => message === data.message);
    const what = isGood ? (some ?? "") : `${data.status} ${isListed ? "" : data.message}`.trim();
    const cause = key.value === OTHER ? "if the key may" : `but with this key: ${CAUSES[key.value]}`;
    verdict.replaceChildren(
      h(
        "p",
        { class: isGood ? (isInPart ? "part" : "good") : "bad" },
        isGood ? "Would be accepted" : "Would be refused",
        what && ": ",
        what && bdi(what),
        isGood && key.value !== "good" && h("span", { class: "dim" }, ` (${cause})`),
      ),
      (data.problems.length > 0 &&
        h(
          "ul",
          null,
          data.problems.map(({ line, message }) =>
            h(
              "li",
              null,
              line
                ? h(
                    "button",
                    { type: "button", class: "link", click: () => goTo(line) },
                    `Line ${line}: `,
                    bdi(message),
                  )
                : bdi(message),
            ),
          ),
        )) ||
        "",
    );
  }

  function goTo(line) {
    let from = 0;
    for (let i = 1; i < line; i++) from = text.value.indexOf("\n", from) + 1 || text.value.length;
    const end = text.value.indexOf("\n", from);
    text.focus();
    text.setSelectionRange(from, end < 0 ? text.value.length : end);
    text.scrollTop = Math.max(0, (line - 4) * LINE);
    text.scrollLeft = 0;
  }

  async function deliver(request) {
    if (!request || send.disabled) return;
    last = request;
    send.disabled = again.disabled = true;
    const { data, error } = await sent(post("/_local/send", request));
    send.disabled = again.disabled = false;
    if (error) result.replaceChildren(trouble(error));
    if (data) {
      result.replaceChildren(...showSent(data));
      if (result.offsetTop >= form.offsetTop + form.offsetHeight) result.scrollIntoView();
      say(`Answered ${data.answer.status}`);
    }
  }

  async function load() {
    try {
      ({ samples } = await get("/_local/samples"));
    } catch (error) {
      verdict.replaceChildren(trouble(error));
      return;
    } finally {
      text.readOnly = send.disabled = false;
    }
    const groups = new Map();
    samples.forEach((one, i) =>
      groups.set(one.group, [...(groups.get(one.group) ?? []), h("option", { value: i }, one.title)]),
    );
    sample.replaceChildren(
      h("option", { value: "", hidden: true }, "Your own"),
      ...[...groups].map(([label, children]) => h("optgroup", { label }, children)),
    );
    sample.value = text.value ? "" : "0";
    useSample();
  }

  return {
    element,
    fill,
    judgeAnew: check,
    show: () => {
      if (samples.length === 0) load();
      drawNumbers();
    },
  };
}

function nothingSent() {
  const text = "Send the message to see the request that Segment would send, and the destination's answer.";
  return h("p", { class: "nothing" }, text);
}

/** Give messages new ids, as samples have when the page loads: a message that is sent twice is a duplicate. */
const renewed = (text) => text.replace(/\b(ping|test)-[0-9a-f-]{36}\b/g, (_, name) => `${name}-${crypto.randomUUID()}`);

function showSent({ request_id: id, request, answer }) {
  return [
    h("h2", { class: "unseen" }, "Request and answer"),
    h(
      "div",
      { class: "side-by-side answer-first" },
      showSide(
        "Response from destination",
        [statusBadge(answer.status), answer.ms !== null && h("span", { class: "dim" }, `${answer.ms} ms`)],
        answer,
        true,
      ),
      showSide("Request from Segment", h("code", null, request.method, " ", long(request.url, 200)), request),
    ),
    id &&
      h(
        "p",
        null,
        h("a", { class: "button", href: `#live/${encodeURIComponent(id)}` }, "See in Live: the steps in between"),
      ),
  ].filter(Boolean);
}
