"""Pages, some of them short, that take a parser or an extractor minutes or gigabytes: body by name."""

from __future__ import annotations


def _in_body(markup: str) -> bytes:
    return f"<html><head><meta charset='utf-8'><title>T</title></head><body>{markup}".encode()


def _in_head(markup: str) -> bytes:
    return f"<html><head><title>T</title>{markup}</head><body><p>Some words that can be read.".encode()


#: Read in full they take much longer than any of the tests allows.
ENDLESS: dict[str, bytes] = {
    "nested-tables": _in_body("<table><tr><td>x" * 6_000),
    "attributes": _in_body("<p " + " ".join(f"a{n}" for n in range(200_000)) + ">x"),
    "links-in-links": _in_body("<p>" + "<a href=x><div>hi " * 20_000),
    "spans": _in_body("<table>" + "<tr><td rowspan=50 colspan=50>x</td></tr>" * 10_000),
    "authors": _in_head(
        '<script type="application/ld+json">{"@context":"http://schema.org","@type":"Article","author":['
        + ",".join(f'{{"@type":"Person","name":"A B{n}"}}' for n in range(30_000))
        + "]}</script>"
    ),
    "keys-without-end": _in_head('<script type="application/ld+json">' + '"author":' * 50_000 + "</script>"),
}

#: What they hold is found, or not, within the limits.
HEAVY: dict[str, bytes] = {
    "accents": _in_body("<p>Some words that can be read: a" + "\u0301\u0323" * 120_000),
    "levels": _in_body("<div>" * 2_000 + "<p>Some words that can be read.</p>"),
    "elements": _in_body("<p>Some words that can be read.</p>" * 100_000),
    "characters": _in_body("<p>" + "Some words that can be read. " * 100_000),
    "quoted": _in_body(
        "<p a='>' " + " ".join(f"a{n}" for n in range(2_000)) + ">Some words that can be read."
    ),
    "cells": _in_body("<table>" + "<tr><td rowspan=40>x<td>Some words that can be read." * 30),
    "names": _in_head("<meta name=author content='" + "A B, " * 3_000 + "'>"),
    "tables": _in_body("<table><tr><td>Some words that can be read." * 8),
}

#: Within the size that is fetched, and a gigabyte when it is parsed.
BIG_TREE = _in_body("<a b=c>" * 1_400_000)
