"""A web site on loopback to fetch from, as a process (`python -m fuze_bench.lab.parts.origin`) or within a test.

Routes: `/` index; `/page/<n>`; `/hits` and `/hits?path=`; `/status/<code>`; `/redirect/<n>`; `/redirect-loop`;
`/slow/<ms>/<n>`; `/flaky/<times>/<n>`; `/put/<name>`; `/hostile/<name>` (see origin_hostile).
"""

import argparse
import asyncio
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from fuze_bench.errors import FuzeError, LabError, ServiceError, SettingsError, one_line

from .corpus import Page, load_corpus, load_pages, sized_pages
from .origin_site import Site
from .origin_wire import HTML, Connection, reply

HOST = "127.0.0.1"
_BACKLOG = 4096
_TURNS_TO_ACCEPT = 8
_OPEN_FILES = 65_536


class Origin:
    """The origin in a background thread: `with Origin(latency_ms=300) as origin: requests.get(origin.url + "/page/1")`.

    `pages` defaults to the shipped corpus. Entering starts it on `port` (0: any free one) and raises
    ServiceError if it cannot listen; leaving, or `close()`, ends every open connection.
    """

    def __init__(
        self,
        pages: Sequence[Page] | None = None,
        *,
        port: int = 0,
        latency_ms: float = 0.0,
        failure_rate: float = 0.0,
        seed: int = 0,
    ) -> None:
        pages = load_corpus() if pages is None else pages
        self._site = Site(pages, latency_ms=latency_ms, failure_rate=failure_rate, seed=seed)
        self._port = port
        self._thread: threading.Thread | None = None
        self._url: str | None = None
        self._stop: Callable[[], object] | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a slash at the end."""
        if self._url is None:
            raise LabError("the origin is not started; use it as `with Origin() as origin:`")
        return self._url

    def __enter__(self) -> "Origin":
        if self._thread is not None:
            raise LabError("the origin was started before; make a new one")
        ready: Future[tuple[str, Callable[[], object]]] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="origin", daemon=True)
        self._thread.start()
        self._url, self._stop = ready.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, end every connection and wait for the thread; again does no harm."""
        if self._stop is not None and self._thread is not None:
            self._stop()
            self._thread.join()
            self._stop = None

    def hits(self, path: str) -> int:
        """How often exactly this path, with its query string, was asked for."""
        return self._site.hits[path]

    def total_hits(self) -> int:
        """How many requests came for anything but /hits."""
        return self._site.total_hits

    def put(
        self,
        path: str,
        body: bytes,
        *,
        content_type: str = HTML,
        headers: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> str:
        """Answer `/put/<name>` so from now on, whatever the query string unless `path` has one; its whole URL.

        `headers` replace Content-Type and Content-Length where they name them.
        """
        if not path.startswith("/put/"):
            raise LabError(f"cannot put {path!r}; the path must start with '/put/'")
        self._site.put_replies[path] = reply(status, body, content_type, headers)
        return self.url + path

    def _run(self, ready: Future[tuple[str, Callable[[], object]]]) -> None:
        async def main() -> None:
            loop, stop = asyncio.get_running_loop(), asyncio.Event()

            def stop_soon() -> object:
                return loop.call_soon_threadsafe(stop.set)

            await serve(self._site, self._port, stop, lambda url: ready.set_result((url, stop_soon)))

        try:
            asyncio.run(main())
        except ServiceError as error:
            ready.set_exception(error)


async def serve(site: Site, port: int, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
    """Serve until `stop` is set; `ready` is told the URL. Raises ServiceError if the port cannot be had."""
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: Connection(site.answer, connections), HOST, port, backlog=_BACKLOG
        )
    except (OSError, OverflowError) as error:
        raise ServiceError(
            f"the origin cannot listen on {HOST}:{port} ({one_line(error)}); choose another port, or 0 for any"
        ) from None
    try:
        ready(f"http://{HOST}:{server.sockets[0].getsockname()[1]}")
        await stop.wait()
    finally:
        # Accept no more, but close the server last: a connection that is just being accepted would be lost without
        # being closed. It takes some turns of the loop to get into the list, and one to get out when it is aborted.
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
        turns = 0
        while connections or turns < _TURNS_TO_ACCEPT:
            for connection in tuple(connections):
                connection.abort()
            await asyncio.sleep(0)
            turns += 1
        server.close()
        await server.wait_closed()


async def _serve_process(site: Site, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(site, port, stop, _say_ready)


def _say_ready(url: str) -> None:
    sys.stdout.write(f"ready {url}\n")
    sys.stdout.flush()


def _allow_many_connections() -> None:
    """Raise the limit of open files, as 1,024 is the usual one and every connection takes a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuze_bench.lab.parts.origin", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="before every answer under /page/")
    parser.add_argument("--failure-rate", type=float, default=0.0, help="share of 503 under /page/, 0 to 1")
    parser.add_argument("--seed", type=int, default=0, help="decides which requests fail")
    parser.add_argument("--pages", type=Path, help="folder of HTML pages to serve instead of the corpus")
    parser.add_argument("--page-bytes", type=int, help="serve made pages of exactly so many bytes instead")
    return parser


def _pages(folder: Path | None, page_bytes: int | None) -> list[Page]:
    if folder is not None and page_bytes is not None:
        raise SettingsError(
            f"--pages {folder} and --page-bytes {page_bytes} exclude each other; give one of them"
        )
    if page_bytes is not None:
        return sized_pages(page_bytes)
    return load_corpus() if folder is None else load_pages(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 0, or 2 with one line on standard error if it could not start."""
    options = _options().parse_args(arguments)
    try:
        pages = _pages(options.pages, options.page_bytes)
        site = Site(
            pages, latency_ms=options.latency_ms, failure_rate=options.failure_rate, seed=options.seed
        )
        _allow_many_connections()
        asyncio.run(_serve_process(site, options.port))
    except FuzeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
