// The page at `/sign-in`: exchange a token for a session, or end the session.

const REQUEST_LIMIT_MS = 15_000;
const byId = (id) => document.getElementById(id);

// Where the user wanted to go: a place on this server, else the start.
function goal() {
  const wanted = new URLSearchParams(location.search).get("next");
  try {
    const url = new URL(wanted ?? "/", location.origin);
    if (url.origin === location.origin) return url.href;
  } catch { /* no address */ }
  return "/";
}

async function ask(method, body) {
  const options = { method, signal: AbortSignal.timeout(REQUEST_LIMIT_MS) };
  if (body) Object.assign(options, { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  try {
    return await fetch("/api/session", options);
  } catch {
    return null;
  }
}

async function userId() {
  try {
    return (await (await ask("GET")).json()).userId ?? null;
  } catch {
    return null;   // it is said when somebody tries to sign in
  }
}

async function detail(response) {
  if (response === null) return "The server cannot be reached.";
  try {
    return (await response.json()).detail;
  } catch {
    return `The server answered ${response.status}.`;
  }
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  byId("problem").textContent = "";
  byId("news").textContent = "";
  const response = token ? await ask("POST", { token }) : undefined;
  if (response?.ok) return location.replace(goal());
  byId("problem").textContent = token ? await detail(response) : "Paste your token.";
  byId("token").setAttribute("aria-invalid", "true");
  byId("token").focus();
});

byId("sign-out").addEventListener("click", async () => {
  const response = await ask("DELETE");
  byId("problem").textContent = response?.ok ? "" : await detail(response);
  byId("news").textContent = response?.ok ? "Signed out." : "";
  byId("out").hidden = Boolean(response?.ok);
  byId("token").focus();
});

// A link from another site arrives without the cookie: who is signed in need not do it again.
const isSignedIn = await userId() !== null;
if (isSignedIn && location.search) location.replace(goal());
byId("out").hidden = !isSignedIn;
