/** The view "Rejects": what a schema refused and is kept; mend the schema, and take it in. */

import { get, latest, post } from "./api.js";
import { badge, bdi, count, h, labelled, long, outcomeColour, plain, plural, say, trouble } from "./dom.js";
import { showLines, showViolations } from "./lines.js";
import { folded } from "./messages.js";

/** Make the view. */
export function rejects({ deployment }) {
  const list = h("ol", { class: "rejects" });
  const told = h("div", { class: "told", "aria-live": "polite" });
  const rest = h("p", { class: "dim" });
  const retryAll = h(
    "button",
    { type: "button", class: "primary", disabled: true, click: () => retry(passing) },
    "Retry all that pass",
  );
  const customer = h("input", {
    type: "text",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: deployment.messages_need_subject ? "" : "all",
  });
  const form = h(
    "form",
    {
      class: "choices",
      submit: (event) => {
        event.preventDefault();
        load();
      },
    },
    labelled("Customer", customer),
    h("div", { class: "field end" }, h("button", { type: "submit" }, "Look again")),
  );
  const ask = latest();
  const places = new Map();
  let passing = [];
  const element = h(
    "section",
    { class: "plain" },
    h("h1", null, "Rejects"),
    h(
      "p",
      { class: "dim" },
      "Segment never sends again what was refused, but it is kept here: mend ",
      h("code", null, "schemas/<call type>.json"),
      ", then retry, and it is taken in as if it had just come.",
    ),
    form,
    !deployment.read_only && h("div", { class: "buttons" }, retryAll),
    told,
    list,
    rest,
  );

  async function load() {
    if (deployment.messages_need_subject && !customer.value.trim()) {
      list.replaceChildren(
        h("li", { class: "nothing" }, "Name a customer to see what was refused in the last seven days."),
      );
      return;
    }
    const { data, error } = await ask(get("/_local/rejects", { customer: customer.value.trim() }));
    told.replaceChildren(...(error ? [trouble(error)] : []));
    if (!data) return;
    places.clear();
    list.replaceChildren(
      ...(data.rejects.length
        ? data.rejects.map(show)
        : [h("li", { class: "nothing" }, "Nothing is refused by a schema and kept.")]),
    );
    rest.textContent = data.more > 0 ? `${count(data.more)} further ones are not shown.` : "";
    setPassing(data.rejects.filter((one) => one.passes).map((one) => one.key));
  }

  function setPassing(keys) {
    passing = keys;
    retryAll.disabled = passing.length === 0;
    retryAll.textContent = passing.length ? `Retry all that pass (${passing.length})` : "Retry all that pass";
  }

  function show(reject) {
    const today =
      { true: badge("stored", "would pass today"), false: badge("refused", "still refused") }[reject.passes] ??
      badge("grey", "not judged");
    const fate = h("p", { class: "fate", hidden: true });
    const item = folded(
      [
        h("span", { class: "grow" }, h("bdi", { class: "answer" }, plain(reject.answer, 160)), today),
        h(
          "span",
          { class: "dim" },
          plain(reject.type ?? "–", 30),
          " · ",
          bdi(`${reject.customer} ${reject.who ?? ""}`, 80),
          " · ",
          plain(reject.time),
          " UTC",
        ),
      ],
      async () => {
        const {
          reject: now,
          body,
          violations,
          answer_today: answer,
          settings,
        } = await get(`/_local/rejects/${encodeURIComponent(reject.key)}`);
        return [
          h(
            "p",
            null,
            answer === null
              ? now.passes === false
                ? "Today it would be refused."
                : "Today it would be accepted."
              : ["Today it would be refused: ", bdi(answer), "."],
          ),
          h("p", null, h("code", null, plain(now.code ?? ""))),
          showViolations(violations),
          showLines(body, "Body of the rejected message"),
          settings && [h("h2", null, "Settings"), h("pre", { class: "code raw" }, long(settings))],
        ]
          .flat()
          .filter(Boolean);
      },
    );
    const button =
      !deployment.read_only &&
      h(
        "button",
        {
          type: "button",
          "aria-label": `Retry: ${plain(reject.answer, 80)}, ${plain(reject.who ?? "", 60)}`,
          click: () => retry([reject.key]),
        },
        "Retry",
      );
    if (button) item.firstChild.after(button);
    item.append(fate);
    places.set(reject.key, { fate, button, today });
    return item;
  }

  async function retry(keys) {
    const buttons = [retryAll, ...keys.map((key) => places.get(key)?.button)].filter(Boolean);
    for (const button of buttons) button.disabled = true;
    try {
      const { results } = await post("/_local/rejects/retry", { keys });
      for (const { key, fate, answer } of results) showFate(key, fate, answer);
      const taken = results.filter(({ fate }) => ["stored", "queued", "duplicate"].includes(fate)).length;
      told.replaceChildren(h("p", null, `${taken} of ${plural(results.length, "reject")} taken in.`));
      say(told.textContent);
      setPassing(passing.filter((key) => !results.some((one) => one.key === key && one.fate !== "refused")));
    } catch (error) {
      told.replaceChildren(trouble(error));
      for (const button of buttons) button.disabled = false;
      setPassing(passing);
    }
  }

  function showFate(key, fate, answer) {
    const place = places.get(key);
    if (!place) return;
    place.fate.hidden = false;
    place.today.hidden = fate !== "refused";
    const words = {
      refused: answer,
      gone: "It is no longer among the rejects.",
      erased: "Its user was erased: it is deleted and not stored.",
      missing: "It is not stored, and no longer among the rejects: another command deleted it, or it is lost.",
    };
    place.fate.replaceChildren(
      badge(outcomeColour(fate), fate),
      " ",
      bdi(words[fate] ?? "It is taken in, and no longer a reject."),
    );
    if (place.button) place.button.disabled = fate !== "refused";
  }
  return { element, show: load, judgeAnew: load };
}
