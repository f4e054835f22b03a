/** The view "Live": an introduction, numbers and charts, filters, the list of requests, and details of one. */

import { post, get } from "./api.js";
import { charts, numbers, write } from "./charts.js";
import { copyButton, count, h, options, plural, say, trouble } from "./dom.js";
import { isBatch, rowList, soughtIn } from "./list.js";
import { requestPanel } from "./request.js";

const WORDS = {
  stored: "stored",
  duplicate: "duplicate",
  refused: "refused",
  failed: "failed",
  answered: "answered",
};
const KINDS = ["stored", "duplicate", "refused", "failed"];
const MOST_CUSTOMERS = 300;
const SEND_TRAFFIC = "Send sample traffic";
const SHOP = "Send about 60 messages of a small shop, in about 12 seconds";
const NARROW = 560;
const WALKED_AFTER = 60;
const SEARCHED =
  'Each word, or "several words" in quotes, must occur in one of: answered, status, outcome, call type, customer, ' +
  "user, event, message id, code, remark, route, consumer failed. Upper and lower case are the same.";

/** Make the view; `show(rest)` opens the details of a row, or closes them. */
export function live(page) {
  const { feed, deployment } = page;
  const words = { ...WORDS, ...(deployment.queue && { stored: "queued" }) };
  const wanted = { kinds: new Set(), type: "", customer: "", words: [] };
  const known = new Set();
  let begun = false;

  const type = h(
    "select",
    { "aria-label": "Call type", change: filter },
    ["", ...deployment.call_types].map((name) => h("option", { value: name }, name || "All call types")),
  );
  const customer = h(
    "select",
    { "aria-label": "Customer", change: filter },
    h("option", { value: "" }, "All customers"),
  );
  const text = h("input", {
    type: "search",
    placeholder: "Filter all columns",
    title: SEARCHED,
    "aria-label": "Filter by text",
    "aria-description": SEARCHED,
    "aria-keyshortcuts": "/",
    spellcheck: "false",
    autocomplete: "off",
    input: filter,
  });
  const chips = Object.fromEntries(
    KINDS.map((kind) => {
      const listens = { class: `toggle ${kind}`, "aria-pressed": "false", click: () => toggle(kind) };
      return [kind, h("button", { type: "button", ...listens }, words[kind])];
    }),
  );
  const pause = h("button", { type: "button", class: "pause", click: () => setPaused(!list.holds.paused) }, "Pause");
  const clear = h(
    "button",
    {
      type: "button",
      click: () => {
        feed.clear();
        update(true);
        say("Cleared");
      },
    },
    "Clear",
  );
  const found = h("p", { class: "dim", role: "status", hidden: true });
  const searched = h("p", { class: "dim searched", hidden: true }, SEARCHED);
  const older = h("p", { class: "nothing", hidden: true });
  const pill = h("button", { type: "button", class: "pill", hidden: true, click: () => list.release() });
  const head = h(
    "div",
    { class: "listhead" },
    h(
      "div",
      { class: "toolbar" },
      text,
      type,
      customer,
      h("div", { class: "toggles", role: "group", "aria-label": "Outcomes to show" }, Object.values(chips)),
      h("div", { class: "actions" }, pause, clear),
    ),
    h("div", { class: "found" }, found, searched),
    h(
      "div",
      { class: "columns", "aria-hidden": "true" },
      ["time", "code-cell", "outcome", "type", "customer", "user", "what", "ms"].map((name) =>
        h(
          "span",
          { class: name },
          {
            time: "answered",
            "code-cell": "status",
            what: deployment.tells_who ? "event" : "remark",
            type: "call type",
            ms: "took",
          }[name] ?? name,
        ),
      ),
    ),
    h("div", { class: "pillplace" }, pill),
  );
  const nothing = h("div", { class: "nothing", hidden: true });
  const figures = numbers(page);
  const drawings = charts(page);
  const about = intro(page);
  const scroller = h("div", { class: "scroller" });
  const list = rowList({ scroller, head, words, open: (row) => page.go(`live/${row.id}`), openNext });
  const seen = h(
    "div",
    { class: "seen" },
    h("div", { class: "summary" }, figures.element, drawings.element),
    head,
    list.element,
    older,
    nothing,
  );
  const greeting = welcome(page);
  scroller.append(h("h1", { class: "unseen" }, "Live requests"), about, greeting, seen);
  const panel = requestPanel(page, { close: () => page.go("live"), words });
  const element = h("section", { class: deployment.tells_who ? "live" : "live no-who" }, scroller, panel.element);

  function matches(row) {
    return (
      (!wanted.type || row.types.includes(wanted.type)) &&
      (!wanted.customer || row.customer === wanted.customer) &&
      wanted.words.every((word) => soughtIn(row, words).includes(word))
    );
  }
  const isOf = (row, kind) => (isBatch(row) ? row.counts[kind] > 0 : row.outcome === kind);

  function update(fromTop = false) {
    const kinds = [...wanted.kinds];
    const isFiltered = kinds.length + wanted.words.length > 0 || wanted.type !== "" || wanted.customer !== "";
    const shown = isFiltered
      ? feed.rows.filter((row) => matches(row) && (kinds.length === 0 || kinds.some((kind) => isOf(row, kind))))
      : feed.rows;
    found.hidden = !isFiltered;
    if (isFiltered) write(found, `${count(shown.length)} of ${plural(feed.rows.length, "request")} shown.`);
    searched.hidden = wanted.words.length === 0;
    older.hidden = isFiltered || feed.totals.requests <= feed.rows.length || shown.length === 0;
    if (!older.hidden)
      write(older, `Of ${count(feed.totals.requests)} requests, the last ${count(feed.rows.length)} are listed.`);
    if (feed.begun) figures.draw(feed.totals);
    const isNew = feed.begun && !feed.everAny;
    if (greeting.hidden === isNew || seen.hidden !== isNew) {
      greeting.hidden = !isNew;
      seen.hidden = isNew;
      list.measure();
      drawCharts();
    }
    nothing.hidden = shown.length > 0 || !feed.begun;
    if (!nothing.hidden) {
      nothing.replaceChildren(
        feed.rows.length === 0
          ? "No request since you cleared the list. New requests appear here."
          : h(
              "span",
              null,
              "No request matches these filters. ",
              h("button", { type: "button", click: unfilter }, "Show all"),
            ),
      );
    }
    if (begun !== feed.begun) drawCharts();
    list.set(shown, fromTop || begun !== feed.begun); // earlier requests are shown even if the list is paused
    begun = feed.begun;
  }

  function seeCustomers() {
    const before = known.size;
    for (const row of feed.rows) if (row.customer !== null && known.size < MOST_CUSTOMERS) known.add(row.customer);
    if (known.size > before) options(customer, [["", "All customers"], ...[...known].sort()]);
  }

  function filter() {
    const words = [...text.value.toLowerCase().matchAll(/"([^"]*)"?|\S+/g)].map(([word, quoted]) => quoted ?? word);
    Object.assign(wanted, { type: type.value, customer: customer.value, words: words.filter(Boolean) });
    update(true);
  }

  function toggle(kind) {
    if (!wanted.kinds.delete(kind)) wanted.kinds.add(kind);
    chips[kind].setAttribute("aria-pressed", wanted.kinds.has(kind));
    update(true);
  }

  function unfilter() {
    type.value = customer.value = text.value = "";
    for (const kind of [...wanted.kinds]) toggle(kind);
    filter();
    text.focus();
  }

  function setPaused(isPaused) {
    list.holds.paused = isPaused;
    pause.classList.toggle("on", isPaused);
    say(isPaused ? "Paused" : "Goes on");
    if (!isPaused) list.release();
    list.refresh();
  }

  list.onHeld = (waiting, isPaused) => {
    write(pause, isPaused ? (waiting ? `Resume (${count(waiting)} new)` : "Resume") : "Pause");
    pill.hidden = isPaused || waiting === 0;
    if (waiting) write(pill, `↑ ${count(waiting)} new`);
  };

  function drawCharts() {
    if (!element.hidden && !document.hidden && !seen.hidden) {
      const now = Math.max(Math.floor(Date.now() / 1000), feed.newest());
      drawings.draw(feed.seconds(now), now);
    }
  }

  function show(rest) {
    const id = rest.split("/")[0];
    const was = element.classList.contains("with-details");
    element.classList.toggle("with-details", Boolean(id));
    list.measure();
    list.select(id || null);
    if (id) panel.open(id);
    else if (was) {
      panel.shut();
      list.focus();
    }
  }

  /** Open another row; while a key is held down, only the last one. */
  let next = 0;
  function openNext(row) {
    list.select(row.id);
    clearTimeout(next);
    next = setTimeout(() => element.classList.contains("with-details") && page.replace(`live/${row.id}`), WALKED_AFTER);
  }

  let frame = 0;
  feed.addEventListener(
    "change",
    () =>
      (frame ||= requestAnimationFrame(() => {
        frame = 0;
        seeCustomers();
        update();
      })),
  );
  new ResizeObserver(() => {
    if (scroller.clientWidth) list.measure(scroller.clientWidth < NARROW ? 60 : 36);
  }).observe(scroller);
  new ResizeObserver(() => list.measure()).observe(head);
  setInterval(drawCharts, 1000);
  addEventListener("keydown", (event) => {
    if (element.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !event.target.closest("input, textarea, select")) {
      event.preventDefault();
      text.focus();
    }
    const isOpen = element.classList.contains("with-details");
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (isOpen && by && (event.target === document.body || panel.isInBar(event.target))) {
      event.preventDefault();
      list.walk(by);
    } else if (event.key === "ArrowDown" && (event.target === text || event.target === document.body)) {
      event.preventDefault();
      list.enter();
    }
    if (event.key === "Escape" && isOpen) page.go("live");
  });
  update();
  return { element, show };
}

