"""URL → bytes, safely: sizes, redirects and time are bounded, whatever the other side sends."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass

import ada_url
import requests
import urllib3.exceptions
from requests.cookies import RequestsCookieJar

from fuze_bench.errors import one_line
from fuze_bench.pipeline.addresses import AddressPolicy
from fuze_bench.pipeline.bookmarks import ProcessingError, Reason
from fuze_bench.pipeline.connections import Gate, WatchedAdapter, fetching
from fuze_bench.pipeline.deadlines import Deadline, Watchdog
from fuze_bench.pipeline.retries import parse_retry_after
from fuze_bench.pipeline.settings import Settings

_WEB = ("http:", "https:")
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 64 * 1024
#: Bytes that are looked at to tell a page from a picture that is declared as one.
_SNIFFED_BYTES = 4096
_REASON_OF_STATUS = {
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    408: Reason.TIMED_OUT,
    410: Reason.NOT_FOUND,
    429: Reason.RATE_LIMITED,
}
_MARKUP = re.compile(rb"^\s*(?:\xef\xbb\xbf)?\s*<")
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


@dataclass(frozen=True)
class FetchedPage:
    """An answer that is a web page: its body (decompressed) and what the headers say of it."""

    final_url: str
    http_status: int
    content_type: str
    body: bytes


class Fetcher:
    """Fetches pages over connections that are kept and shared by threads. `close` lets them go."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watchdog = Watchdog()
        self._gate = Gate(AddressPolicy(settings.fetch_allow))
        self._adapter = WatchedAdapter(pool_maxsize=settings.fetch_threads)

    def fetch(self, url: str) -> FetchedPage:
        """The page behind `url`. Raises ProcessingError with the reason why it cannot be had."""
        deadline = self._watchdog.limit(self._settings.fetch_total_s)
        try:
            with fetching(deadline, self._gate):
                return self._follow(_first_hop(url), deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._translated(error, deadline) from error
        finally:
            deadline.done()

    def close(self) -> None:
        self._adapter.close()

    def _follow(self, url: str, deadline: Deadline) -> FetchedPage:
        cookies = RequestsCookieJar()  # kept from hop to hop, never from page to page
        for _ in range(self._settings.fetch_max_redirects + 1):
            response = self._send(url, cookies, deadline)
            with response:
                cookies.update(response.cookies)
                location = response.headers.get("Location")
                if response.status_code not in _REDIRECTS or not location:
                    return self._read(url, response, deadline)
            url = _next_hop(url, location)
        raise ProcessingError(
            Reason.TOO_MANY_REDIRECTS,
            f"more than {self._settings.fetch_max_redirects}",
            http_status=response.status_code,
        )

    def _send(self, url: str, cookies: RequestsCookieJar, deadline: Deadline) -> requests.Response:
        headers = {
            "User-Agent": self._settings.user_agent,
            "Accept": "text/html, application/xhtml+xml;q=0.9, */*;q=0.1",
            # Only what urllib3 unpacks piece by piece, so that a bomb is noticed before it is unpacked.
            "Accept-Encoding": "gzip, deflate",
        }
        try:
            request = requests.Request("GET", url, headers=headers, cookies=cookies).prepare()
        except requests.RequestException as error:
            raise ProcessingError(
                Reason.CONNECTION_FAILED, f"{url[:200]!r} cannot be asked for: {error}"
            ) from None
        idle_s = min(self._settings.fetch_idle_s, deadline.remaining_s())
        response = self._adapter.send(request, stream=True, timeout=(idle_s, idle_s))
        requests.cookies.extract_cookies_to_jar(response.cookies, request, response.raw)  # type: ignore[no-untyped-call]
        return response

    def _read(self, url: str, response: requests.Response, deadline: Deadline) -> FetchedPage:
        status = response.status_code
        if not 200 <= status < 300:
            after_s = (
                parse_retry_after(response.headers.get("Retry-After"), time.time())
                if status in (429, 503)
                else None
            )
            raise ProcessingError(
                _reason_of(status), f"HTTP {status}", http_status=status, retry_after_s=after_s
            )
        content_type = response.headers.get("Content-Type", "")
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type and media_type not in _HTML_TYPES:
            raise ProcessingError(Reason.NOT_HTML, media_type[:100], http_status=status)
        body = self._body(response)
        if deadline.expired:
            raise self._timed_out()
        if not body.strip():
            raise ProcessingError(Reason.EMPTY_PAGE, f"{len(body)} bytes", http_status=status)
        if not _looks_like_text(body, content_type) or (not media_type and not _MARKUP.match(body)):
            raise ProcessingError(
                Reason.NOT_HTML,
                f"{media_type or 'no type'}, but the content is not a page",
                http_status=status,
            )
        return FetchedPage(final_url=url, http_status=status, content_type=content_type, body=body)

    def _body(self, response: requests.Response) -> bytes:
        limit, size, chunks = self._settings.fetch_max_bytes, 0, []
        declared = response.headers.get("Content-Length", "")
        if declared.isdigit() and len(declared) < 20 and int(declared) > limit:
            raise ProcessingError(
                Reason.TOO_LARGE, f"{int(declared):,} bytes", http_status=response.status_code
            )
        for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=True):
            size += len(chunk)
            if size > limit:
                detail = f"more than {limit:,} bytes" + (
                    " after unpacking" if response.headers.get("Content-Encoding") else ""
                )
                raise ProcessingError(Reason.TOO_LARGE, detail, http_status=response.status_code)
            chunks.append(chunk)
        return b"".join(chunks)

    def _timed_out(self) -> ProcessingError:
        return ProcessingError(Reason.TIMED_OUT, f"longer than {self._settings.fetch_total_s:g} s in all")

    def _translated(self, error: Exception, deadline: Deadline) -> ProcessingError:
        # urllib3 wraps the cause and names our classes in front of it.
        inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
        cause = getattr(inner, "reason", None) or inner
        detail = re.sub(r"^_?\w+\([^)]*\): ", "", one_line(cause))[:300]
        if deadline.expired:
            return self._timed_out()
        if isinstance(error, requests.exceptions.SSLError | urllib3.exceptions.SSLError):
            return ProcessingError(Reason.TLS_FAILED, detail)
        if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
            return ProcessingError(Reason.TIMED_OUT, f"silent for {self._settings.fetch_idle_s:g} s")
        # ProtocolError is also what a connection cut before the first header looks like: there was a server.
        if isinstance(inner, urllib3.exceptions.ProtocolError | urllib3.exceptions.DecodeError):
            return ProcessingError(Reason.BROKEN_ANSWER, detail)
        return ProcessingError(Reason.CONNECTION_FAILED, detail)


