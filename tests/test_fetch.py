"""Fetching from a real site that means ill: reasons, limits, redirects, memory."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import ProcessingError, Reason
from fuze_bench.pipeline.fetch import Fetcher
from fuze_bench.pipeline.settings import Settings

PAGE = b"<html><body><p>A page.</p></body></html>"


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    opened = Fetcher(Settings(fetch_allow=("127.0.0.1",), fetch_total_s=1.0, fetch_idle_s=0.6))
    yield opened
    opened.close()


def failure(fetcher: Fetcher, url: str) -> ProcessingError:
    with pytest.raises(ProcessingError) as caught:
        fetcher.fetch(url)
    return caught.value


def test_a_page_comes_with_its_headers_word(fetcher: Fetcher, origin: Origin) -> None:
    origin.put("/put/p", PAGE, content_type="text/html; charset=koi8-r")
    page = fetcher.fetch(f"{origin.url}/put/p")
    assert (page.body, page.content_type, page.http_status) == (PAGE, "text/html; charset=koi8-r", 200)


@pytest.mark.parametrize(
    ("path", "reason", "status"),
    [
        ("/status/404", Reason.NOT_FOUND, 404),
        ("/status/410", Reason.NOT_FOUND, 410),
        ("/status/401", Reason.UNAUTHORIZED, 401),
        ("/status/403", Reason.FORBIDDEN, 403),
        ("/status/408", Reason.TIMED_OUT, 408),
        ("/status/418", Reason.HTTP_ERROR, 418),
        ("/status/429", Reason.RATE_LIMITED, 429),
        ("/status/503", Reason.SERVER_ERROR, 503),
        ("/hostile/empty", Reason.EMPTY_PAGE, 200),
        ("/hostile/blank", Reason.EMPTY_PAGE, 200),
        ("/hostile/binary", Reason.NOT_HTML, 200),
        ("/hostile/pdf", Reason.NOT_HTML, 200),
        ("/hostile/misdeclared", Reason.NOT_HTML, 200),
        ("/hostile/bomb", Reason.TOO_LARGE, 200),
        ("/hostile/huge", Reason.TOO_LARGE, 200),
        ("/redirect-loop", Reason.TOO_MANY_REDIRECTS, 302),
    ],
)
def test_why_a_page_cannot_be_had(
    fetcher: Fetcher, origin: Origin, path: str, reason: Reason, status: int
) -> None:
    error = failure(fetcher, origin.url + path)
    assert (error.reason, error.http_status) == (reason, status)


def test_what_was_found_is_said(fetcher: Fetcher, origin: Origin) -> None:
    assert failure(fetcher, f"{origin.url}/hostile/pdf").detail == "application/pdf"
    assert (
        failure(fetcher, f"{origin.url}/hostile/bomb").detail == "more than 10,485,760 bytes after unpacking"
    )


@pytest.mark.parametrize("name", ["drip-body", "drip-headers", "many-continues"])
def test_a_trickle_ends_at_the_total_limit(fetcher: Fetcher, origin: Origin, name: str) -> None:
    start = time.monotonic()
    assert failure(fetcher, f"{origin.url}/hostile/{name}").reason is Reason.TIMED_OUT
    assert 0.9 < time.monotonic() - start < 3


def test_a_silent_site_ends_at_the_idle_limit(origin: Origin) -> None:
    patient = Fetcher(Settings(fetch_allow=("127.0.0.1",), fetch_total_s=10.0, fetch_idle_s=0.6))
    start = time.monotonic()
    assert failure(patient, f"{origin.url}/hostile/hang").reason is Reason.TIMED_OUT
    assert 0.5 < time.monotonic() - start < 9.0
    patient.close()


def test_an_endless_body_ends(fetcher: Fetcher, origin: Origin) -> None:
    assert failure(fetcher, f"{origin.url}/hostile/endless").reason in (Reason.TOO_LARGE, Reason.TIMED_OUT)


@pytest.mark.parametrize("name", ["reset", "short", "many-headers", "long-header", "long-chunk-line"])
def test_a_broken_answer_is_one(fetcher: Fetcher, origin: Origin, name: str) -> None:
    assert failure(fetcher, f"{origin.url}/hostile/{name}").reason is Reason.BROKEN_ANSWER


def test_an_error_of_ours_does_not_show_in_the_sentence(fetcher: Fetcher) -> None:
    refused = failure(fetcher, "http://127.0.0.1:1/")
    unknown = failure(fetcher, "http://nosuch.invalid/")
    assert refused.reason is unknown.reason is Reason.CONNECTION_FAILED
    assert "Watched" not in f"{refused}{unknown}"
    assert "refused" in str(refused)


def test_after_a_failure_the_next_page_is_fetched(fetcher: Fetcher, origin: Origin) -> None:
    origin.put("/put/p", PAGE)
    for name in ("reset", "short", "drip-body", "huge"):
        failure(fetcher, f"{origin.url}/hostile/{name}")
        assert fetcher.fetch(f"{origin.url}/put/p").body == PAGE


def test_five_hops_are_followed_and_six_are_not(fetcher: Fetcher, origin: Origin) -> None:
    assert fetcher.fetch(f"{origin.url}/redirect/5").final_url != f"{origin.url}/redirect/5"
    assert failure(fetcher, f"{origin.url}/redirect/6").reason is Reason.TOO_MANY_REDIRECTS


def test_every_kind_of_redirect_is_followed(fetcher: Fetcher, origin: Origin) -> None:
    for n, status in enumerate((301, 302, 303, 307, 308)):
        origin.put(f"/put/{n}", b"", headers={"Location": f"/put/{n + 1}"}, status=status)
    origin.put("/put/5", PAGE)
    assert fetcher.fetch(f"{origin.url}/put/0").final_url == f"{origin.url}/put/5"


def test_a_redirect_in_utf_8_is_read_as_browsers_do(fetcher: Fetcher, origin: Origin) -> None:
    origin.put("/put/umlaut", b"", headers={"Location": "/put/caf\u00c3\u00a9"}, status=302)
    assert failure(fetcher, f"{origin.url}/put/umlaut").reason is Reason.NOT_FOUND
    assert origin.hits("/put/caf%C3%A9") == 1


def test_a_connection_that_comes_after_the_end_is_not_read(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name takes longer to be found than the whole fetch may: then a trickling page is not begun with."""
    real = socket.getaddrinfo

    def slow(*args: object, **kwargs: object) -> object:
        time.sleep(0.8)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    start = time.monotonic()
    error = failure(
        Fetcher(Settings(fetch_allow=("127.0.0.1",), fetch_total_s=0.5, fetch_idle_s=5)),
        f"{origin.url}/hostile/drip-body",
    )
    assert error.reason is Reason.TIMED_OUT
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "location", ["http://user:pass@{}/page/1", "//user@{}/page/1", "http://user:pass@[{}/"]
)
def test_a_redirect_with_a_password_is_refused(fetcher: Fetcher, origin: Origin, location: str) -> None:
    """As is an address with one that somebody saves: it would be sent along, and kept for everybody to see."""
    origin.put(
        "/put/login", b"", status=302, headers={"Location": location.format(origin.url.partition("//")[2])}
    )
    error = failure(fetcher, f"{origin.url}/put/login")
    assert error.reason is Reason.BAD_REDIRECT
    assert "user" not in error.detail.replace("user name", "")
    assert origin.hits("/page/1") == 0


