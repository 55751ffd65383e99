// The page at `/sign-in`: exchange a token for a session, or end the session.

import { ask } from "./server.js";

const SESSION = "/api/session";
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

async function signIn(token) {
  if (!token) throw new Error("Paste your token.");
  const headers = { "Content-Type": "application/json" };
  await ask(SESSION, { method: "POST", headers, body: JSON.stringify({ token }) });
  location.replace(goal());
}

async function signOut() {
  await ask(SESSION, { method: "DELETE" });
  byId("news").textContent = "Signed out.";
  byId("out").hidden = true;
}

// Do what the user wants, or say why it cannot be done; whether it could.
async function attempt(action) {
  byId("problem").textContent = byId("news").textContent = "";
  try {
    await action();
    return true;
  } catch (error) {
    byId("problem").textContent = error.message;
    return false;
  } finally {
    byId("token").focus();
  }
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const isIn = await attempt(() => signIn(byId("token").value.trim()));
  byId("token").setAttribute("aria-invalid", String(!isIn));
});

byId("sign-out").addEventListener("click", () => attempt(signOut));

// A link from another site arrives without the cookie: who is signed in need not do it again. What may be wrong is said
// when somebody tries to sign in.
const { userId } = await ask(SESSION).catch(() => ({ userId: null }));
if (userId !== null && location.search) location.replace(goal());
byId("out").hidden = userId === null;
