"""The page templates: five ways in which sites arrange an article and what surrounds it."""

import html
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Parts:
    """The finished pieces of one page, as markup."""

    title: str
    byline: str
    article: tuple[str, ...]
    menu: str
    cookies: str
    adverts: tuple[str, str]
    sidebar: str
    share: str
    comments: str
    footer: str
    scripts: str


def semantic(parts: Parts) -> str:
    """HTML 5 elements throughout."""
    return f"""<header class="site-header"><nav>{parts.menu}</nav></header>
{parts.cookies}
<main>
<article>
<header><h1>{title(parts)}</h1>{parts.byline}</header>
{body(parts)}
</article>
{parts.share}
{parts.comments}
</main>
<aside>{parts.sidebar}{parts.adverts[1]}</aside>
<footer>{parts.footer}</footer>"""


def main_only(parts: Parts) -> str:
    """A main element, divisions inside."""
    return f"""<div id="header" class="navbar">{parts.menu}</div>
<main id="content" class="content">
<div class="headline"><h1>{title(parts)}</h1></div>
{parts.byline}
<div class="article-body">
{body(parts)}
</div>
</main>
{parts.share}{parts.sidebar}{parts.comments}
<div id="footer" class="footer">{parts.footer}</div>
{parts.cookies}"""


def div_soup(parts: Parts) -> str:
    """A blog engine's nest of divisions."""
    return f"""<div id="wrap"><div class="row"><div class="col-12"><div class="menu navigation">{parts.menu}</div></div></div>
<div class="row"><div class="col-8"><div class="box"><div class="post">
<h1 class="post-title">{title(parts)}</h1><div class="post-meta">{parts.byline}</div>
<div class="post-content entry-content"><div>
{body(parts)}
</div></div></div></div>{parts.share}{parts.comments}</div>
<div class="col-4"><div class="widget">{parts.sidebar}</div><div class="widget">{parts.adverts[1]}</div></div></div>
<div class="row footer">{parts.footer}</div></div>
{parts.cookies}"""


def table_layout(parts: Parts) -> str:
    """The turn of the century: everything in one table."""
    return f"""<table width="100%" border="0" cellpadding="4"><tr><td colspan="2" bgcolor="#336699"><font size="5">{title(parts)}</font></td></tr>
<tr valign="top"><td width="180" class="navigation">{parts.menu}{parts.adverts[1]}</td><td class="main-content">
<div id="content"><h1>{title(parts)}</h1>{parts.byline}
{body(parts)}
</div></td></tr>
<tr><td colspan="2" class="footer">{parts.sidebar}{parts.footer}</td></tr></table>
{parts.cookies}{parts.comments}"""


def bare(parts: Parts) -> str:
    """A hand-written page: no wrapper at all."""
    return f"""<div class="nav">{parts.menu}</div><hr>
<h1>{title(parts)}</h1>
{parts.byline}
{body(parts)}
<hr>
{parts.comments}
<div class="related">{parts.sidebar}</div>
<div class="footer"><address>{parts.footer}</address></div>
{parts.cookies}"""


LAYOUTS: tuple[Callable[[Parts], str], ...] = (
    semantic,
    main_only,
    div_soup,
    semantic,
    div_soup,
    table_layout,
    bare,
)


def title(parts: Parts) -> str:
    """The title as markup."""
    return html.escape(parts.title, quote=False)


def body(parts: Parts) -> str:
    """The article's blocks, with an advert and the scripts in their midst."""
    middle = min(len(parts.article) // 2, 6)
    return "\n".join((*parts.article[:middle], parts.adverts[0], parts.scripts, *parts.article[middle:]))