def test_a_redirect_out_of_the_web_is_refused(fetcher: Fetcher, origin: Origin) -> None:
    origin.put("/put/out", b"", headers={"Location": "file:///etc/passwd"}, status=302)
    assert failure(fetcher, f"{origin.url}/put/out").reason is Reason.BAD_REDIRECT


def test_a_page_without_a_type_is_looked_at(fetcher: Fetcher, origin: Origin) -> None:
    origin.put("/put/page", PAGE, content_type="")
    origin.put("/put/text", b"just words", content_type="")
    assert fetcher.fetch(f"{origin.url}/put/page").body == PAGE
    assert failure(fetcher, f"{origin.url}/put/text").reason is Reason.NOT_HTML


def test_utf_16_is_text(fetcher: Fetcher, origin: Origin) -> None:
    origin.put("/put/p", "<p>Ωmega</p>".encode("utf-16"), content_type="text/html")
    assert fetcher.fetch(f"{origin.url}/put/p").body.startswith(b"\xff\xfe")


def test_hostile_pages_leave_memory_bounded(origin: Origin) -> None:
    """In a process of its own, because the origin lives in this one: each may add 64 MiB at the most."""
    code = """if True:
        import resource, sys
        from fuze_bench.pipeline.bookmarks import ProcessingError
        from fuze_bench.pipeline.fetch import Fetcher
        from fuze_bench.pipeline.settings import Settings
        fetcher = Fetcher(Settings(fetch_allow=("127.0.0.1",), fetch_total_s=5))
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fetcher.fetch(sys.argv[1] + "/page/0")
        before = peak()
        for name in ("bomb", "huge", "many-headers", "long-header", "long-chunk-line", "endless"):
            try:
                fetcher.fetch(f"{sys.argv[1]}/hostile/{name}")
            except ProcessingError as error:
                print(name, error.reason)
        print(peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, origin.url], capture_output=True, text=True, check=True
    )
    *reasons, growth_kib = done.stdout.splitlines()
    assert reasons[:2] == ["bomb too_large", "huge too_large"]
    assert [each.split()[1] for each in reasons[2:5]] == ["broken_answer"] * 3
    assert len(reasons) == 6
    assert int(growth_kib) < 64 * 1024
