/** Starts the page: loads the deployment's facts, opens the feed, and shows the view in the address. */

import { get } from "./api.js";
import { copyButton, h } from "./dom.js";
import { Feed } from "./feed.js";
import { keys } from "./keys.js";
import { live } from "./live.js";
import { messages } from "./messages.js";
import { rejects } from "./rejects.js";
import { tester } from "./tester.js";

const VIEWS = {
  live: ["Live", live],
  tester: ["Event tester", tester],
  keys: ["Keys", keys],
  messages: ["Messages", messages],
  rejects: ["Rejects", rejects],
};
const TOLD_FOR = 6000;
const [main, tabs, banners, place] = ["main", "tabs", "banners", "deployment"].map((id) => document.getElementById(id));

async function start() {
  const deployment = await untilAnswered("/_local/deployment");
  const feed = new Feed();
  const page = {
    deployment,
    feed,
    go: (hash) => (location.hash = hash),
    replace: (hash) => location.replace(`#${hash}`),
  };
  const views = {};
  for (const [name, [title, make]] of Object.entries(VIEWS)) {
    if (name === "tester" && deployment.read_only) continue;
    const view = make(page);
    const tab = h("a", { href: `#${name}` }, title);
    view.element.hidden = true;
    main.append(view.element);
    tabs.append(tab);
    views[name] = { ...view, tab, title };
  }
  page.openInTester = (request) => {
    views.tester.fill(request);
    page.go("tester");
  };

  function route() {
    const [path, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
    const [name, ...rest] = path.split("/");
    const chosen = Object.hasOwn(views, name) ? name : "live";
    for (const [each, { element, tab }] of Object.entries(views)) {
      element.hidden = each !== chosen;
      if (each === chosen) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    document.title = `${views[chosen].title} – Direct Destination`;
    views[chosen].show(name === chosen ? rest.join("/") : "", new URLSearchParams(query));
  }
  showPlace(deployment);
  let renewed = 0;
  const state = () => {
    place.classList.toggle("lost", !feed.connected);
    showBanners(feed.connected, feed.notice, renewed && "schemas/ changed: messages are judged by what is there now.");
  };
  feed.addEventListener("state", state);
  feed.addEventListener("schemas", () => {
    clearTimeout(renewed);
    renewed = setTimeout(() => ((renewed = 0), state()), TOLD_FOR);
    state();
    for (const view of Object.values(views)) if (!view.element.hidden) view.judgeAnew?.();
  });
  addEventListener("hashchange", route);
  route();
  feed.open();
}

async function untilAnswered(path) {
  for (;;) {
    try {
      const data = await get(path);
      showBanners(true, null);
      return data;
    } catch {
      showBanners(false, null);
      await new Promise((wake) => setTimeout(wake, 2000));
    }
  }
}

function showPlace({ name, endpoint, read_only: readOnly }) {
  place.replaceChildren(h("span", { class: "name" }, name, readOnly && " (read only)"));
  if (endpoint)
    place.append(
      h("code", null, endpoint),
      copyButton("Copy", () => endpoint, { class: "small", "aria-label": "Copy the endpoint’s address" }),
    );
}

function showBanners(isConnected, ...notices) {
  banners.replaceChildren(
    ...[!isConnected && "The local server does not answer. Trying again.", ...notices]
      .filter(Boolean)
      .map((text) => h("p", { role: "status" }, text)),
  );
}

start();
