/**
 * A list of ten thousand rows. Only the visible ones are in the document.
 *
 * It does not move while somebody reads: if it is paused or scrolled down, while a pointer is pressed, and
 * while a row is open that the keyboard opened. New rows are counted meanwhile. A row that has the focus keeps it.
 * While a row is open, the arrow keys open the next one.
 */

import { count, h, halves, outcomeColour, statusColour } from "./dom.js";
import { write } from "./charts.js";

const BEYOND = 4;
const KINDS = ["stored", "duplicate", "refused", "failed"];

/** Make the list. `scroller` scrolls it together with the content above; `head` stays visible at its top. */
export function rowList({ scroller, head, words, open, openNext }) {
  const element = h("div", {
    class: "rows",
    role: "list",
    "aria-label": "Requests, the last answered first",
    tabindex: -1,
  });
  const slots = new Map();
  const size = { row: 36, view: 0, top: 0, head: 0 };
  let rows = []; // the shown rows, newest last
  let newest = []; // the rows to show
  let active = null; // the row in the tab order
  let selected = null; // the id of the row with open details
  let scrolled = 0;
  let frame = 0;
  const holds = { paused: false, pressed: false, opened: false };
  const list = {
    element,
    holds,
    onHeld: () => {},
    measure,
    set,
    select,
    focus,
    release,
    refresh,
    enter: () => move(0),
    walk,
  };

  const isScrolled = () => scrolled > size.top - size.head + 4;
  const isHeld = () => holds.paused || holds.pressed || holds.opened || isScrolled();

  /** Set the rows to show; `fromTop` shows them from the top even if the list is held, as after a change of filters. */
  function set(all, fromTop = false) {
    newest = all;
    if (fromTop) {
      rows = newest;
      if (isScrolled()) scroller.scrollTop = scrolled = size.top - size.head;
    }
    refresh();
  }

  function refresh() {
    frame ||= requestAnimationFrame(draw);
  }

  function draw() {
    frame = 0;
    if (!isHeld()) rows = newest;
    list.onHeld(rows === newest ? 0 : waiting(), holds.paused);
    if (size.view === 0) return;
    const above = scrolled - size.top;
    const first = Math.max(0, Math.min(rows.length, Math.floor(above / size.row) - BEYOND));
    const last = Math.max(first, Math.min(rows.length, Math.ceil((above + size.view) / size.row) + BEYOND));
    element.style.height = `${rows.length * size.row}px`;
    element.style.paddingTop = `${first * size.row}px`;
    const wanted = new Set();
    for (let i = first; i < last; i++) wanted.add(rows.at(-1 - i));
    const spare = [];
    for (const [row, slot] of slots) {
      if (wanted.has(row)) continue;
      if (slot.element.contains(document.activeElement)) element.focus({ preventScroll: true });
      slots.delete(row);
      spare.push(slot);
    }
    const reached = wanted.has(active) ? active : rows.at(-1 - first);
    let next = element.firstChild;
    let place = first;
    for (const row of wanted) {
      let slot = slots.get(row);
      if (!slot) {
        slot = spare.pop() ?? newSlot(words);
        slot.fill(row);
        slots.set(row, slot);
      } else if (slot.failures() !== row.consumer_failures) slot.fill(row);
      if (slot.element === next) next = next.nextSibling;
      else element.insertBefore(slot.element, next);
      slot.place(++place, rows.length, row === reached, row.id === selected);
    }
    for (const slot of spare) slot.element.remove();
  }

  function waiting() {
    const last = rows.at(-1)?.number ?? 0;
    let n = 0;
    while (n < newest.length && newest.at(-1 - n).number > last) n++;
    return n;
  }

  /** Measure the sizes again; the row in view stays in place. */
  function measure(rowHeight = size.row) {
    const read = isScrolled() ? (scrolled + size.head - size.top) / size.row : null;
    Object.assign(size, {
      row: rowHeight,
      view: scroller.clientHeight,
      head: head.offsetHeight + Math.min(0, parseFloat(getComputedStyle(head).top)),
    });
    size.top = element.getBoundingClientRect().top - scroller.getBoundingClientRect().top + scroller.scrollTop;
    if (read !== null) scroller.scrollTop = size.top - size.head + read * size.row;
    scrolled = scroller.scrollTop;
    refresh();
  }

  /** Mark the row with open details. */
  function select(id) {
    selected = id;
    active = rows.find((row) => row.id === id) ?? active;
    refresh();
  }

  /** Continue, from the top. */
  function release() {
    if (element.contains(document.activeElement)) document.activeElement.blur();
    holds.opened = false;
    if (isScrolled()) scroller.scrollTop = scrolled = size.top - size.head;
    refresh();
  }

  /** Return the focus to the opened row. */
  function focus() {
    if (holds.opened) move(0);
    else if (!focusRow(active)) element.focus({ preventScroll: true });
    holds.opened = false;
  }

  function focusRow(row) {
    const button = slots.get(row)?.element.firstChild;
    button?.focus({ preventScroll: true });
    return Boolean(button);
  }

  /** Open the row that is `by` rows below the open one. */
  function walk(by) {
    goTo(by);
    if (!active || active.id === selected) return;
    holds.opened = true;
    openNext(active);
  }

  function move(by) {
    goTo(by);
    focusRow(active);
  }

  function goTo(by) {
    const at = rows.lastIndexOf(active);
    const next = Math.max(0, Math.min(rows.length - 1, (at < 0 ? -1 : rows.length - 1 - at) + by));
    active = rows.at(-1 - next);
    const top = size.top + next * size.row;
    if (top < scrolled + size.head) scroller.scrollTop = scrolled = Math.max(0, top - size.head);
    else if (top + size.row > scrolled + size.view) scroller.scrollTop = scrolled = top + size.row - size.view;
    if (frame) cancelAnimationFrame(frame);
    draw();
  }

  const rowOf = (target) => [...slots].find(([, slot]) => slot.element.contains(target))?.[0];
  const page = () => Math.max(1, Math.floor((size.view - size.head) / size.row) - 1);
  const steps = {
    ArrowDown: () => 1,
    ArrowUp: () => -1,
    PageDown: page,
    PageUp: () => -page(),
    Home: () => -rows.length,
    End: () => rows.length,
  };

  element.addEventListener("keydown", (event) => {
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey || rows.length === 0) return;
    event.preventDefault();
    const by = steps[event.key]();
    if (selected === null) move(by);
    else walk(by);
  });
  element.addEventListener("focusin", (event) => (active = rowOf(event.target) ?? active));
  element.addEventListener("focusout", refresh);
  element.addEventListener("click", (event) => {
    const row = rowOf(event.target);
    if (!row) return;
    active = row;
    holds.opened = event.detail === 0; // by a key, not by a pointer
    open(row);
  });
  element.addEventListener("pointerdown", (event) => (holds.pressed = event.button === 0));
  for (const name of ["pointerup", "pointercancel"]) {
    addEventListener(
      name,
      () =>
        holds.pressed &&
        setTimeout(() => {
          // after the click that follows
          holds.pressed = false;
          refresh();
        }, 100),
    );
  }
  scroller.addEventListener(
    "scroll",
    () => {
      scrolled = scroller.scrollTop;
      refresh();
    },
    { passive: true },
  );
  return list;
}

