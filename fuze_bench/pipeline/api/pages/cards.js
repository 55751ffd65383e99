// A bookmark as a card. Whatever comes from the server goes into the document as text.

const WORDS = { pending: "Pending", processing: "Processing", processed: "Processed", failed: "Failed" };

export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

export const nameOf = (bookmark) => bookmark.title ?? bookmark.url;
export const wordFor = (status) => WORDS[status] ?? status;

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

function retryButton(bookmark, retry) {
  const button = element("button", { type: "button", className: "again" }, "Try again");
  button.setAttribute("aria-label", `Try again: ${nameOf(bookmark)}`);
  button.addEventListener("click", () => retry(bookmark, button));
  return button;
}

const timeOf = (seconds) => new Date(seconds * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });

// What went wrong: a sentence for people, then the engineer's detail in brackets. Where a text was found before, it is
// but a note that the last look was in vain.
function failure(bookmark, retry) {
  const text = bookmark.error ?? bookmark.note?.error;
  if (!text || bookmark.status === "processing") return [];
  const [, sentence, detail] = /^(.*?\.) \((.*)\)$/s.exec(text) ?? [null, text, ""];
  const isFinal = bookmark.status === "failed";
  const looked = bookmark.error ? "" : `Looked at again in vain, ${timeOf(bookmark.note.at)}: `;
  return [
    element("p", { className: isFinal ? "why" : "" }, looked + sentence),
    detail ? element("p", { className: "detail" }, detail) : null,
    isFinal ? retryButton(bookmark, retry) : null,
    bookmark.retryAt === null ? null : element("p", { className: "detail" }, `To be tried again: ${timeOf(bookmark.retryAt)}`),
  ];
}

// `retry(bookmark, button)` is called when the user wants a failed one tried again.
export function card(bookmark, retry) {
  const keywords = bookmark.keywords.map((word) => element("li", { dir: "auto" }, word));
  return element("article", {},
    element("div", { className: "top" },
      element("h3", { dir: "auto" }, link(bookmark.finalUrl ?? bookmark.url, nameOf(bookmark))),
      element("span", { className: `status ${bookmark.status}` }, wordFor(bookmark.status))),
    bookmark.title === null ? null : element("p", { className: "address" }, bookmark.url),
    bookmark.summary ? element("p", { className: "summary", dir: "auto" }, bookmark.summary) : null,
    facts(bookmark),
    keywords.length ? element("ul", { className: "keywords", ariaLabel: "Keywords" }, ...keywords) : null,
    ...failure(bookmark, retry));
}
