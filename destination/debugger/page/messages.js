/** The view "Messages": stored messages of all or of one user, or one message, newest first. */

import { get, latest } from "./api.js";
import { badge, count, h, labelled, middle, plain, trouble } from "./dom.js";
import { showLines } from "./lines.js";

const NAMES = ["customer", "user", "anonymous", "message_id", "by"];
const SORTED = {
  event: "Sorted by the time of the event: the timestamp of the message, or the time of its arrival if it has none.",
  stored: "Sorted by the time at which the destination stored the message.",
};

/** Make the view; `show` takes the fields of the form from the address. */
export function messages({ deployment, go }) {
  const field = () => h("input", { type: "text", autocomplete: "off", spellcheck: "false" });
  const by = h(
    "select",
    { change: () => submit() },
    h("option", { value: "event" }, "event time"),
    h("option", { value: "stored" }, "time stored"),
  );
  const fields = { customer: field(), user: field(), anonymous: field(), message_id: field(), by };
  const result = h("div", { class: "timeline", "aria-live": "polite" });
  const ask = latest();
  const form = h(
    "form",
    {
      class: "panel choices",
      submit: (event) => {
        event.preventDefault();
        submit();
      },
    },
    labelled("Customer", fields.customer),
    labelled("User id", fields.user),
    labelled("or anonymous id", fields.anonymous),
    labelled("Message id", fields.message_id),
    labelled("Newest first, by", by),
    h("div", { class: "field end" }, h("button", { type: "submit", class: "primary" }, "Show")),
  );
  const element = h(
    "section",
    { class: "plain" },
    h("h1", null, "Stored messages"),
    deployment.queue
      ? h(
          "p",
          { class: "nothing" },
          "Messages are queued here, not stored: they are in the queue ",
          h("code", null, deployment.queue ?? ""),
          ", and can’t be listed.",
        )
      : [form, result],
  );
  const wanted = () => Object.fromEntries(NAMES.map((name) => [name, fields[name].value.trim()]));

  function submit() {
    const words = Object.entries(wanted()).filter(([name, value]) => value && !(name === "by" && value === "event"));
    const query = new URLSearchParams(words).toString();
    const hash = query ? `messages?${query}` : "messages";
    if (location.hash === `#${hash}`) load();
    else go(hash);
  }

  async function load() {
    if (deployment.queue) return;
    const asked = wanted();
    if (deployment.messages_need_subject && !(asked.customer && (asked.user || asked.anonymous))) {
      ask(Promise.resolve());
      result.replaceChildren(
        h("p", { class: "nothing" }, "Name a customer, and a user or an anonymous id, to see what is stored."),
      );
      return;
    }
    if (!result.firstChild) result.replaceChildren(h("p", { class: "dim" }, "Loading …"));
    const { data, error } = await ask(get("/_local/messages", asked));
    if (error) result.replaceChildren(trouble(error));
    if (data) result.replaceChildren(...timeline(data, asked));
  }

  return {
    element,
    show: (rest, query) => {
      if (NAMES.some((name) => query.has(name))) for (const name of NAMES) fields[name].value = query.get(name) ?? "";
      if (!by.value) by.value = "event";
      load();
    },
  };
}

function timeline({ messages: all, more, latest }, asked) {
  const isChosen = NAMES.some((name) => name !== "by" && asked[name]);
  if (all.length === 0)
    return [
      h(
        "p",
        { class: "nothing" },
        isChosen ? "No such message is stored." : "Nothing is stored yet. ",
        !isChosen && h("a", { href: "#live" }, "See live requests"),
      ),
    ];
  const time = asked.by === "stored" ? "stored" : "time";
  const days = Map.groupBy(all, (message) => message[time].slice(0, 10));
  const parts = [...days].map(([day, ones]) => [
    h("h2", null, plain(day), h("span", { class: "dim" }, " UTC")),
    h(
      "ol",
      null,
      ones.map((message) => show(message, message[time])),
    ),
  ]);
  const rest = latest
    ? `These are the last ${count(all.length)} messages by arrival. Name a customer or a user to see others.`
    : more > 0 && `${count(more)} older ones are not shown.`;
  const sorted = h("p", { class: "dim" }, SORTED[asked.by] ?? SORTED.event);
  return [sorted, ...parts.flat(), ...(rest ? [h("p", { class: "dim" }, rest)] : [])];
}

function show(message, time) {
  return folded(
    [
      badge("grey", plain(message.type, 30)),
      h("bdi", { class: "grow" }, plain(message.what || "–", 120)),
      h("code", { class: "id" }, middle(message.message_id)),
      h(
        "span",
        { class: "dim who" },
        middle(message.customer),
        message.who_kind === "anonymous" && h("span", null, "anonymous"),
        middle(message.who),
      ),
      h("time", { class: "dim" }, plain(time.slice(11), 30)),
    ],
    async () => {
      const { item } = await get("/_local/message", { subject: message.subject, position: message.position });
      return [showLines(item, "Stored item")];
    },
  );
}

/** A row that opens the result of `load`. */
export function folded(cells, load) {
  const inside = h("div", { class: "inside", hidden: true });
  const button = h(
    "button",
    {
      type: "button",
      class: "fold",
      "aria-expanded": "false",
      click: async () => {
        inside.hidden = !inside.hidden;
        button.setAttribute("aria-expanded", !inside.hidden);
        if (inside.hidden) return;
        inside.replaceChildren(h("p", { class: "dim" }, "Loading …"));
        try {
          inside.replaceChildren(...(await load()));
        } catch (error) {
          inside.replaceChildren(trouble(error));
        }
      },
    },
    cells,
  );
  return h("li", null, button, inside);
}
