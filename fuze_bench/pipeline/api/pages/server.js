// Questions to the server, and what can go wrong with them.

const REQUEST_LIMIT_MS = 15_000;

export class Problem extends Error {
  constructor(status, detail, field) {
    super(detail);
    this.status = status;
    this.field = field;
  }
}

export class Away extends Error {}

// The server's answer as an object, null where it has nothing to say. Throws Problem for what it says is wrong, Away if it says nothing.
export async function ask(path, options = {}) {
  let response, answer;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(REQUEST_LIMIT_MS) });
    answer = response.status === 204 ? null : await response.json();
  } catch {
    throw new Away(response ? `The server's answer cannot be read (${response.status}).` : "The server cannot be reached.");
  }
  if (response.status === 401 && location.pathname !== "/sign-in") location.assign("/sign-in");
  if (!response.ok) throw new Problem(response.status, answer.detail ?? `The server answered ${response.status}.`, answer.field);
  return answer;
}
