/** The view "Keys": the API keys of customers. On a local server, keys can be created and revoked. */

import { get, latest, post } from "./api.js";
import { badge, bdi, copyButton, h, labelled, plain, say, trouble } from "./dom.js";

const COLOURS = { active: "stored", expired: "grey", suspended: "refused", revoked: "failed" };

/** Make the view. */
export function keys(page) {
  const { deployment } = page;
  const told = h("div", { class: "told" });
  const body = h("tbody");
  const ask = latest();
  const table = h(
    "table",
    { class: "cards" },
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        ["Customer", "Label", "Status", "Ends in", "May send", "Created", "Expires"].map((name) =>
          h("th", { scope: "col" }, name),
        ),
        !deployment.read_only && h("th", { scope: "col" }, h("span", { class: "unseen" }, "Actions")),
      ),
    ),
    body,
  );
  const element = h(
    "section",
    { class: "plain", "aria-label": "API keys", tabindex: deployment.read_only ? 0 : null },
    h("h1", null, "API keys"),
    h(
      "p",
      { class: "dim" },
      "A customer enters its key in Segment. The key identifies the customer. Only a hash of a key is stored.",
    ),
    !deployment.read_only && newKeyForm(page, told, load),
    told,
    table,
  );

  async function load() {
    const { data, error } = await ask(get("/_local/keys"));
    if (error) told.replaceChildren(trouble(error));
    if (data)
      body.replaceChildren(
        ...(data.keys.length
          ? data.keys.map((key) => show(key))
          : [h("tr", null, h("td", { colspan: 8 }, "There are no keys yet."))]),
      );
  }

  function show(key) {
    const cell = (name, ...content) => h("td", { "data-name": name }, content);
    const row = h(
      "tr",
      null,
      h("th", { scope: "row", "data-name": "Customer" }, bdi(key.customer_id)),
      cell("Label", key.label ? bdi(key.label) : "–"),
      cell("Status", badge(COLOURS[key.status] ?? "grey", key.status)),
      cell("Ends in", h("code", null, `…${plain(key.last_four)}`)),
      cell("May send", key.scopes ? key.scopes.join(", ") : "all call types"),
      cell("Created", day(key.created_at)),
      cell("Expires", day(key.expires_at) === "–" ? "never" : day(key.expires_at)),
      !deployment.read_only && h("td", { class: "act" }, key.status === "revoked" ? "" : revoker(key)),
    );
    return row;
  }

  function revoker(key) {
    const name = `key ending in ${key.last_four} of ${plain(key.customer_id)}`;
    const ask = h("button", { type: "button", "aria-label": `Revoke the ${name}`, click: open }, "Revoke");
    const failed = h("div");
    const keep = h("button", { type: "button", click: close }, "Keep");
    const question = h(
      "tr",
      { class: "question", keydown: (event) => event.key === "Escape" && close() },
      h(
        "td",
        { colspan: 8 },
        h(
          "div",
          { class: "confirm", role: "group", "aria-label": `Revoke the ${name}?` },
          h(
            "p",
            null,
            "Revoke ",
            h("code", null, `…${plain(key.last_four)}`),
            " of ",
            h("b", null, bdi(key.customer_id)),
            "? This cannot be undone.",
          ),
          h(
            "button",
            { type: "button", class: "danger", "aria-label": `Yes, revoke the ${name}`, click: revoke },
            "Revoke",
          ),
          keep,
        ),
        failed,
      ),
    );

    function open() {
      ask.hidden = true;
      ask.closest("tr").after(question);
      keep.focus();
    }

    function close() {
      question.remove();
      failed.replaceChildren();
      ask.hidden = false;
      ask.focus();
    }

    async function revoke() {
      try {
        const { key: now } = await post(`/_local/keys/${encodeURIComponent(key.id)}/revoke`, {});
        const row = show(now);
        question.remove();
        ask.closest("tr").replaceWith(row);
        row.tabIndex = -1;
        row.focus();
        told.replaceChildren();
        say(`Revoked the ${name}`);
      } catch (error) {
        failed.replaceChildren(trouble(error));
      }
    }
    return ask;
  }
  return { element, show: load };
}

function newKeyForm(page, told, load) {
  const customer = h("input", {
    type: "text",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "acme",
  });
  const label = h("input", { type: "text", autocomplete: "off", placeholder: "production" });
  const expires = h("input", { type: "text", autocomplete: "off", placeholder: "90d" });
  const scopes = page.deployment.call_types.map((type) =>
    h("label", { class: "check" }, h("input", { type: "checkbox", value: type }), type),
  );
  return h(
    "form",
    {
      class: "panel",
      submit: async (event) => {
        event.preventDefault();
        try {
          const made = await post("/_local/keys", {
            customer_id: customer.value.trim(),
            label: label.value.trim(),
            expires: expires.value.trim(),
            scopes: scopes
              .map((one) => one.firstChild)
              .filter((box) => box.checked)
              .map((box) => box.value),
          });
          event.target.reset();
          told.replaceChildren(showNew(made, page));
          told.firstChild.focus();
          load();
        } catch (error) {
          told.replaceChildren(trouble(error));
        }
      },
    },
    h("h2", null, "New key"),
    h(
      "div",
      { class: "choices" },
      labelled("Customer", customer),
      labelled("Label", label, "(optional)"),
      labelled("Expires", expires, "(90d, 2027-01-31; empty is never)"),
    ),
    h(
      "fieldset",
      null,
      h("legend", null, "May send ", h("span", { class: "dim" }, "(none ticked: all call types)")),
      scopes,
    ),
    h("button", { type: "submit", class: "primary" }, "Create key"),
  );
}

function showNew({ api_key: secret, key }, page) {
  return h(
    "div",
    { class: "panel new", tabindex: -1 },
    h("h2", null, "The new key of ", bdi(key.customer_id)),
    h("p", null, "Copy it now: it can’t be shown again."),
    h(
      "p",
      { class: "given" },
      h("code", null, secret),
      copyButton("Copy", () => secret, { "aria-label": "Copy the new key" }),
      h("button", { type: "button", click: () => page.openInTester({ api_key: secret }) }, "Use in tester"),
    ),
  );
}

const day = (iso) => (iso ? plain(iso.slice(0, 10)) : "–");
