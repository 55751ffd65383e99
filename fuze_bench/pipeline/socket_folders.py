"""Short folders for unix sockets, where temporary files are: held while their owner lives, and cleared by whoever comes
next where it was killed.

An owner holds a lock on its folder. The kernel lets go of it however the owner ends, so that a folder that can be locked
is nobody's any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from fuze_bench.errors import ServiceError


def short_temporary_folder() -> Path:
    """The usual place for temporary files unless that is itself too deep for a socket."""
    usual = Path(tempfile.gettempdir())
    return usual if len(os.fsencode(usual)) < 60 else Path("/tmp")


class SocketFolder:
    """A folder that is this user's only, `path`, for the sockets of one owner; `close` removes it with all in it.

    The same `name` gives the same path each time. Raises ServiceError if that is somebody else's, or not for this user
    alone.
    """

    def __init__(self, name: str) -> None:
        self.path = short_temporary_folder() / f"{_prefix()}{name}"
        _clear_abandoned(but=self.path)
        self._lock: int | None = _held(self.path)

    def close(self) -> None:
        """Safe to call twice."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


def _prefix() -> str:
    return f"fuze-socket-{os.getuid()}-"


def _held(path: Path) -> int:
    """Make the folder, or take over the one that is there, and lock it; the lock's file descriptor."""
    while True:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        with suppress(FileNotFoundError):  # cleared by somebody else in this very moment: make it again
            found = path.lstat()
            if found.st_uid != os.getuid() or found.st_mode != stat.S_IFDIR | 0o700:
                raise ServiceError(
                    f"{path} is not a folder of this user alone, as a private Redis needs: remove it"
                )
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            # Shared: an owner that is started again beside one that still ends is no stranger.
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _is_at(path, lock):
                return lock
            os.close(lock)


def _is_at(path: Path, folder: int) -> bool:
    """Whether what the file descriptor stands for is what is found there now."""
    try:
        return path.lstat().st_ino == os.fstat(folder).st_ino
    except FileNotFoundError:
        return False


def _clear_abandoned(*, but: Path) -> None:
    """Remove this user's folders whose owners are gone."""
    for path in but.parent.glob(f"{_prefix()}*"):
        if path == but:
            continue
        with suppress(OSError):  # it goes away just now, or is in use, which is as well
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another one may have cleared it meanwhile, and its owner made it again.
                if _is_at(path, lock):
                    shutil.rmtree(path)
            finally:
                os.close(lock)
