"""Title and date: what a page says of itself first, nothing from its programs, and a job's time is the job's."""

from __future__ import annotations

import pytest
from rq.timeouts import JobTimeoutException
from trafilatura import metadata

from fuze_bench.pipeline.extract import Extracted, extract

WORDS = "Here is enough to read for anybody who wants to know what this page is about. " * 5


def read(head: str, body: str = "", url: str = "https://example.org/page") -> Extracted:
    page = f"<html><head>{head}</head><body><article><h1>Headline</h1><p>{WORDS}</p>{body}</article></body></html>"
    return extract(page.encode(), "text/html; charset=utf-8", url)


@pytest.mark.parametrize(
    ("head", "title"),
    [
        ("<meta property='og:title' content='Tea &amp;amp; cake'>", "Tea & cake"),
        (
            '<script type="application/ld+json">{"@context": "https://schema.org", "@type": "NewsArticle", "headline": "As JSON"}</script>',
            "As JSON",
        ),
        ('<script type="application/ld+json">{"headline": [}</script>', "Headline"),
        ("<title>Site: page</title>", "Headline"),
    ],
)
def test_titles(head: str, title: str) -> None:
    assert read(head).title == title


@pytest.mark.parametrize(
    ("head", "body", "url", "published"),
    [
        ("", "", "https://example.org/2021/03/04/page", "2021-03-04"),
        (
            "<link rel='canonical' href='/2020/05/06/page'><meta property='article:published_time' content='2020-06-07'>",
            "",
            "https://example.org/p",
            "2020-05-06",
        ),
        ("", "<time datetime='2019-07-08'>last summer</time>", "https://example.org/p", "2019-07-08"),
        ("", "<p>Published on 9 March 2018.</p>", "https://example.org/p", "2018-03-09"),
        ("<script>var built = '2017-02-03';</script>", "", "https://example.org/p", None),
        ("<style>.a { width: 2017-02-03 }</style>", "", "https://example.org/p", None),
        ("", "<img src='data:image/png;base64,/2017/02/03/'>", "https://example.org/p", None),
    ],
)
def test_dates(head: str, body: str, url: str, published: str | None) -> None:
    assert read(head, body, url).published == published


def test_a_job_that_runs_out_of_time_is_not_a_page_with_odd_json(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(_tree: object, _said: object) -> None:
        raise JobTimeoutException("too long")

    monkeypatch.setattr(metadata, "extract_meta_json", late)
    with pytest.raises(JobTimeoutException):
        read("")
