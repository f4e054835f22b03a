/** The view "Messages": what is stored, of all or of one user, newest first. */

import { get, latest } from "./api.js";
import { badge, bdi, count, h, labelled, plain, trouble } from "./dom.js";
import { showLines } from "./lines.js";

/** Make the view; `show` takes customer, user and anonymous from the address. */
export function messages({ deployment, go }) {
  const field = () => h("input", { type: "text", autocomplete: "off", spellcheck: "false" });
  const [customer, user, anonymous] = [field(), field(), field()];
  const result = h("div", { class: "timeline" });
  const ask = latest();
  const form = h(
    "form",
    {
      class: "panel choices",
      submit: (event) => {
        event.preventDefault();
        const words = new URLSearchParams(Object.entries(wanted()).filter(([, value]) => value)).toString();
        const hash = words ? `messages?${words}` : "messages";
        if (location.hash === `#${hash}`) load();
        else go(hash);
      },
    },
    labelled("Customer", customer),
    labelled("User id", user),
    labelled("or anonymous id", anonymous),
    h("div", { class: "field end" }, h("button", { type: "submit", class: "primary" }, "Show")),
  );
  const element = h(
    "section",
    { class: "plain" },
    h("h1", null, "Stored messages"),
    deployment.sink === "sqs"
      ? h(
          "p",
          { class: "nothing" },
          "Messages are queued here, not stored: they are in the queue ",
          h("code", null, deployment.queue ?? ""),
          ", and can’t be listed.",
        )
      : [form, result],
  );
  const wanted = () => ({
    customer: customer.value.trim(),
    user: user.value.trim(),
    anonymous: anonymous.value.trim(),
  });

  async function load() {
    if (deployment.sink === "sqs") return;
    const subject = wanted();
    if (deployment.messages_need_subject && !(subject.customer && (subject.user || subject.anonymous))) {
      ask(Promise.resolve());
      result.replaceChildren(
        h("p", { class: "nothing" }, "Name a customer, and a user or an anonymous id, to see what is stored."),
      );
      return;
    }
    const { data, error } = await ask(get("/_local/messages", subject));
    if (error) result.replaceChildren(trouble(error));
    if (data) result.replaceChildren(...timeline(data, Object.values(subject).some(Boolean)));
  }

  return {
    element,
    show: (rest, query) => {
      if (["customer", "user", "anonymous"].some((name) => query.has(name))) {
        [customer.value, user.value, anonymous.value] = ["customer", "user", "anonymous"].map(
          (name) => query.get(name) ?? "",
        );
      }
      load();
    },
  };
}

function timeline({ messages: all, more, latest }, isOfSubject) {
  if (all.length === 0)
    return [
      h(
        "p",
        { class: "nothing" },
        isOfSubject ? "Nothing is stored of this customer and user." : "Nothing is stored yet. ",
        !isOfSubject && h("a", { href: "#live" }, "See what arrives"),
      ),
    ];
  const days = Map.groupBy(all, (message) => message.time.slice(0, 10));
  const parts = [...days].map(([day, ones]) => [
    h("h2", null, plain(day), h("span", { class: "dim" }, " UTC")),
    h("ol", null, ones.map(show)),
  ]);
  const rest = latest
    ? `These are the ${count(all.length)} that arrived last. Name a customer or a user to see others.`
    : more > 0 && `${count(more)} older ones are not shown.`;
  return [...parts.flat(), ...(rest ? [h("p", { class: "dim" }, rest)] : [])];
}

function show(message) {
  return folded(
    [
      badge("grey", plain(message.type, 30)),
      h("bdi", { class: "grow" }, plain(message.what || "–", 120)),
      h(
        "span",
        { class: "dim who" },
        bdi(message.customer, 40),
        message.who_kind === "anonymous" ? " anonymous " : " ",
        bdi(message.who, 60),
      ),
      h("time", { class: "dim" }, plain(message.time.slice(11), 30)),
    ],
    async () => {
      const { item } = await get("/_local/message", { subject: message.subject, position: message.position });
      return [showLines(item, "Stored item")];
    },
  );
}

/** A row that opens what `load` gives. */
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
