/** Builds elements. Nothing in this page parses HTML: data of senders always becomes text. */

const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]|\p{Cs}/gu;

/** Make an element. In `props`, functions are listeners, `value` is a property, the rest are attributes unless null or false. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "value") element.value = value;
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Make an SVG element. */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Show a sender's text: invisible and bidirectional control characters as \uXXXX, cut if it is too long. */
export function plain(text, most = 300) {
  const cut = text.length > most ? `${text.slice(0, most)}…` : text;
  return cut.replace(UNSEEN, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const END = 8;

/** Split a text, so that it can be shortened in the middle: ids often differ only at their ends. */
export function halves(text) {
  const signs = [...text];
  if (signs.length <= 2 * END || RIGHT_TO_LEFT.test(text)) return [text, ""];
  return [signs.slice(0, -END).join(""), signs.slice(-END).join("")];
}

/** A sender's text in one line, shortened in the middle to fit. */
export function middle(text) {
  const shown = plain(text);
  return h(
    "bdi",
    { class: "middle", title: shown },
    halves(shown).map((half) => h("span", null, half)),
  );
}

/** Show a text that may be very long: its beginning, and a button for the rest. */
export function long(text, most = 2000) {
  if (text.length <= most) return bdi(text, most);
  const more = h(
    "button",
    { type: "button", class: "small", click: () => whole.replaceChildren(plain(text, Infinity)) },
    `show all ${count(text.length)} characters`,
  );
  const whole = h("bdi", null, plain(text, most), " ", more);
  return whole;
}

/** Append the elements that `make` makes from items, `step` at a time, with a button for more. */
export function inSteps(parent, items, make, step, what) {
  const more = h("button", { type: "button", click: next });
  let shown = 0;
  function next() {
    parent.append(...items.slice(shown, shown + step).map((item, i) => make(item, shown + i)));
    shown = Math.min(items.length, shown + step);
    more.textContent = `Show more (${count(items.length - shown)} further ${what})`;
    more.hidden = shown >= items.length;
  }
  next();
  return [parent, more];
}

/** A number with separators. */
export const count = (number) => number.toLocaleString("en-US");

/** `1 message`, `2 messages`. */
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** A label above its field. */
export const labelled = (text, field, hint) =>
  h("label", { class: "field" }, h("span", null, text, hint && h("span", { class: "dim" }, ` ${hint}`)), field);

const SHORT = 32;

/** A sender's text of at most 32 characters, shortened in the middle. */
function shortened(text) {
  const signs = [...text];
  if (signs.length <= SHORT) return plain(text);
  return plain(`${signs.slice(0, SHORT / 2 - 1).join("")}…${signs.slice(-SHORT / 2).join("")}`);
}

/** A select of texts, or of [value, text] pairs. */
export function options(select, choices) {
  const value = select.value;
  select.replaceChildren(
    ...choices.map((choice) => {
      const [key, text] = Array.isArray(choice) ? choice : [choice, choice];
      return h("option", { value: key, title: text.length > SHORT ? plain(text) : null }, shortened(text));
    }),
  );
  select.value = choices.some((choice) => (Array.isArray(choice) ? choice[0] : choice) === value)
    ? value
    : (select.options[0]?.value ?? "");
}

/** A sender's text, isolated from the text direction around it. */
export const bdi = (text, most) => h("bdi", null, plain(text, most));

/** A word in a coloured box. */
export const badge = (colour, text) => h("span", { class: `badge ${colour}` }, text);

/** The badge of a status code. */
export const statusBadge = (status) => badge(statusColour(status), status ?? "no answer");

/** The colour of a status code. A 501 counts as the sender's fault too. */
export const statusColour = (status) =>
  status === null ? "grey" : status < 400 ? "stored" : status < 500 || status === 501 ? "refused" : "failed";

/** The class of an outcome, or of the result of a retried reject: queued looks like stored. */
export const outcomeColour = (outcome) => ({ queued: "stored", answered: "grey", gone: "grey" })[outcome] ?? outcome;

/** Announce a text to screen readers. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/** An error message. */
export const trouble = (error) => h("p", { class: "trouble", role: "alert" }, error.message);

/** A button that copies the result of `text`, which may be a promise. */
export function copyButton(label, text, props) {
  const button = h(
    "button",
    {
      type: "button",
      ...props,
      click: async () => {
        let told = "Copied";
        try {
          await navigator.clipboard.writeText(await text());
        } catch {
          told = "Not copied";
        }
        say(told);
        button.textContent = told;
        setTimeout(() => (button.textContent = label), 1500);
      },
    },
    label,
  );
  button.classList.add("copy");
  return button;
}