def _first_hop(url: str) -> str:
    """The URL as browsers read it, so that every way to write a host is one way from here on."""
    try:
        target = ada_url.URL(url)
    except ValueError:
        raise ProcessingError(Reason.ADDRESS_REFUSED, f"{url[:200]!r} is not a URL") from None
    if target.protocol not in _WEB:
        raise ProcessingError(Reason.ADDRESS_REFUSED, f"a {target.protocol[:20]} address")
    return str(target.href)


def _next_hop(url: str, location: str) -> str:
    # Headers come as Latin-1; sites send UTF-8, and browsers read it so. What is neither is what it looks like.
    with contextlib.suppress(UnicodeError):
        location = location.encode("latin-1").decode("utf-8")
    try:
        target = ada_url.URL(location, base=url)
    except ValueError:
        # Its words stay out: what cannot be read may hold a password.
        raise ProcessingError(Reason.BAD_REDIRECT, "to something that is not a URL") from None
    if target.protocol not in _WEB:
        raise ProcessingError(Reason.BAD_REDIRECT, f"to a {target.protocol[:20]} address")
    if target.username or target.password:
        raise ProcessingError(Reason.BAD_REDIRECT, "to an address with a user name or password")
    return str(target.href)


def _reason_of(status: int) -> Reason:
    return _REASON_OF_STATUS.get(status) or (Reason.SERVER_ERROR if status >= 500 else Reason.HTTP_ERROR)


def _looks_like_text(body: bytes, content_type: str) -> bool:
    """NUL bytes are in every picture, archive and program, and in a page only where it is written in UTF-16 or -32."""
    if body.startswith(_WIDE_BOMS) or re.search(r"charset=\W?utf-?(16|32)", content_type, re.IGNORECASE):
        return True
    return b"\0" not in body[:_SNIFFED_BYTES]
