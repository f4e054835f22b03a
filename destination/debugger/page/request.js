/** The details of one request: request and answer side by side, and the steps in between. */

import { get, latest } from "./api.js";
import { badge, bdi, count, h, inSteps, long, outcomeColour, plain, plural, statusBadge, trouble } from "./dom.js";
import { showLines, showSide, showViolations, textOf } from "./lines.js";
import { clock, isBatch, textsOf } from "./list.js";

/** Make the panel: `open(id)`, `shut()`. */
export function requestPanel(page, { close, words }) {
  const title = h("h2", { tabindex: -1, class: "title" });
  const body = h("div", { class: "body" });
  const element = h(
    "aside",
    { class: "details", "aria-label": "Details of a request", hidden: true },
    h(
      "div",
      { class: "bar" },
      title,
      h(
        "button",
        { type: "button", class: "close", "aria-label": "Close the details", title: "Close (Escape)", click: close },
        "✕",
      ),
    ),
    body,
  );
  const ask = latest();
  let current = null;

  async function open(id, message = null) {
    const isNew = id !== current;
    current = id;
    element.hidden = false;
    if (isNew) {
      title.replaceChildren("Request");
      body.replaceChildren(h("p", { class: "dim" }, "Loading …"));
      body.scrollTop = 0;
      title.focus({ preventScroll: true });
    }
    const { data, error } = await ask(get(`/_local/requests/${encodeURIComponent(id)}`, { message: message ?? "" }));
    if (error) body.replaceChildren(trouble(error));
    if (!data) return;
    title.replaceChildren(...heading(data.row, words));
    const scrolled = body.scrollTop;
    body.replaceChildren(...sections(data, page, words, (index) => open(id, index)));
    if (isNew) return;
    body.scrollTop = scrolled;
    body.querySelector(".messages [aria-current]")?.focus({ preventScroll: true });
  }

  function shut() {
    current = null;
    ask(Promise.resolve());
    element.hidden = true;
    body.replaceChildren();
  }
  return { element, open, shut, isInBar: (target) => element.firstChild.contains(target) };
}

function heading(row, words) {
  const { outcome, type, event } = textsOf(row, words);
  const what = isBatch(row) ? event : [type, event].filter(Boolean).join(" · ") || `${row.method} ${row.route}`;
  return [
    statusBadge(row.status),
    " ",
    h("span", { class: `outcome ${outcomeColour(row.outcome)}` }, outcome),
    " ",
    h("bdi", { class: "of" }, plain(what, 120)),
  ];
}

function sections(data, page, words, pick) {
  const { row, request, messages, answer } = data;
  const about = data.canonical && messages.length > 1 ? ` · message ${data.message}` : "";
  return [
    facts(row, data.subject),
    messages.length > 1 && section("Messages of the batch", batch(messages, data.message, words, pick)),
    data.now.length > 0 &&
      section(
        `Outcome${about}`,
        h(
          "ul",
          { class: "now" },
          data.now.map((sentence) => h("li", null, long(sentence, 400))),
        ),
      ),
    h(
      "div",
      { class: "side-by-side" },
      request &&
        h(
          "div",
          null,
          showSide(
            "Request as received",
            [h("code", null, request.method, " ", long(request.path, 200)), dim(plural(request.bytes, "byte"))],
            request,
          ),
          testerButton(request, page),
        ),
      answer
        ? showSide(
            "Answer",
            [
              statusBadge(answer.status),
              dim(
                [row.ms !== null && `${row.ms} ms`, `by ${row.by === "function" ? "the function" : row.by}`]
                  .filter(Boolean)
                  .join(", "),
              ),
            ],
            answer,
          )
        : section("Answer", dim("The answer is not known.")),
    ),
    (data.canonical || data.violations.length > 0) &&
      section(
        `Canonical message${about}`,
        h("p", { class: "dim" }, "The form that schemas check and stores keep: one spelling for each field."),
        !data.canonical && showViolations(data.violations),
        data.canonical && showLines(data.canonical, "Canonical message"),
      ),
    data.left_out.length > 0 &&
      section(
        "Left out",
        h(
          "ul",
          null,
          data.left_out.map((sentence) => h("li", null, long(sentence, 400))),
        ),
      ),
    data.line && section("The line in the log", showLines(data.line, "The line in the log")),
    data.stored && section(`Stored item${about}`, showLines(data.stored, "Stored item")),
    data.steps.length > 0 && section("Milliseconds per step", steps(data)),
  ].filter(Boolean);
}

