"""Fixtures that start the real parts: Redis, databases, origin, workers. Each test owns what it starts."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psycopg
import pytest
from nursery import nursery
from postgresql import running_postgresql
from psycopg import sql

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.processes import Child
from fuze_bench.timing import FakeClock

if TYPE_CHECKING:
    from api_server import Client

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What jsonschema would check IRIs with takes a second to import, in every process of the tests; nothing here has one.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
# Else every process of the tests compiles all of them anew, which takes seconds.
sys.dont_write_bytecode = False
# A developer's own Redis and database are nothing to test on.
for _name in list(os.environ):
    if _name.startswith(("FUZE_", "REDIS_")) or _name == "DATABASE_URL":
        del os.environ[_name]


#: Files with tests that look at times. `make test` runs them after all others, with no more processes than cores.
_MEASURING = frozenset(
    """
    test_contention test_delay_proxy test_fresh test_invalid_trials test_loadtests test_offered_in_trials test_readme
    test_run test_sample_path test_saves_sent test_sender test_series test_start_here test_trial test_workflow
    """.split()
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what their module has started run in one process, which starts it once. Those that measure, as
    every notebook does, are marked as such."""
    for item in items:
        group = item.get_closest_marker("xdist_group")
        if item.path.stem in _MEASURING or (group is not None and group.args == ("report",)):
            item.add_marker("measures")
        known = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009 - it has no public name
        shares = any(definitions[-1].scope == "module" for definitions in known)
        if shares and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_collection_finish(session: pytest.Session) -> None:
    """A pytest-xdist that this pytest is too new for leaves groups without effect, and says nothing."""
    if session.config.getoption("loadgroup", default=False):
        for item in session.items:
            if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
                raise pytest.UsageError(f"{item.nodeid} has lost its group: see pytest in pyproject.toml")


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0, what: str = "the condition") -> None:
    """Wait for something that will become true; the test fails if it does not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """A worker that a test runs in its own process leaves RQ's handlers behind, which take the next test's Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def private_redis(data_dir: Path) -> Iterator[PrivateRedis]:
    with PrivateRedis(data_dir / "redis") as server:
        yield server


@pytest.fixture
def settings(data_dir: Path, private_redis: PrivateRedis) -> Settings:
    """A Redis and a SQLite file of the test's own; no model, which takes seconds to load and is tested by itself."""
    return Settings(
        data_dir=data_dir,
        redis_url=private_redis.url,
        embedding_model="off",
        host_fetches=0,
        host_interval_s=0.0,
        fetch_allow=("127.0.0.1",),
    )


@pytest.fixture
def service(settings: Settings) -> Iterator[BookmarkService]:
    with BookmarkService(settings) as running:
        yield running


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as running:
        yield running


class StartWorker(Protocol):
    def __call__(
        self, settings: Settings, *options: str, wait: bool = True, fresh: bool = False
    ) -> AbstractContextManager[Child]: ...


@pytest.fixture
def start_worker(tmp_path: Path) -> StartWorker:
    """Starts a real worker process: `with start_worker(settings, "--kind", "fork") as child`.

    `fresh`: in an interpreter of its own, for what a fork of one that has imported everything cannot show.
    """
    numbers = iter(range(1000))

    @contextmanager
    def start(settings: Settings, *options: str, wait: bool = True, fresh: bool = False) -> Iterator[Child]:
        log = tmp_path / f"worker-{next(numbers)}.log"
        environment = settings.environment(os.environ)
        if fresh:
            argv = [sys.executable, "-m", "fuze_bench.pipeline.worker", *options]
            started = Child("worker", argv, log, environment=environment)
        else:
            started = nursery().start(
                "worker", "fuze_bench.pipeline.worker_command:main", options, environment, log
            )
        with started as child:
            if wait:
                child.wait_ready(lambda: "Listening on" in child.log_tail(10_000), timeout_s=60)
            yield child

    return start


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A real PostgreSQL, one for each process that runs tests."""
    with running_postgresql() as url:
        yield url


@pytest.fixture
def postgresql_database(postgresql_url: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of the test's own."""
    name = f"test_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield postgresql_url.replace("/postgres?", f"/{name}?", 1)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest, data_dir: Path) -> Settings:
    """Settings for each of the two databases: what uses this is the store's conformance suite."""
    if request.param == "sqlite":
        return Settings(data_dir=data_dir, embedding_model="off", fetch_allow=("127.0.0.1",))
    url = request.getfixturevalue("postgresql_database")
    return Settings(data_dir=data_dir, database_url=url, embedding_model="off", fetch_allow=("127.0.0.1",))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(any_database: Settings, clock: FakeClock) -> Iterator[Store]:
    """The store on each of the two databases, with a clock that the test sets."""
    with Store(any_database, clock) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A Redis and a SQLite file for all tests of a module that load the API."""
    folder = tmp_path_factory.mktemp("shared")
    with PrivateRedis(folder / "redis") as server:
        yield Settings(data_dir=folder, redis_url=server.url, embedding_model="off")


@pytest.fixture(scope="module")
def shared_api(shared_settings: Settings) -> Iterator[str]:
    """The API over them, in a thread; its base URL."""
    from api_server import running_api

    with running_api(shared_settings) as base_url:
        yield base_url


@pytest.fixture
def api(settings: Settings) -> Iterator[Client]:
    """An API of the test's own, in a thread."""
    from api_server import Client, running_api

    with running_api(settings) as base_url:
        yield Client(base_url)