/** A button that sends a small shop's messages, and a place for its errors. */
function sampleTraffic({ deployment }) {
  if (deployment.read_only) return [];
  const told = h("div", { "aria-live": "polite" });
  const button = h("button", { type: "button", title: SHOP, click: start }, SEND_TRAFFIC);
  async function start() {
    button.disabled = true;
    told.replaceChildren();
    try {
      const { messages, seconds } = await post("/_local/sample-traffic", {});
      say(`Sending ${plural(messages, "message")} in about ${plural(seconds, "second")}`);
      write(button, "Sending …");
      setTimeout(() => ((button.disabled = false), write(button, SEND_TRAFFIC)), seconds * 1000);
    } catch (error) {
      told.replaceChildren(trouble(error));
      button.disabled = false;
    }
  }
  return [button, told];
}

function intro(page) {
  const { deployment } = page;
  const isQueue = deployment.queue !== null;
  const [place, does] = isQueue ? ["your queue", "queues it"] : ["your event table", "stores it once"];
  return h(
    "div",
    { class: "intro" },
    h(
      "p",
      { class: "about" },
      `Direct Destination receives your customers’ data from Segment, checks each message and ${does}.`,
    ),
    h(
      "p",
      { class: "flow", "aria-label": `Segment, then this endpoint, then ${place}`, role: "img" },
      ["Segment", "checked here", place].flatMap((step, i) => [
        i > 0 && h("span", { class: "arrow" }, "→"),
        h("span", { class: "step" }, step),
      ]),
    ),
    sampleTraffic(page),
  );
}

