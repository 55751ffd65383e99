"""Broken markup, as the web has it: each kind of damage takes sound HTML and returns it broken."""

import random
import re


def without_doctype(page: str, rng: random.Random) -> str:
    """No doctype and no html, head or body tags."""
    return re.sub(r"<!DOCTYPE[^>]*>\s*|</?(?:html|head|body)\b[^>]*>\s*", "", page)


def unclosed(page: str, rng: random.Random) -> str:
    """Two in three paragraphs, list items and table cells are never closed."""
    return re.sub(r"</(?:p|li|td|th|tr)>", lambda tag: tag[0] if rng.random() < 0.33 else "", page)


def misnested(page: str, rng: random.Random) -> str:
    """Inline elements that close in the wrong order."""
    page = re.sub(r"<strong>(\w+) (\w+)</strong>", r"<strong>\1 <i>\2</strong></i>", page)
    return re.sub(r"<em>(\w+) (\w+)</em>", r"<em>\1 <u>\2</em></u>", page)


def stray_entities(page: str, rng: random.Random) -> str:
    """Bare ampersands, references without a semicolon, unknown references."""
    ampersands = page.replace("&amp;", "&")
    return re.sub(
        r"</p>",
        lambda tag: rng.choice(("</p>",) * 5 + (" &nbsp</p>", " & </p>", " &bogus; </p>")),
        ampersands,
    )


def stray_ends(page: str, rng: random.Random) -> str:
    """End tags that nothing opened, an attribute without its quote, a tag in upper case."""
    page = re.sub(
        r"<h2>", lambda tag: "</span></font><H2 class=big id=h>" if rng.random() < 0.5 else tag[0], page
    )
    return page.replace("</ul>", "</ul></font>").replace(
        "<blockquote>", '<blockquote class=quote style="x:y;>">', 1
    )


def commented(page: str, rng: random.Random) -> str:
    """Editors' leftovers: conditional comments and Office namespaces."""
    page = page.replace("<h1", "<!--[if lt IE 9]><p>Menuvia</p><![endif]--><o:p></o:p><h1", 1)
    return re.sub(
        r"<p>", lambda tag: "<p class=MsoNormal><o:p></o:p>" if rng.random() < 0.2 else tag[0], page
    )


KINDS = (without_doctype, unclosed, misnested, stray_entities, stray_ends, commented)


def damaged(page: str, rng: random.Random) -> str:
    """The page with one to three kinds of damage."""
    for kind in rng.sample(KINDS, rng.randint(1, 3)):
        page = kind(page, rng)
    return page
