// The page at `/`: save an address, watch it being processed, look through what is there.

import { card, element, nameOf, wordFor } from "./cards.js";
import { Away, ask } from "./server.js";

const PAGE = 20;
const LARGEST_PAGE = 200;
const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 10_000;
const FILTERS = ["status", "reason"];
const byId = (id) => document.getElementById(id);

let currentId = null;          // the bookmark saved last, shown above the list
let watchedId = null;          // the one saved or retried last: what becomes of it is announced
let shown = new Map();         // id → {text, bookmark, node}: a card is only rebuilt when its bookmark has changed
let wanted = PAGE;             // how many are listed, if there are as many
let waitMs = FIRST_WAIT_MS;
let timer = 0;
let turns = 0;                 // how often it has been looked
let isSaving = false;

const isUnfinished = (bookmark) => bookmark.status === "pending" || bookmark.status === "processing";
const filters = () => FILTERS.map((name) => [name, byId(name).value]).filter(([, value]) => value !== "");

// --- what is there

async function loadList() {
  const latest = [];
  let next = null;
  do {
    const query = new URLSearchParams([...filters(), ["limit", Math.min(wanted - latest.length, LARGEST_PAGE)]]);
    if (next !== null) query.set("after", next);
    const page = await ask(`/api/bookmarks?${query}`);
    latest.push(...page.bookmarks);
    next = page.next;
  } while (next !== null && latest.length < wanted);
  return { latest, next };
}

