/** Shows Lines: JSON from the server, with marks for renamed, added, omitted and invalid values. */

import { copyButton, count, h, inSteps, long } from "./dom.js";

const AT_ONCE = 400;

/** Show Lines, or the raw text without them. `name` is a label for screen readers. */
export function showLines(lines, name, text = null, bytes = 0) {
  const box = { tabindex: 0, role: "group", "aria-label": name };
  if (!lines)
    return text
      ? h("pre", { class: "code raw", ...box }, long(text, 20_000))
      : h("p", { class: "dim" }, bytes ? "The body is not kept." : "No body.");
  const code = h("div", { class: "code", ...box });
  return h(
    "div",
    { class: "lines" },
    lines.whole && copyButton("Copy", () => textOf(lines), { class: "small over", "aria-label": `Copy: ${name}` }),
    inSteps(code, lines.lines, showLine, AT_ONCE, "lines"),
    lines.omitted > 0 && h("p", { class: "dim" }, `${count(lines.omitted)} further lines are left out here.`),
  );
}

function showLine({ depth, name, value, kind, comma, marks }) {
  const line = h(
    "div",
    { class: "line" },
    name !== null && [h("span", { class: "name" }, long(name)), ": "],
    h("span", { class: kind }, long(value)),
    comma && ",",
  );
  line.style.setProperty("--depth", Math.min(depth, 24));
  for (const mark of marks) {
    line.classList.add(mark.kind);
    line.append(h("span", { class: mark.kind === "violation" ? "wrong" : "note" }, long(mark.text)));
  }
  return line;
}

/** The JSON text of Lines. */
export function textOf({ lines }) {
  const write = ({ depth, name, value, comma }) =>
    ["  ".repeat(depth), name === null ? "" : `${name}: `, value, comma ? "," : ""].join("");
  return lines.map(write).join("\n");
}

/** A request or a response: its first line, its body, and its headers, folded. */
export function showSide(title, first, { body, text, headers, bytes }, isOpen = false) {
  const rows = headers.map(([name, value]) =>
    h("tr", null, h("th", { scope: "row" }, long(name, 200)), h("td", null, long(value, 400))),
  );
  return h(
    "section",
    null,
    h("h3", null, title),
    h("p", { class: "first" }, first),
    showLines(body, `Body: ${title}`, text, bytes),
    rows.length > 0 &&
      h(
        "details",
        { class: "headers", open: isOpen },
        h("summary", null, `Headers (${headers.length})`),
        h("table", null, h("tbody", null, rows)),
      ),
  );
}

/** The violations of a schema with their places; without the text that is `shown` already. */
export function showViolations(violations, shown = null) {
  const told = violations.filter(({ pointer, message }) => pointer || message !== shown);
  return (
    told.length > 0 &&
    h(
      "ul",
      { class: "violations" },
      told.map(({ pointer, message }) =>
        h(
          "li",
          null,
          message === shown ? "At " : [long(message, 400), " "],
          h("code", null, long(pointer || "/", 200)),
        ),
      ),
    )
  );
}
