"""One page of the corpus from its number: what it is about, how large, how encoded, how broken."""

import html
import json
import random
import re
import unicodedata
from dataclasses import dataclass

from . import surroundings
from .article import article_blocks
from .asian_arabic import ARABIC, CHINESE, JAPANESE
from .damage import damaged
from .encodings import Encoding, encoding_of
from .english import ENGLISH
from .german import GERMAN
from .layouts import LAYOUTS, Parts
from .prose import NAMES, Prose
from .romance import FRENCH, ITALIAN, SPANISH
from .slavic_greek import CZECH, GREEK, POLISH, RUSSIAN

SEED = 20260101
PAGES = 232
# Of 29 consecutive pages: 13 English, the others two or one each.
_ROTATION = "en de en fr en es en pl en ru en ja en zh en ar en el de en fr en es it en cs pl en ru".split()
_LANGUAGES = {
    language.code: language
    for language in (
        ENGLISH,
        GERMAN,
        FRENCH,
        SPANISH,
        ITALIAN,
        POLISH,
        CZECH,
        RUSSIAN,
        GREEK,
        JAPANESE,
        CHINESE,
        ARABIC,
    )
}
_LARGE_BYTES = {17: 296_000, 48: 205_000, 89: 240_000, 131: 222_000, 176: 268_000, 211: 210_000}
_SMALL_BYTES = {5: 2_200, 66: 2_700, 120: 3_400, 158: 4_200, 199: 5_200}
_SITES = ("Harbour Gazette", "Nordlicht", "Fieldnotes", "Le Carnet", "Plaza", "Codex", "Meridian")


@dataclass(frozen=True)
class MadePage:
    """A page's file name, its bytes and its entry in the index."""

    file: str
    body: bytes
    entry: dict[str, str | None]


@dataclass(frozen=True)
class _Draft:
    """What is settled about a page before its surroundings are drawn; the size is in UTF-8 bytes."""

    number: int
    title: str
    date: str | None
    encoding: Encoding
    target_bytes: int
    article: tuple[str, ...]


def make_page(number: int) -> MadePage:
    """Page `number`, from 0; the same number always gives the same bytes."""
    rng = random.Random(f"{SEED}/{number}")
    code = _ROTATION[number % len(_ROTATION)]
    language = _LANGUAGES[code]
    earlier = _ordinal(number)
    prose = Prose(language, language.topics[earlier % len(language.topics)], rng)
    encoding = encoding_of(earlier, code)
    date = (
        f"{rng.randint(2004, 2024)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
        if rng.random() < 0.8
        else None
    )
    title = prose.title()
    target_bytes = _target_bytes(number, rng) // (2 if encoding.codec == "utf-16" else 1)
    blocks = article_blocks(prose, int(target_bytes * rng.uniform(0.25, 0.45)))
    page = _Draft(number, title, date, encoding, target_bytes, tuple(block.markup for block in blocks))
    markup = _sound_page(page, prose)
    if number % 5 == 3:
        markup = damaged(markup, rng)
    text = "\n".join(block.text for block in blocks if block.text)
    file = f"pages/{number:03d}-{_slug(title, code)}.html"
    entry = {"file": file, "title": title, "language": code, "charset": encoding.codec}
    entry |= {"content_type": encoding.content_type, "date": date, "text": text}
    return MadePage(file, encoding.encoded(markup), entry)


def _ordinal(number: int) -> int:
    """How many earlier pages are in the same language."""
    code = _ROTATION[number % len(_ROTATION)]
    return sum(_ROTATION[earlier % len(_ROTATION)] == code for earlier in range(number))


def _target_bytes(number: int, rng: random.Random) -> int:
    """The size that the page should come to: log-normal about a median of 20 KB, with a few very large and small."""
    fixed = _LARGE_BYTES.get(number) or _SMALL_BYTES.get(number)
    return fixed or round(min(max(rng.lognormvariate(3.0, 0.6), 6), 150)) * 1000


