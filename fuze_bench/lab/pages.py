"""HTML pages that need nothing from the network: styles, tables and figures are all inside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from fuze_bench.lab import tables
from fuze_bench.lab.checks import Conclusion

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_HEADING_LINKS = re.compile(r'<a class="anchor-link".*?</a>', re.DOTALL)
#: The pages carry no script; what a notebook brings along must not, either.
_SCRIPTS_AND_STYLES = re.compile(r"<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """One piece of a notebook's page: `kind` is html, png, text, progress or error; `alt` describes a png."""

    kind: str
    text: str
    alt: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the index says of one notebook; links are relative to the index."""

    name: str
    title: str
    page: str
    notebook_file: str
    failure: str | None = None
    answer: Conclusion | None = None
    plot: str = ""
    plot_description: str = ""
    table: str = ""
    facts: str = ""
    versions: str = ""
    data_files: list[tuple[str, str]] = field(default_factory=list)


def notebook_page(node: Any, *, notebook_file: str, failure: str | None) -> str:
    """An executed notebook without its code cells; `failure` says why it stopped, if it did."""
    blocks = [block for cell in node.cells for block in _blocks(cell)]
    return _render(
        "notebook.html.j2", title=title_of(node), notebook_file=notebook_file, failure=failure, blocks=blocks
    )


def index_page(sections: list[Section], *, title: str, written_at: str) -> str:
    """The report's first page: for each notebook the answer first, then how it was come by."""
    return _render("index.html.j2", title=title, sections=sections, written_at=written_at)


def title_of(node: Any) -> str:
    """The notebook's first heading."""
    for cell in node.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return str(cell.source.splitlines()[0].removeprefix("# "))
    return "Notebook"


def figures_table(table: pd.DataFrame) -> str:
    """A table of figures that scrolls inside its own box."""
    return _boxed(tables.show(table).to_html())


def facts_table(facts: Mapping[str, object]) -> str:
    """Names and values."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return _boxed(f'<table class="facts">{rows}</table>')


def _boxed(html: str) -> str:
    """Every table in a box that scrolls, which the keyboard can reach."""
    boxed = '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table'
    plain = _SCRIPTS_AND_STYLES.sub("", html)
    return plain.replace("<table", boxed).replace("</table>", "</table></div>")


def _render(template: str, **values: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and ".html" in name,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _blocks(cell: Any) -> list[Block]:
    if cell.cell_type == "markdown":
        html = _HEADING_LINKS.sub("", str(markdown2html_mistune(cell.source)))
        return [Block("html", _boxed(html))]
    if cell.cell_type != "code":
        return []
    return _joined([block for output in cell.outputs if (block := _block(output)) is not None])


def _joined(blocks: list[Block]) -> list[Block]:
    """Text that was printed bit by bit as one block."""
    result: list[Block] = []
    for block in blocks:
        if result and block.kind == result[-1].kind and block.kind in ("progress", "text"):
            result[-1] = Block(block.kind, result[-1].text + block.text)
        else:
            result.append(block)
    return result


def _block(output: Any) -> Block | None:
    if output.output_type == "stream":
        kind = "progress" if output.name == "stdout" else "text"
        return Block(kind, _TERMINAL_COLOURS.sub("", output.text))
    if output.output_type == "error":
        return Block("error", f"{output.ename}: {output.evalue}")
    data = output.data
    if "image/png" in data:
        return Block("png", data["image/png"].replace("\n", ""), data.get("text/plain", ""))
    if "text/html" in data:
        return Block("html", _boxed(data["text/html"]))
    return Block("text", data["text/plain"]) if "text/plain" in data else None
