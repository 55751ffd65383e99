"""The article of a page: blocks that know both their markup and the plain text that extraction should find."""

import html
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from .code_samples import CODE_TOPICS, SAMPLES, WORDS
from .prose import Prose


@dataclass(frozen=True)
class Block:
    """Markup and its text; a heading or a figure has markup only, as the index lists no text for them."""

    markup: str
    text: str = ""


def paragraph(prose: Prose) -> Block:
    """A paragraph, some of whose words are links, emphasised or bold."""
    text = prose.paragraph()
    markup = html.escape(text, quote=False)
    if prose.language.space and prose.rng.random() < 0.6:
        markup = decorated(markup, prose.rng)
    return Block(f"<p>{markup}</p>", text)


def decorated(markup: str, rng: random.Random) -> str:
    """The same words, with one run of plain words in an inline element."""
    runs = list(re.finditer(r"\w+ \w+", markup))
    if not runs:
        return markup
    run = rng.choice(runs)
    tag = rng.choice(('<a href="/topic/{n}">{}</a>', "<em>{}</em>", "<strong>{}</strong>", "<b>{}</b>"))
    return markup[: run.start()] + tag.format(run[0], n=rng.randint(1, 99)) + markup[run.end() :]


def heading(prose: Prose) -> Block:
    """A section heading."""
    return Block(f"<h2>{html.escape(prose.heading(), quote=False)}</h2>")


def bullet_list(prose: Prose) -> Block:
    """An ordered or unordered list of claims."""
    items = [prose.item() for _ in range(prose.rng.randint(3, 7))]
    tag = prose.rng.choice(("ul", "ol"))
    rows = "\n".join(f"<li>{html.escape(item, quote=False)}</li>" for item in items)
    return Block(f"<{tag}>\n{rows}\n</{tag}>", "\n".join(items))


def data_table(prose: Prose) -> Block:
    """A table of the topic's things by year."""
    years = sorted(prose.rng.sample(range(1990, 2025), 3))
    subjects = prose.rng.sample(prose.topic.subjects, prose.rng.randint(3, len(prose.topic.subjects)))
    rows = [[prose.topic.name, *map(str, years)]]
    rows += [[subject, *(str(prose.rng.randint(10, 9999)) for _ in years)] for subject in subjects]
    cells = ["".join(f"<td>{html.escape(cell, quote=False)}</td>" for cell in row) for row in rows[1:]]
    head = "".join(f"<th>{html.escape(cell, quote=False)}</th>" for cell in rows[0])
    body = "\n".join(f"<tr>{row}</tr>" for row in cells)
    markup = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return Block(markup, "\n".join(" ".join(row) for row in rows))


def code_block(prose: Prose) -> Block:
    """A code block."""
    rng = prose.rng
    code = rng.choice(SAMPLES).format(word=rng.choice(WORDS), n=rng.randint(2, 28), big=rng.randint(64, 4096))
    return Block(f'<pre><code class="highlight">{html.escape(code, quote=False)}</code></pre>', code)


def quotation(prose: Prose) -> Block:
    """A block quotation."""
    text = prose.paragraph(2, 3)
    return Block(f"<blockquote><p>{html.escape(text, quote=False)}</p></blockquote>", text)


def figure(prose: Prose) -> Block:
    """A figure with a caption."""
    number, caption = prose.rng.randint(1, 999), html.escape(prose.heading())
    image = f'<img src="/media/{number}.jpg" alt="{caption}" width="640" height="360" loading="lazy">'
    return Block(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")


def article_blocks(prose: Prose, markup_bytes: int) -> list[Block]:
    """Blocks whose markup comes to about so many bytes of UTF-8; the first two are paragraphs."""
    blocks = [paragraph(prose), paragraph(prose)]
    written = sum(map(size, blocks))
    while written < markup_bytes:
        block = _drawn(prose)
        if size(block) + written > markup_bytes * 1.3:
            break
        blocks += [block, paragraph(prose)]
        written += size(block) + size(blocks[-1])
    return blocks


def size(block: Block) -> int:
    """The bytes of a block's markup in UTF-8."""
    return len(block.markup.encode())


def _drawn(prose: Prose) -> Block:
    makers: list[Callable[[Prose], Block]] = [paragraph] * 8 + [heading] * 3 + [bullet_list, data_table]
    makers += [quotation, figure] + [code_block] * (3 if prose.topic.name in CODE_TOPICS else 0)
    return prose.rng.choice(makers)(prose)