const section = (name, ...content) => h("section", null, h("h3", null, name), content);
const dim = (text) => h("span", { class: "dim" }, text);

function facts(row, about = {}) {
  const kind = row.user_kind === "anonymous" ? "anonymous" : "user";
  const id = about[`${kind}_id`]; // whole, and missing where it is not a string
  const subject = new URLSearchParams({ customer: row.customer ?? "", [kind]: id ?? "" });
  const day = new Date(row.time).toLocaleDateString("en-GB", { dateStyle: "medium" });
  const pairs = [
    ["Answered", `${day}, ${clock(row.time)}${elsewhere(row.time)}`],
    ["Customer", row.customer && bdi(row.customer)],
    [
      kind === "user" ? "User" : "Anonymous id",
      row.user &&
        (id === undefined
          ? bdi(row.user, 120)
          : h("a", { href: `#messages?${subject}`, title: "Show stored messages" }, bdi(row.user, 120))),
    ],
    ["Message id", row.message_id && h("code", null, plain(row.message_id, 120))],
    ["Code", row.code && !isBatch(row) && h("code", null, plain(row.code))],
  ];
  const shown = pairs
    .filter(([, value]) => value)
    .map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)));
  return h("dl", { class: "facts" }, shown);
}

/** The time in UTC, as in stored messages, if the local time differs. */
const elsewhere = (time) =>
  new Date(time).getTimezoneOffset() === 0 ? "" : ` (${new Date(time).toISOString().slice(11, 19)} UTC)`;

function testerButton(request, page) {
  if (page.deployment.read_only || !page.deployment.routes.includes(request.path)) return null;
  const isCut = !request.body?.whole && !request.text;
  const button = h(
    "button",
    {
      type: "button",
      disabled: isCut,
      click: () =>
        page.openInTester({
          path: request.path,
          text: request.body ? textOf(request.body) : (request.text ?? ""),
          settings: settingsOf(request.headers),
        }),
    },
    "Open in tester",
  );
  return h(
    "p",
    null,
    button,
    isCut && h("span", { class: "dim" }, " Too long to be shown whole, so that it can’t be sent from here."),
  );
}

/** The content of a header X-Segment-Settings, or nothing. */
function settingsOf(headers) {
  const coded = headers.find(([name]) => name.toLowerCase() === "x-segment-settings")?.[1];
  try {
    return coded ? new TextDecoder().decode(Uint8Array.from(atob(coded), (sign) => sign.charCodeAt(0))) : "";
  } catch {
    return "";
  }
}

function batch(messages, current, words, pick) {
  const list = h("ol", { class: "messages" });
  const show = (one) =>
    h(
      "li",
      null,
      h(
        "button",
        { type: "button", "aria-current": one.index === current ? "true" : null, click: () => pick(one.index) },
        h("span", { class: "dim" }, one.index),
        badge(outcomeColour(one.outcome), words[one.outcome] ?? one.outcome),
        h("span", null, plain(one.call_type ?? "–", 30)),
        h("span", { class: "dim" }, plain([one.text, one.message_id].filter(Boolean).join(" · "), 160)),
      ),
    );
  const failing = messages.filter((one) => one.outcome === "refused" || one.outcome === "failed");
  const order = [...failing, ...messages.filter((one) => !failing.includes(one))];
  return [
    failing.length > 0 &&
      failing.length < messages.length &&
      h("p", { class: "dim" }, "Messages that were not accepted come first. The numbers are the indexes in the answer, from 0."),
    inSteps(list, order, show, 100, "messages"),
  ];
}

function steps({ steps: all, total }) {
  const sum = Math.max(
    total ?? 0,
    all.reduce((n, [, ms]) => n + ms, 0),
    0.001,
  );
  return h(
    "table",
    { class: "steps" },
    h(
      "tbody",
      null,
      all.map(([name, ms]) => {
        const bar = h("i");
        bar.style.width = `${(ms / sum) * 100}%`;
        return h(
          "tr",
          null,
          h("th", { scope: "row" }, plain(name)),
          h("td", { class: "bar" }, bar),
          h("td", { class: "ms" }, ms.toFixed(2)),
        );
      }),
      total !== null &&
        h(
          "tr",
          { class: "total" },
          h("th", { scope: "row" }, "total"),
          h("td"),
          h("td", { class: "ms" }, total.toFixed(2)),
        ),
    ),
  );
}
