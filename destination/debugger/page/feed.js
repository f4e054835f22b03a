/** The live data of the local server: the last rows, totals, and the last seconds. */

import { plain } from "./dom.js";

const KEPT_ROWS = 10_000;
const KEPT_SECONDS = 300;
const COUNTED = ["requests", "stored", "duplicate", "refused", "failed"];
const SHOWN = ["route", "call_type", "customer", "user", "event", "message_id", "code", "text"];
const NOTHING = { requests: 0, stored: 0, duplicate: 0, refused: 0, failed: 0 };
const BEGIN = { totals: NOTHING, number: 0, second: 0 };

/** Dispatches `change` for rows and totals, `state` for the connection to the server, `schemas` after an edit. */
export class Feed extends EventTarget {
  /** Oldest first. Their texts are shortened, and invisible characters are escaped. */
  rows = [];
  /** Since the last "Clear". */
  totals = NOTHING;
  notice = null;
  connected = true;
  /** Whether there was a snapshot, and whether the server ever had a request. */
  begun = false;
  everAny = false;

  #source = null;
  #schemas = 0;
  #seconds = new Map();
  #started = null;
  #all = NOTHING;
  #cleared = BEGIN;

  /**
   * Begin to listen, while the page is visible. A browser has six connections to a server, and each page that
   * listens takes one.
   */
  open() {
    if (!document.hidden) this.#listen();
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#source?.close() : this.#listen()));
  }

  #listen() {
    this.#source?.close();
    const source = new EventSource("/_local/live");
    this.#source = source;
    source.addEventListener("snapshot", (event) => this.#replace(JSON.parse(event.data)));
    source.addEventListener("more", (event) => this.#add(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      this.connected = false;
      this.dispatchEvent(new Event("state"));
      if (source.readyState === EventSource.CLOSED) setTimeout(() => source === this.#source && this.#listen(), 2000);
    });
  }

  /** Forget everything, and count from now on. */
  clear() {
    this.#cleared = {
      totals: this.#all,
      number: this.rows.at(-1)?.number ?? this.#cleared.number,
      second: this.newest(),
    };
    this.rows = [];
    this.totals = NOTHING;
    this.dispatchEvent(new Event("change"));
  }

  /** The seconds of the last five minutes that began after "Clear". */
  seconds(now) {
    return [...this.#seconds.values()].filter(
      ({ second }) => second > now - KEPT_SECONDS && second > this.#cleared.second,
    );
  }

  /** The newest second by the server's clock, which may differ from this machine's. */
  newest() {
    return Math.max(0, ...this.#seconds.keys());
  }

  #replace(snapshot) {
    if (snapshot.started !== this.#started) {
      this.#cleared = BEGIN;
      this.everAny = false;
      this.#schemas = snapshot.schemas;
    }
    this.#started = snapshot.started;
    this.rows = [];
    this.#seconds.clear();
    this.begun = true;
    this.#add({ ...snapshot, rows: snapshot.rows.filter((row) => row.number > this.#cleared.number) });
  }

  #add({ rows, totals, seconds, notice, schemas, consumer_failures: failures }) {
    this.rows = this.rows.concat(rows.map((row) => this.#read(row))).slice(-KEPT_ROWS);
    if (Object.keys(failures).length > 0) this.#noteFailures(failures);
    for (const second of seconds) this.#seconds.set(second.second, second);
    const oldest = this.newest() - KEPT_SECONDS;
    for (const second of this.#seconds.keys()) if (second < oldest) this.#seconds.delete(second);
    this.#all = totals;
    this.totals = Object.fromEntries(COUNTED.map((name) => [name, totals[name] - this.#cleared.totals[name]]));
    this.everAny ||= totals.requests > 0 || this.rows.length > 0;
    const wasAs = this.connected && this.notice === notice;
    this.connected = true;
    this.notice = notice;
    if (!wasAs) this.dispatchEvent(new Event("state"));
    this.dispatchEvent(new Event("change"));
    if (schemas !== this.#schemas) this.dispatchEvent(new Event("schemas"));
    this.#schemas = schemas;
  }

  /** Set in the rows how often the consumer failed to handle their messages. */
  #noteFailures(failures) {
    for (const row of this.rows) {
      if (!Object.hasOwn(failures, row.id)) continue;
      row.consumer_failures = failures[row.id];
      row.sought = undefined;
    }
  }

  #read(row) {
    const read = { ...row, consumer_failures: 0 };
    for (const name of SHOWN) read[name] = row[name] === null ? null : plain(row[name]);
    return read;
  }
}