function newSlot(words) {
  const cell = (name) => h("span", { class: name });
  const cells = Object.fromEntries(
    ["time", "status", "outcome", "type", "customer", "user", "event", "text", "ms"].map((name) => [name, cell(name)]),
  );
  const failed = cell("chip failed consumer");
  let failures = 0;
  const chips = Object.fromEntries(KINDS.map((kind) => [kind, cell(`chip ${kind}`)]));
  const parted = Object.fromEntries(
    ["customer", "user"].map((name) => {
      const parts = [h("span"), h("span")];
      cells[name].classList.add("middle");
      cells[name].append(...parts);
      return [name, parts];
    }),
  );
  cells.what = h("span", { class: "what" }, failed, cells.event, Object.values(chips), cells.text);
  const { time, status, outcome, type, customer, user, what, ms } = cells;
  const button = h(
    "button",
    { type: "button" },
    time,
    h("span", { class: "code-cell" }, status),
    outcome,
    type,
    customer,
    user,
    what,
    ms,
  );
  const element = h("div", { class: "row", role: "listitem" }, button);

  function fill(row) {
    const texts = textsOf(row, words);
    for (const [name, text] of Object.entries(texts)) {
      if (name in parted) halves(text).forEach((half, i) => write(parted[name][i], half));
      else write(cells[name], text);
    }
    failures = row.consumer_failures;
    failed.hidden = !failures;
    write(failed, consumerFailed(row));
    status.className = `status badge ${statusColour(row.status)}`;
    outcome.className = `outcome ${outcomeColour(row.outcome)}`;
    const told = [];
    for (const kind of KINDS) {
      const n = isBatch(row) ? row.counts[kind] : 0;
      if (n) told.push(`${count(n)} ${words[kind]}`);
      chips[kind].hidden = !n;
      write(chips[kind], n ? `${count(n)} ${words[kind]}` : "");
    }
    const parts = [
      texts.time,
      texts.status,
      texts.outcome,
      texts.type,
      row.customer && `customer ${row.customer}`,
      row.user && `${row.user_kind} ${row.user}`,
      texts.event,
      ...told,
      consumerFailed(row),
      texts.text,
      texts.ms,
    ];
    button.setAttribute("aria-label", parts.filter(Boolean).join(", "));
  }

  let was = "";
  function place(number, of, isReached, isSelected) {
    const is = `${number} ${of} ${isReached} ${isSelected}`;
    if (is === was) return;
    was = is;
    element.setAttribute("aria-posinset", number);
    element.setAttribute("aria-setsize", of);
    button.tabIndex = isReached ? 0 : -1;
    element.classList.toggle("selected", isSelected);
    if (isSelected) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  return { element, fill, place, failures: () => failures };
}

/** The outcome of a request; for a partly accepted batch, that not all was accepted. */
function outcomeOf(row, words) {
  const isInPart =
    isBatch(row) && ["refused", "failed"].includes(row.outcome) && row.counts[row.outcome] < row.messages;
  return `${isInPart ? "part " : ""}${words[row.outcome] ?? row.outcome}`;
}

/** How often the consumer failed to handle the messages of a row, or nothing. */
const consumerFailed = (row) => (row.consumer_failures ? `consumer failed ${count(row.consumer_failures)}×` : "");

/** Whether a row is a batch. */
export const isBatch = (row) => row.batch || row.messages > 1;

/** The contents of a row's cells. */
export function textsOf(row, words) {
  return {
    time: clock(row.time),
    status: String(row.status ?? "–"),
    outcome: outcomeOf(row, words),
    type: row.call_type ?? (isBatch(row) ? "batch" : ""),
    customer: row.customer ?? "",
    user: row.user ?? "",
    event: isBatch(row)
      ? `batch of ${count(row.messages)}`
      : (row.event ?? (row.outcome === "answered" ? `${row.method} ${row.route}` : "")),
    text: row.text ?? "",
    ms: row.ms === null ? "" : `${row.ms < 100 ? row.ms.toFixed(1) : Math.round(row.ms)} ms`,
  };
}

/** A time of day in the local time zone. */
export function clock(time) {
  const date = new Date(time);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** The text that a filter searches: each value on its own line, in lower case. */
export function soughtIn(row, words) {
  row.sought ??= [...Object.values(textsOf(row, words)), consumerFailed(row), row.message_id, row.code, row.route]
    .join("\n")
    .toLowerCase();
  return row.sought;
}