function welcome({ deployment, go }) {
  const good = deployment.keys.find((key) => key.label === "good");
  const told = h("div", { "aria-live": "polite" });
  const send = h(
    "button",
    {
      type: "button",
      class: "primary large",
      click: async () => {
        send.disabled = true;
        try {
          const { samples } = await get("/_local/samples");
          const { path, text, settings } = samples[0];
          const { request_id: id } = await post("/_local/send", { path, api_key: good.api_key, text, settings });
          if (id) go(`live/${id}`);
        } catch (error) {
          told.replaceChildren(h("p", { class: "trouble" }, error.message));
        }
        send.disabled = false;
      },
    },
    "Send a test message",
  );
  const shown = (label, value) =>
    value &&
    h(
      "div",
      { class: "given" },
      h("span", null, label),
      h("code", null, value),
      copyButton("Copy", () => value, { "aria-label": `Copy: ${label}` }),
    );
  return h(
    "div",
    { class: "welcome", hidden: true },
    h("h2", null, "Waiting for the first message"),
    h(
      "p",
      null,
      "Segment posts a message to the endpoint, with your customer’s API key. The endpoint checks it, stores it once and answers. Here you see the request, how it was processed, and the answer.",
    ),
    shown("Endpoint", deployment.endpoint),
    !deployment.read_only && good && shown("API key", good.api_key),
    !deployment.read_only &&
      good &&
      h("div", { class: "buttons" }, send, h("a", { class: "button", href: "#tester" }, "Write one yourself")),
    told,
  );
}
