/** The numbers and three small charts above the list. Each is redrawn from the given seconds. */

import { count, h, svg } from "./dom.js";

const OUTCOMES = ["failed", "refused", "duplicate", "stored"];
const SPAN = 300;
const BAR = 3;

/** Make the charts; returns their element and `draw(seconds, now)`. */
export function charts({ deployment }) {
  const all = [rateChart(deployment), latencyChart(deployment.latency_edges), typesChart(deployment.call_types)];
  return {
    element: h(
      "div",
      { class: "charts", tabindex: 0, role: "group", "aria-label": "Charts" },
      all.map((chart) => chart.element),
    ),
    draw: (seconds, now) => all.forEach((chart) => chart.draw(seconds, now)),
  };
}

const TITLES = { messages: "Messages in these requests: a batch has many" };

/** Make the numbers of requests, messages and outcomes; returns their element and `draw(totals)`. */
export function numbers({ deployment }) {
  const names = {
    requests: "Requests",
    messages: "Messages",
    stored: deployment.queue ? "Queued" : "Stored",
    duplicate: "Duplicates",
    refused: "Refused",
    failed: "Failed",
  };
  const values = {};
  const element = h(
    "dl",
    { class: "tallies" },
    Object.entries(names).map(([name, text]) =>
      h("div", { class: `tally of-${name}`, title: TITLES[name] }, h("dt", null, text), (values[name] = h("dd", null, "–"))),
    ),
  );
  return {
    element,
    draw(totals) {
      const messages = OUTCOMES.reduce((sum, name) => sum + totals[name], 0);
      for (const name of Object.keys(names)) write(values[name], count({ ...totals, messages }[name]));
    },
  };
}

