"""Who may use the API: the file that says whose each token is, read again when it changes."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import re
from pathlib import Path

from fuze_bench.errors import SettingsError
from fuze_bench.pipeline.api.requests import read_digits
from fuze_bench.pipeline.bookmarks import LARGEST_ID

logger = logging.getLogger(__name__)

_SHORTEST_TOKEN = 16
#: What may stand behind `Bearer` (RFC 6750).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_HOW_TO_MAKE = 'make one with `python3 -c "import secrets; print(secrets.token_urlsafe(32))"`'
_READABLE_BY_OTHERS = 0o077


def digest_of(secret: bytes) -> bytes:
    """By which a token or a session is known: nothing that is kept can be used to sign in."""
    return hashlib.sha256(secret).digest()


class Tokens:
    """The users of a file with a line `token user_id` for each token; blank lines and lines that begin with `#` count
    for nothing.

    Raises SettingsError, at the start and at every use, as long as the file cannot be read or has a broken line: an
    editor's slip locks everybody out, and never lets in somebody who had been struck off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark: tuple[int, ...] | None = None
        self._users: dict[bytes, int] = {}
        self._error: str | None = None
        self._look()
        if os.stat(path).st_mode & _READABLE_BY_OTHERS:
            logger.warning("FUZE_API_TOKENS=%s can be read by others: chmod 600 %s", path, path)

    def find(self, token: bytes) -> tuple[bytes, int] | None:
        """The digest and the user of a token that is in the file, None for any other.

        How long that takes does not tell how much of a token is right, nor which it is.
        """
        self._look()
        given, found = digest_of(token), None
        for known in self._users.items():
            if hmac.compare_digest(known[0], given):
                found = known
        return found

    def user_of(self, digest: bytes) -> int | None:
        """Whose the token of this digest is, None once it is not in the file any more."""
        self._look()
        return self._users.get(digest)

    def _look(self) -> None:
        """Read the file if it is another than the last time."""
        mark: tuple[int, ...] = ()
        with contextlib.suppress(OSError):  # what is wrong shows when it is read
            found = os.stat(self._path)
            mark = (found.st_mtime_ns, found.st_size, found.st_ino)
        if mark != self._mark:
            is_first, self._mark = self._mark is None, mark
            self._read(is_first)
        if self._error is not None:
            raise SettingsError(self._error)

    def _read(self, is_first: bool) -> None:
        self._users, self._error = {}, None
        try:
            self._users = _users_in(self._path)
        except SettingsError as error:
            self._error = str(error)
        if not is_first:
            logger.log(
                logging.INFO if self._error is None else logging.ERROR,
                "%s", self._error or f"FUZE_API_TOKENS={self._path} has changed: {len(self._users)} tokens",
            )  # fmt: skip


def _users_in(path: Path) -> dict[bytes, int]:
    """The user of each token's digest. Raises SettingsError; of a line it shows nothing but the number."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise SettingsError(f"FUZE_API_TOKENS={path} cannot be read ({error.strerror}): create it") from None
    users: dict[bytes, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        problem = _problem_with(parts)
        digest = digest_of(parts[0].encode())
        if problem is None and digest in users:
            problem = "the token is there twice: give each user another"
        if problem is not None:
            raise SettingsError(f"FUZE_API_TOKENS={path}, line {number}: {problem}")
        users[digest] = int(parts[1])
    if not users:
        raise SettingsError(f"FUZE_API_TOKENS={path} holds no token: write a line `token user_id` for each")
    return users


def _problem_with(parts: list[str]) -> str | None:
    if len(parts) != 2:
        return "write a token, a blank, and the number of its user"
    if len(parts[0]) < _SHORTEST_TOKEN:
        return f"the token has less than {_SHORTEST_TOKEN} characters: {_HOW_TO_MAKE}"
    if _TOKEN.fullmatch(parts[0]) is None:
        return f"the token has characters that no token can have: {_HOW_TO_MAKE}"
    if not 1 <= read_digits(parts[1]) <= LARGEST_ID:
        return "the user is not a number from 1 on"
    return None