def _sound_page(page: _Draft, prose: Prose) -> str:
    """The whole page as sound HTML, filled up to its target size with scripts, styles and pictures."""
    rng = prose.rng
    site = rng.choice(_SITES)
    small = page.number in _SMALL_BYTES
    parts = {
        "menu": surroundings.menu(prose, 0 if small else rng.choice((0, 0, 8, 30))),
        "cookies": surroundings.cookie_banner(prose),
        "sidebar": "" if small else surroundings.sidebar(prose),
        "share": surroundings.share_buttons(prose),
        "comments": surroundings.comments(prose) if not small and rng.random() < 0.35 else "",
        "footer": surroundings.footer(prose, site),
        "byline": _byline(rng, page.date),
    }
    adverts = (surroundings.advert(prose), "" if small else surroundings.advert(prose))
    written = sum(len(part.encode()) for part in (*parts.values(), *adverts, *page.article)) + 1000
    head, scripts = _fillers(rng, page.target_bytes - written)
    layout = LAYOUTS[page.number % len(LAYOUTS)]
    built = layout(Parts(title=page.title, article=page.article, adverts=adverts, scripts=scripts, **parts))
    return f"""<!DOCTYPE html>
<html lang="{prose.language.code}"{' dir="rtl"' if prose.language.code == "ar" else ""}>
<head>
{_head(page, site, prose)}
{head}
</head>
<body class="page-{page.number}">
{built}
</body>
</html>
"""


def _fillers(rng: random.Random, missing_bytes: int) -> tuple[str, str]:
    """Markup without words for the head and for the article's midst, of about so many bytes together."""
    if missing_bytes < 1200:
        return "", "<script>track('view');</script>"
    styled = int(missing_bytes * rng.uniform(0.2, 0.5))
    rest = missing_bytes - styled
    filler = rng.choice((surroundings.state_script, surroundings.drawing, surroundings.embedded_image))
    return surroundings.style_sheet(rng, styled // 95), filler(rng, min(rest, 60_000)) + (
        surroundings.state_script(rng, rest - 60_000) if rest > 60_000 else ""
    )


def _byline(rng: random.Random, date: str | None) -> str:
    author = rng.choice(NAMES)
    stamp = f' <time datetime="{date}">{date}</time>' if date else ""
    return f'<p class="byline author-info"><span class="author">{author}</span>{stamp}</p>'


def _head(page: _Draft, site: str, prose: Prose) -> str:
    """The meta elements: the encoding first if it is declared, Open Graph and JSON-LD on some pages."""
    rng, title, date = prose.rng, page.title, page.date
    lines = []
    if page.encoding.in_meta:
        long = f'<meta http-equiv="Content-Type" content="text/html; charset={page.encoding.label}">'
        lines.append(rng.choice((f'<meta charset="{page.encoding.label}">', long)))
    lines.append(f"<title>{html.escape(title, quote=False)} | {site}</title>")
    if rng.random() < 0.6:
        lines.append(f'<meta property="og:title" content="{html.escape(title)}">')
        lines.append(
            f'<meta property="og:site_name" content="{site}"><meta property="og:type" content="article">'
        )
        lines.append(f'<meta name="description" content="{html.escape(prose.sentence())}">')
        if date:
            lines.append(f'<meta property="article:published_time" content="{date}T08:30:00+00:00">')
    if rng.random() < 0.4:
        data = {"@context": "https://schema.org", "@type": "NewsArticle", "headline": title}
        data |= {"datePublished": date} if date else {}
        lines.append(f'<script type="application/ld+json">{json.dumps(data)}</script>')
    return "\n".join(lines)


def _slug(title: str, code: str) -> str:
    """A file name's words in ASCII; a title without Latin letters gives its language."""
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z]+", ascii_title)[:5]
    return "-".join([code, *words])
