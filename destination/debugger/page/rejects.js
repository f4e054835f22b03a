/** The view "Rejects": messages that a schema refused. After the schema was corrected, a retry stores them. */

import { get, latest, post } from "./api.js";
import { badge, bdi, count, h, labelled, long, outcomeColour, plain, plural, trouble } from "./dom.js";
import { showLines, showViolations } from "./lines.js";
import { folded } from "./messages.js";

/** Make the view. */
export function rejects({ deployment }) {
  const list = h("ol", { class: "rejects" });
  const told = h("div", { class: "told", "aria-live": "polite", tabindex: -1 });
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
    h("div", { class: "field end" }, h("button", { type: "submit" }, "Refresh")),
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
      "Segment does not send a refused message again. Messages that a schema refused are kept here. Correct ",
      h("code", null, "schemas/<call type>.json"),
      ", then retry: a message that passes is stored as if it had just arrived.",
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
        h("li", { class: "nothing" }, "Name a customer to see the rejects of the last seven days."),
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
        : [h("li", { class: "nothing" }, "There are no rejects.")]),
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
    const verdict =
      { true: badge("stored", "would pass today"), false: badge("refused", "still refused") }[reject.passes] ??
      badge("grey", "not judged");
    const fate = h("p", { class: "fate", hidden: true });
    const item = folded(
      [
        h("span", { class: "grow" }, h("bdi", { class: "answer" }, plain(reject.answer, 160)), verdict),
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
          h("p", null, today(now, answer, reject.answer)),
          h("p", null, h("code", null, plain(now.code ?? ""))),
          showViolations(violations, reject.answer),
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
          disabled: reject.passes !== true,
          title: reject.passes === true ? null : "Today’s schemas do not let this message pass",
          "aria-label": `Retry: ${plain(reject.answer, 80)}, ${plain(reject.who ?? "", 60)}`,
          click: () => retry([reject.key]),
        },
        "Retry",
      );
    if (button) item.firstChild.after(button);
    item.append(fate);
    places.set(reject.key, { fate, button, verdict });
    return item;
  }

  async function retry(keys) {
    const buttons = [retryAll, ...keys.map((key) => places.get(key)?.button)].filter(Boolean);
    for (const button of buttons) button.disabled = true;
    try {
      const { results } = await post("/_local/rejects/retry", { keys });
      for (const { key, fate, answer } of results) showFate(key, fate, answer);
      const taken = results.filter(({ fate }) => ["stored", "queued", "duplicate"].includes(fate)).length;
      told.replaceChildren(h("p", null, `${taken} of ${plural(results.length, "reject")} stored.`));
      told.focus(); // the button is inactive from now on
      setPassing(passing.filter((key) => !results.some((one) => one.key === key)));
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
    place.verdict.hidden = fate !== "refused";
    const words = {
      refused: answer,
      queued: "It is in the queue, and no longer a reject.",
      duplicate: "It was stored already, and is no longer a reject.",
      gone: "It is no longer among the rejects.",
      erased: "Its user was erased: it is deleted and not stored.",
      missing: "It is neither stored nor among the rejects: another command deleted it, or it is lost.",
    };
    place.fate.replaceChildren(
      badge(outcomeColour(fate), fate),
      " ",
      bdi(words[fate] ?? "It is stored, and no longer a reject."),
    );
    if (place.button) place.button.disabled = true;
  }
  return { element, show: load, judgeAnew: load };
}

/** The verdict of today's schemas on a reject, without the text that its row shows. */
function today({ passes }, answer, shown) {
  if (answer === null) return passes === false ? "Today it would be refused." : "Today it would be accepted.";
  return answer === shown
    ? "Today it would be refused for the same reason."
    : ["Today it would be refused: ", bdi(answer)];
}
