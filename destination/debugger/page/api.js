/** Requests to the local server. A failure is an Error with a sentence for people. */

/** GET; `query` becomes the part after "?", without empty values. */
export function get(path, query = {}) {
  const words = new URLSearchParams(
    Object.entries(query).filter(([, value]) => value !== "" && value !== null),
  ).toString();
  return ask(words ? `${path}?${words}` : path, {});
}

/** POST an object. */
export function post(path, body) {
  return ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
}

async function ask(address, how) {
  let response;
  try {
    response = await fetch(address, { cache: "no-store", ...how });
  } catch {
    throw new Error("The local server does not answer. Is it still running in its terminal?");
  }
  const data = await response.json().catch(() => null);
  if (!response.ok || data === null) {
    throw new Error(data?.message ?? `The local server answered ${response.status}without a reason.`);
  }
  return data;
}

/** Make a function that ignores the result of a promise if it was called again meanwhile: `latest()(promise)`. */
export function latest() {
  let turn = 0;
  return async (promise) => {
    const mine = ++turn;
    try {
      const data = await promise;
      return mine === turn ? { data } : {};
    } catch (error) {
      return mine === turn ? { error } : {};
    }
  };
}
