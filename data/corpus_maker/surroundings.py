"""What a site puts around an article: menus, banners, adverts, sidebars, comments, scripts and styles.

Every kind carries a marker word that occurs in no article, so that a test can see what an extractor let through.
"""

import html
import json
import random

from .prose import NAMES, Prose

MARKERS = {"menu": "Menuvia", "cookies": "Cookitron", "advert": "Adzorro", "sidebar": "Relatix"}
MARKERS |= {"share": "Sharelia", "footer": "Footelia"}


def menu(prose: Prose, entries: int) -> str:
    """The site's navigation: its main sections and as many further links as a mega menu asks for."""
    words = prose.language.site.menu
    names = [*words, *(prose.rng.choice(words) for _ in range(entries))]
    links = "".join(
        f'<li><a href="/s/{number}">{html.escape(name)}</a></li>\n' for number, name in enumerate(names)
    )
    return f'<ul class="nav-menu">\n{links}<li><a href="/menuvia">{MARKERS["menu"]}</a></li></ul>'


def cookie_banner(prose: Prose) -> str:
    """The consent dialogue."""
    words = html.escape(prose.language.site.cookies)
    return (
        f'<div id="cookie-consent" class="cookie-banner" role="dialog"><p>{words} {MARKERS["cookies"]}</p>'
        '<button type="button">OK</button> <button type="button">…</button></div>'
    )


def advert(prose: Prose) -> str:
    """An advertisement box."""
    words = html.escape(prose.language.site.advert)
    return f'<div class="advertisement ad-slot" data-slot="{prose.rng.randint(1, 9999)}"><a href="/ad">{words} {MARKERS["advert"]}</a></div>'


def sidebar(prose: Prose) -> str:
    """Links to related articles."""
    title = html.escape(prose.language.site.related)
    links = "".join(
        f'<li><a href="/a/{prose.rng.randint(100, 999)}">{html.escape(prose.title())} {MARKERS["sidebar"]}</a></li>\n'
        for _ in range(prose.rng.randint(4, 8))
    )
    return f'<div class="sidebar related-links"><h3>{title}</h3>\n<ul>\n{links}</ul></div>'


def share_buttons(prose: Prose) -> str:
    """Buttons for social networks."""
    words = html.escape(prose.language.site.share)
    links = "".join(
        f'<a class="btn" href="/share/{name}">{name}</a> ' for name in ("Mastodon", "Facebook", "X")
    )
    return f'<div class="share-buttons social"><span>{words} {MARKERS["share"]}</span> {links}</div>'


def comments(prose: Prose) -> str:
    """A comments section of three to twelve voices."""
    voices = "".join(
        f'<li class="comment"><cite>{prose.rng.choice(NAMES)}</cite> <p>{html.escape(prose.sentence())}</p></li>\n'
        for _ in range(prose.rng.randint(3, 12))
    )
    title = html.escape(prose.language.site.comments)
    return f'<section id="comments" class="comments-area"><h3>{title}</h3>\n<ol class="commentlist">\n{voices}</ol></section>'


def footer(prose: Prose, site: str) -> str:
    """The imprint."""
    words = html.escape(prose.language.site.rights)
    return f'<p class="copyright">© {prose.rng.randint(2015, 2024)} {site}. {words} {MARKERS["footer"]}</p>'


def style_sheet(rng: random.Random, rules: int) -> str:
    """An inline style sheet of so many rules, each about 90 bytes."""
    lines = [
        f".c{rng.randrange(16**5):05x} > .w{number}{{margin:{rng.randint(0, 40)}px auto;color:#{rng.randrange(16**6):06x};"
        f"max-width:{rng.randint(320, 1400)}px;flex:{rng.randint(0, 3)} 1 auto}}"
        for number in range(rules)
    ]
    return "<style>\nbody{font:16px/1.5 sans-serif}\n" + "\n".join(lines) + "\n</style>"


def state_script(rng: random.Random, size_bytes: int) -> str:
    """An inline script with about so many bytes of application state."""
    entries: list[dict[str, object]] = []
    written = 0
    while written < size_bytes:
        entry = {
            "id": f"{rng.randrange(16**16):016x}",
            "score": rng.randint(0, 10**6),
            "seen": rng.random() < 0.5,
        }
        entry["tags"] = [f"t{rng.randrange(999)}" for _ in range(rng.randint(1, 6))]
        entries.append(entry)
        written += len(json.dumps(entry)) + 2
    state = json.dumps({"entries": entries})
    return f"<script>\nwindow.__STATE__ = {state};\nif (window.top !== window && 1 < 2) {{ track('<b>view</b>'); }}\n</script>"


def drawing(rng: random.Random, size_bytes: int) -> str:
    """An inline SVG picture whose path takes about so many bytes."""
    steps = " ".join(f"l{rng.randint(-99, 99)} {rng.randint(-99, 99)}" for _ in range(size_bytes // 8))
    return f'<svg class="icon" viewBox="0 0 640 480" aria-hidden="true"><path d="M320 240 {steps}z"/></svg>'


def embedded_image(rng: random.Random, size_bytes: int) -> str:
    """An image in a data URI of about so many bytes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    data = "".join(rng.choices(alphabet, k=size_bytes // 4 * 4))
    return f'<img class="hero" alt="" src="data:image/jpeg;base64,{data}">'