/** Set a text if it has changed. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function frame(name, title, width, ...more) {
  const note = h("span", { class: "note" });
  const plot = svg("svg", {
    role: "img",
    viewBox: `0 0 ${width} 100`,
    preserveAspectRatio: "none",
    "aria-label": title,
  });
  const element = h(
    "figure",
    { class: `chart ${name}` },
    h("figcaption", null, h("span", null, title), note),
    h("div", { class: "plot" }, plot, more),
  );
  return { element, plot, note, label: (text) => plot.setAttribute("aria-label", `${title}: ${text}`) };
}

function rateChart(deployment) {
  const scale = h("span", { class: "scale" });
  const chart = frame(
    "rate",
    "Messages per second",
    SPAN,
    scale,
    h("span", { class: "from" }, "5 min ago"),
    h("span", { class: "to" }, "now"),
  );
  const paths = OUTCOMES.map((name) => chart.plot.appendChild(svg("path", { class: name })));
  const words = {
    stored: deployment.queue ? "queued" : "stored",
    duplicate: "duplicates",
    refused: "refused",
    failed: "failed",
  };
  const draw = (seconds, now) => {
    const bars = new Map();
    for (const second of seconds) {
      const start = second.second - (second.second % BAR);
      const bar = bars.get(start) ?? bars.set(start, { stored: 0, duplicate: 0, refused: 0, failed: 0 }).get(start);
      for (const name of OUTCOMES) bar[name] += second[name];
    }
    const sum = (bar) => OUTCOMES.reduce((total, name) => total + bar[name], 0) / BAR;
    const peak = Math.max(0, ...[...bars.values()].map(sum));
    const top = niceTop(peak);
    const shapes = ["", "", "", ""];
    for (const [start, bar] of bars) {
      let height = sum(bar);
      OUTCOMES.forEach((name, i) => {
        if (bar[name] > 0)
          shapes[i] += `M${SPAN - (now - start) - 1} 100V${(100 - (height / top) * 100).toFixed(2)}h${BAR * 0.8}V100z`;
        height -= bar[name] / BAR;
      });
    }
    paths.forEach((path, i) => path.setAttribute("d", shapes[i]));
    write(scale, peak > 0 ? `${top}/s` : "");
    const last = seconds.filter((second) => second.second > now - 10 && second.second <= now);
    const rate = OUTCOMES.reduce((total, name) => total + last.reduce((n, second) => n + second[name], 0), 0) / 10;
    write(chart.note, `${short(rate)} now, peak ${short(peak)}`);
    const totals = OUTCOMES.toReversed().map(
      (name) => `${seconds.reduce((n, second) => n + second[name], 0)} ${words[name]}`,
    );
    chart.label(`${short(rate)} now, at most ${short(peak)}; in the last five minutes ${totals.join(", ")}`);
  };
  return { element: chart.element, draw };
}

function latencyChart(edges) {
  const bins = edges.length + 1;
  const marks = { median: h("span", { class: "mark" }), p95: h("span", { class: "mark" }) };
  const ticks = edges.map((edge, i) =>
    i % 2 ? null : at(h("span", { class: "tick" }, edge < 1000 ? edge : `${edge / 1000} s`), (i + 1) / bins),
  );
  const chart = frame("latency", "Time to answer", bins * 10, ticks.filter(Boolean), Object.values(marks));
  const path = chart.plot.appendChild(svg("path", { class: "bars" }));
  const strong = chart.plot.appendChild(svg("path", { class: "bars strong" }));
  const words = (i) =>
    i === 0 ? `under ${edges[0]} ms` : i < edges.length ? `${edges[i - 1]}–${edges[i]} ms` : `over ${edges.at(-1)} ms`;
  const draw = (seconds) => {
    const sums = Array.from({ length: bins }, (_, i) => seconds.reduce((n, second) => n + second.latency[i], 0));
    const all = sums.reduce((a, b) => a + b, 0);
    const most = Math.max(1, ...sums);
    const shape = (n, i) => (n > 0 ? `M${i * 10 + 1} 100v${-Math.max(2, (n / most) * 82).toFixed(2)}h8V100z` : "");
    const [median, p95] = [0.5, 0.95].map((part) => quantile(sums, all * part));
    path.setAttribute("d", sums.map(shape).join(""));
    strong.setAttribute("d", all ? [median, p95].map((i) => shape(sums[i], i)).join("") : "");
    write(marks.median, all ? (median === p95 ? "median, p95" : "median") : "");
    write(marks.p95, all && median !== p95 ? "p95" : "");
    const isClose = p95 !== median && p95 - median < 5; // the labels must not overlap
    marks.median.classList.toggle("before", isClose && median > 2);
    marks.p95.classList.toggle("after", isClose);
    at(marks.median, (median + 0.5) / bins);
    at(marks.p95, (p95 + 0.5 + (isClose && median <= 2 ? 1.5 : 0)) / bins);
    write(chart.note, all ? `median ${words(median)}` : "");
    chart.label(
      all ? `median ${words(median)}, 95 percent at or below ${words(p95)}, of ${all} requests` : "no requests",
    );
  };
  return { element: chart.element, draw };
}

function typesChart(types) {
  const names = [...types, "other"];
  const rows = Object.fromEntries(names.map((name) => [name, { bar: h("i"), value: h("b", null, "–") }]));
  const plot = h(
    "div",
    { class: "plot", role: "img", "aria-label": "Call types" },
    names.map((name) =>
      h(
        "div",
        { class: "share" },
        h("span", null, name),
        h("span", { class: "track" }, rows[name].bar),
        rows[name].value,
      ),
    ),
  );
  const draw = (seconds) => {
    const sums = Object.fromEntries(names.map((name) => [name, 0]));
    for (const second of seconds)
      for (const [type, n] of Object.entries(second.types)) sums[type in sums ? type : "other"] += n;
    const all = Math.max(
      1,
      Object.values(sums).reduce((a, b) => a + b, 0),
    );
    for (const name of names) {
      rows[name].bar.style.width = `${(sums[name] / all) * 100}%`;
      write(rows[name].value, sums[name] ? `${Math.max(1, Math.round((sums[name] / all) * 100))}%` : "–");
    }
    plot.setAttribute(
      "aria-label",
      `Call types: ${
        names
          .filter((name) => sums[name])
          .map((name) => `${name} ${sums[name]}`)
          .join(", ") || "none"
      }`,
    );
  };
  return {
    element: h("figure", { class: "chart types" }, h("figcaption", null, h("span", null, "Call types")), plot),
    draw,
  };
}

function at(element, part) {
  element.style.left = `${(part * 100).toFixed(2)}%`;
  return element;
}

function quantile(sums, wanted) {
  let seen = 0;
  return Math.max(
    0,
    sums.findIndex((n) => (seen += n) > 0 && seen >= wanted),
  );
}

function niceTop(peak) {
  const power = 10 ** Math.floor(Math.log10(peak || 1));
  return Number(([1, 1.5, 2, 3, 4, 6, 8, 10].find((step) => step * power >= peak) * power).toPrecision(2));
}

const short = (number) => (number >= 10 || number === 0 ? count(Math.round(number)) : number.toFixed(1));
