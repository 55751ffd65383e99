"""Folders for sockets: this user's only, there while their owner lives, and cleared after one that was killed."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuze_bench.errors import ServiceError
from fuze_bench.pipeline.socket_folders import SocketFolder, short_temporary_folder


@pytest.fixture(autouse=True)
def temporary_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of the test's own: in the usual one, whoever else begins clears what is abandoned here."""
    with tempfile.TemporaryDirectory(prefix="fuze-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def name() -> str:
    """One that nobody else has."""
    return f"test-{secrets.token_hex(6)}"


@contextmanager
def another_owner(name: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds the folder, with a file in it, until it is killed."""
    code = (
        "import sys, time; from fuze_bench.pipeline.socket_folders import SocketFolder\n"
        "held = SocketFolder(sys.argv[1]); (held.path / 'redis.sock').touch()\n"
        "print(held.path, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_it_goes_with_its_owner(name: str) -> None:
    held = SocketFolder(name)
    assert held.path.stat().st_mode & 0o777 == 0o700
    assert held.path.parent == short_temporary_folder()
    (held.path / "redis.sock").touch()
    held.close()
    held.close()
    assert not held.path.exists()


def test_what_a_killed_owner_left_is_cleared_by_the_next_whoever_that_is(name: str) -> None:
    with another_owner(name) as (process, left):
        beside = SocketFolder(f"{name}-beside")
        assert (left / "redis.sock").exists(), "its owner lives"
        beside.close()
        kill(process)
        assert (left / "redis.sock").exists()
        later = SocketFolder(f"{name}-later")
        try:
            assert not left.exists()
            assert later.path.exists()
        finally:
            later.close()


def test_the_same_name_is_the_same_place_after_a_killed_owner(name: str) -> None:
    """Whoever was told the address finds it there again."""
    with another_owner(name) as (process, left):
        kill(process)
        again = SocketFolder(name)
        assert again.path == left
        with another_owner(f"{name}-other"):
            assert left.exists(), "it is held anew"
        again.close()
    SocketFolder(f"{name}-last").close()  # clears the other one's


def test_many_at_once_do_not_clear_each_others(name: str) -> None:
    """Each looks for abandoned ones while others are just being made."""

    def hold(number: int) -> bool:
        held = SocketFolder(f"{name}-{number}")
        (held.path / "redis.sock").touch()
        is_there = (held.path / "redis.sock").exists()
        held.close()
        return is_there

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(hold, range(400)))
    assert not list(short_temporary_folder().glob(f"*{name}*"))


def test_one_that_is_made_again_while_it_is_being_cleared_stays(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else clears it, and its owner comes back, just before the lock on what was there is had."""
    with another_owner(name) as (process, left):
        kill(process)
    old, lock = left.stat().st_ino, fcntl.flock

    def too_late(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and os.fstat(descriptor).st_ino == old:
            left.rename(left.with_name(f"{left.name}-old"))
            left.mkdir(mode=0o700)
        lock(descriptor, operation)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", too_late)
        SocketFolder(f"{name}-later").close()
    assert left.exists()
    SocketFolder(f"{name}-last").close()
    assert not list(left.parent.glob(f"*{name}*"))


def test_one_of_somebody_else_or_open_to_others_is_refused(name: str) -> None:
    path = SocketFolder(name).path
    path.mkdir(mode=0o777, exist_ok=True)
    path.chmod(0o777)
    with pytest.raises(ServiceError, match="of this user alone"):
        SocketFolder(name)
    path.rmdir()
