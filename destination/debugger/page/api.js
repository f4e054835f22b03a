/** Asks the local server. What goes wrong is an Error whose message is a sentence for people. */

/** GET; `query` becomes the part after "?", without what is empty. */
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
    throw new Error(data?.message ?? `The local server answered ${response.status}, and does not tell why.`);
  }
  return data;
}

/** Make a function that asks and is only heard if nobody asked again meanwhile: `latest()(promise)`. */
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