// The bookmark saved last; null where there is none (any more).
async function loadCurrent(id) {
  try {
    return id === null ? null : await ask(`/api/bookmarks/${id}`);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

// Look now, and again while something is unfinished: soon after a change, ever more seldom without one.
async function look() {
  clearTimeout(timer);
  const turn = ++turns;
  let again = true;
  try {
    const [{ latest, next }, current, depths] = await Promise.all([loadList(), loadCurrent(currentId), ask("/api/queues")]);
    if (turn !== turns) return;   // a later look is under way and knows more
    if (show(latest, current, next)) waitMs = FIRST_WAIT_MS;
    showDepths(depths);
    byId("away").hidden = true;
    again = [...latest, ...(current ? [current] : [])].some(isUnfinished) || depths.queues.some((queue) => queue.waiting > 0);
  } catch (error) {
    if (turn !== turns) return;
    byId("away").textContent = `${error.message} Trying again.`;
    byId("away").hidden = false;
  }
  if (again && !document.hidden) timer = setTimeout(look, waitMs);
  waitMs = Math.min(waitMs * 1.5, LONGEST_WAIT_MS);
}

const lookSoon = () => {
  waitMs = FIRST_WAIT_MS;
  return look();
};

// --- what is shown

// The card of a bookmark, the same node as before where nothing changed: focus and selection stay.
function cardOf(bookmark, cards) {
  const text = JSON.stringify(bookmark);
  const before = shown.get(bookmark.id);
  const entry = before?.text === text ? before : { text, bookmark, node: card(bookmark, retry) };
  cards.set(bookmark.id, entry);
  const isNews = bookmark.status !== "pending" || bookmark.retryAt !== null;   // it was just said to wait
  if (bookmark.id === watchedId && isNews && before && before.bookmark.status !== bookmark.status) {
    tell(`${wordFor(bookmark.status)}: `, element("bdi", {}, nameOf(bookmark)));
  }
  return entry.node;
}

// Put `nodes` into `parent`, leaving alone those that are in place.
function place(parent, nodes) {
  nodes.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  while (parent.children.length > nodes.length) parent.lastElementChild.remove();
}

function show(latest, current, next) {
  const cards = new Map();
  const changed = [...latest, ...(current ? [current] : [])].some(
    (bookmark) => shown.get(bookmark.id)?.text !== JSON.stringify(bookmark));
  byId("current").hidden = current === null;
  place(byId("current"), current ? [cardOf(current, cards)] : []);
  const others = latest.filter((bookmark) => bookmark.id !== current?.id);
  place(byId("latest"), others.map((bookmark) => {
    const node = cardOf(bookmark, cards);
    return node.parentElement?.tagName === "LI" ? node.parentElement : element("li", {}, node);
  }));
  byId("empty").textContent = filters().length ? "None of this kind." : "Nothing saved yet.";
  byId("empty").hidden = others.length > 0 || (current !== null && !filters().length);
  byId("more").hidden = next === null;
  shown = cards;
  return changed;
}

function showDepths({ redis, queues }) {
  byId("depths").replaceChildren(...queues.map(({ name, waiting, scheduled }) => element("div", {},
    element("dt", {}, name),
    element("dd", {}, `${waiting?.toLocaleString("en")}${scheduled ? ` + ${scheduled.toLocaleString("en")} later` : ""}`))));
  byId("queues").hidden = redis !== "ok";
  byId("redis-away").hidden = redis === "ok";
}

const tell = (...parts) => byId("news").replaceChildren(...parts);

function warn(text) {
  byId("warning").textContent = text ?? "";
  byId("warning").hidden = !text;
}

function complain(message, field) {
  byId("problem").textContent = message;
  for (const name of ["url", "title"]) byId(name).setAttribute("aria-invalid", String(name === field));
  if (message && ["url", "title"].includes(field)) byId(field).focus();
}

// --- what the user does

async function save(sent) {
  if (isSaving) return false;
  isSaving = true;
  byId("submit").setAttribute("aria-disabled", "true");   // unlike `disabled` it leaves the focus where it is
  complain("");
  tell("Saving…");
  try {
    const saved = await ask("/api/bookmarks/quick-save", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(sent),
    });
    currentId = watchedId = saved.bookmark.id;
    tell(saved.wasDuplicate ? "This page was saved before." : "Saved.");
    warn(saved.warning);
    await lookSoon();
    return true;
  } catch (error) {
    tell("");
    complain(error instanceof Away ? `${error.message} It may not have been saved; try again.` : error.message, error.field);
    return false;
  } finally {
    isSaving = false;
    byId("submit").removeAttribute("aria-disabled");
  }
}

async function retry(bookmark, button) {
  if (button.hasAttribute("aria-disabled")) return;
  button.setAttribute("aria-disabled", "true");
  button.parentElement.querySelector("[role=alert]")?.remove();
  try {
    const { warning } = await ask(`/api/bookmarks/${bookmark.id}/reprocess`, { method: "POST" });
    watchedId = bookmark.id;
    tell("Trying again: ", element("bdi", {}, nameOf(bookmark)));
    warn(warning);
    await lookSoon();
    // The button is gone with the failure: the focus stays at the page, or at the list that it has left.
    if (!button.isConnected) (shown.get(bookmark.id)?.node.querySelector("a") ?? byId("latest-title")).focus();
  } catch (error) {
    button.after(element("p", { className: "why", role: "alert" }, error.message));
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

async function loadMore() {
  const before = byId("latest").children.length;
  wanted += PAGE;
  await lookSoon();
  tell(`${byId("latest").children.length} are listed.`);
  if (byId("more").hidden) (byId("latest").children[before]?.querySelector("a") ?? byId("latest-title")).focus();
}

function chooseFilters() {
  wanted = PAGE;
  const query = new URLSearchParams(filters());
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  return lookSoon();
}

function readFilters() {
  const query = new URLSearchParams(location.search);
  for (const name of FILTERS) {
    byId(name).value = query.get(name) ?? "";
    if (byId(name).selectedIndex < 0) byId(name).value = "";
  }
}

byId("save").addEventListener("submit", async (event) => {
  event.preventDefault();
  const url = byId("url").value.trim();
  const title = byId("title").value.trim();
  if (!url) return complain("Paste the address of a page.", "url");
  if (await save(title ? { url, title } : { url })) {
    byId("save").reset();
    byId("url").focus();
  }
});

byId("filter").addEventListener("change", chooseFilters);
byId("filter").addEventListener("submit", (event) => event.preventDefault());
byId("more").addEventListener("click", loadMore);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});

readFilters();
look();
