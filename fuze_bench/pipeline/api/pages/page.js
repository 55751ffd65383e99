// The page at `/`: save an address, watch it being processed, list the latest.
// Whatever comes from the server goes into the document as text.

const LISTED = 20;
const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 10_000;
const REQUEST_LIMIT_MS = 15_000;
const WORDS = { pending: "Pending", processing: "Processing", processed: "Processed", failed: "Failed" };
const byId = (id) => document.getElementById(id);

let currentId = null;          // the bookmark saved last, shown above the list
let shown = new Map();         // id → {text, node}: a card is only rebuilt when its bookmark has changed
let waitMs = FIRST_WAIT_MS;
let timer = 0;
let turns = 0;                 // how often it has been looked
let isSaving = false;

class Problem extends Error {
  constructor(detail, field) {
    super(detail);
    this.field = field;
  }
}

class Away extends Error {}

// The server's answer as an object. Throws Problem for what it says is wrong, Away if it says nothing.
async function ask(path, options = {}) {
  let response, answer;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(REQUEST_LIMIT_MS) });
    answer = await response.json();
  } catch {
    throw new Away(response ? `The server's answer cannot be read (${response.status}).` : "The server cannot be reached.");
  }
  if (!response.ok) throw new Problem(answer.detail ?? `The server answered ${response.status}.`, answer.field);
  return answer;
}

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

function link(address, text) {
  let url = null;
  try { url = new URL(address); } catch { /* shown as text */ }
  if (!["http:", "https:"].includes(url?.protocol)) return element("span", {}, text);
  return element("a", { href: url.href, target: "_blank", rel: "noopener noreferrer" }, text);
}

function languageName(code) {
  try { return new Intl.DisplayNames(["en"], { type: "language" }).of(code); } catch { return code; }
}

function facts(bookmark) {
  const minutes = Math.max(1, Math.round(bookmark.readingTimeS / 60));
  const known = [
    bookmark.readingTimeS === null ? null : `${minutes} min read`,
    bookmark.wordCount === null ? null : `${bookmark.wordCount.toLocaleString("en")} words`,
    bookmark.language === null ? null : languageName(bookmark.language),
    bookmark.published,
  ].filter((fact) => fact !== null);
  return known.length ? element("p", { className: "facts" }, ...known.map((fact) => element("span", {}, fact))) : null;
}

// A failure's text is a sentence for people, then the engineer's detail in brackets.
function failure(bookmark) {
  if (bookmark.status !== "failed") return [];
  const [, sentence, detail] = /^(.*?\.) \((.*)\)$/s.exec(bookmark.error ?? "") ?? [null, bookmark.error ?? "It failed.", ""];
  const again = element("button", { type: "button", className: "again" }, "Try again");
  again.setAttribute("aria-label", `Try again: ${bookmark.url}`);
  again.addEventListener("click", async () => {
    if (await save({ url: bookmark.url })) byId("url").focus();
  });
  return [
    element("p", { className: "why" }, sentence),
    detail ? element("p", { className: "detail" }, detail) : null,
    again,
  ];
}

function card(bookmark) {
  const keywords = bookmark.keywords.map((word) => element("li", {}, word));
  return element("article", {},
    element("div", { className: "top" },
      element("h3", {}, link(bookmark.finalUrl ?? bookmark.url, bookmark.title ?? bookmark.url)),
      element("span", { className: `status ${bookmark.status}` }, WORDS[bookmark.status] ?? bookmark.status)),
    bookmark.title === null ? null : element("p", { className: "address" }, bookmark.url),
    bookmark.summary ? element("p", { className: "summary" }, bookmark.summary) : null,
    facts(bookmark),
    keywords.length ? element("ul", { className: "keywords", ariaLabel: "Keywords" }, ...keywords) : null,
    ...failure(bookmark));
}

const isUnfinished = (bookmark) => bookmark.status === "pending" || bookmark.status === "processing";

// The card of a bookmark, the same node as before where nothing changed: focus and selection stay.
function cardOf(bookmark, cards) {
  const text = JSON.stringify(bookmark);
  const before = shown.get(bookmark.id);
  const entry = before?.text === text ? before : { text, bookmark, node: card(bookmark) };
  cards.set(bookmark.id, entry);
  if (bookmark.id === currentId && before && before.bookmark.status !== bookmark.status) announce(bookmark);
  return entry.node;
}

function announce(bookmark) {
  const name = bookmark.title ?? bookmark.url;
  byId("news").textContent = `${WORDS[bookmark.status] ?? bookmark.status}: ${name}`;
}

// Put `nodes` into `parent`, leaving alone those that are in place.
function place(parent, nodes) {
  nodes.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  while (parent.children.length > nodes.length) parent.lastElementChild.remove();
}

function show(latest, current) {
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
  byId("empty").hidden = others.length > 0 || current !== null;
  shown = cards;
  return changed;
}

async function load() {
  const latest = (await ask(`/api/bookmarks?limit=${LISTED}`)).bookmarks;
  const id = currentId;
  const current = id === null ? null
    : latest.find((bookmark) => bookmark.id === id) ?? await ask(`/api/bookmarks/${id}`);
  return { latest, current };
}

// Look now, and again while something is unfinished: soon after a change, ever more seldom without one.
async function look() {
  clearTimeout(timer);
  const turn = ++turns;
  let again = true;
  try {
    const { latest, current } = await load();
    if (turn !== turns) return;   // a later look is under way and knows more
    if (show(latest, current)) waitMs = FIRST_WAIT_MS;
    byId("away").hidden = true;
    again = [...latest, ...(current ? [current] : [])].some(isUnfinished);
  } catch (error) {
    if (turn !== turns) return;
    byId("away").textContent = `${error.message} Trying again.`;
    byId("away").hidden = false;
  }
  if (again && !document.hidden) timer = setTimeout(look, waitMs);
  waitMs = Math.min(waitMs * 1.5, LONGEST_WAIT_MS);
}

function complain(message, field) {
  byId("problem").textContent = message;
  for (const name of ["url", "title"]) byId(name).setAttribute("aria-invalid", String(name === field));
  if (message && ["url", "title"].includes(field)) byId(field).focus();
}

async function save(sent) {
  if (isSaving) return false;
  isSaving = true;
  byId("submit").setAttribute("aria-disabled", "true");   // unlike `disabled` it leaves the focus where it is
  complain("");
  byId("news").textContent = "Saving…";
  try {
    const saved = await ask("/api/bookmarks/quick-save", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(sent),
    });
    currentId = saved.bookmark.id;
    byId("news").textContent = saved.wasDuplicate ? "This page was saved before." : "Saved.";
    waitMs = FIRST_WAIT_MS;
    await look();
    return true;
  } catch (error) {
    byId("news").textContent = "";
    complain(error instanceof Away ? `${error.message} It may not have been saved; try again.` : error.message, error.field);
    return false;
  } finally {
    isSaving = false;
    byId("submit").removeAttribute("aria-disabled");
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

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});

look();
