"""HTML pages that need nothing from the network: styles, tables and figures are all inside."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from fuze_bench.lab.report.findings import Finding

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_HEADING_LINKS = re.compile(r'<a class="anchor-link".*?</a>', re.DOTALL)
#: A notebook's page runs no script; what a notebook brings along has no place in it.
_SCRIPTS_AND_STYLES = re.compile(r"<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """One piece of a notebook's page: `kind` is html, png, text, progress or error; `alt` describes a png."""

    kind: str
    text: str
    alt: str = ""


def notebook_page(finding: Finding) -> str:
    """An executed notebook without its code cells; a failure says why it stopped."""
    blocks = [block for cell in finding.node.cells for block in _blocks(cell)]
    return render(
        "notebook.html.j2",
        title=finding.title,
        notebook_file=f"{finding.name}.ipynb",
        failure=finding.failure,
        blocks=blocks,
        policy=policy(),
    )


def policy(script: str = "") -> str:
    """A Content-Security-Policy that lets a page load nothing, and run `script` alone."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"'sha256-{digest}'" if script else "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts};"
        " base-uri 'none'; form-action 'none'"
    )


def template_text(name: str) -> str:
    """A file of this folder as it is."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


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


def render(template: str, **values: object) -> str:
    """A template of this folder with its values."""
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
