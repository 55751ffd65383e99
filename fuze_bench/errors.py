"""Every error that fuze_bench raises on purpose.

FuzeError
├── SettingsError         a setting or command-line value is wrong
├── InputError            what a client sent cannot be accepted (`status` is the HTTP answer)
│   └── InvalidUrlError   the URL is not one that can be bookmarked
├── QueueUnavailableError Redis cannot be reached or refuses the command
├── StoreError            the database cannot be reached or refuses the statement
│   └── RefusedValueError the database refuses a value of the statement
├── ProcessingError       a bookmark cannot be processed (in `pipeline.bookmarks`, with its reason)
├── EmbeddingUnavailableError  the embedding model cannot be loaded
├── ServiceError          a process that we start did not become ready or died
└── LabError              an experiment, a run folder or a notebook parameter is wrong

A message says what was wrong, with the value, and what to do next, in one line.
"""

import difflib
from collections.abc import Iterable


class FuzeError(Exception):
    """Root of the tree: whoever catches this catches everything that is expected to go wrong."""


class SettingsError(FuzeError):
    """A setting or a command-line value is wrong; nothing was started."""


class InputError(FuzeError):
    """What a client sent cannot be accepted; nothing was saved.

    `status` is the HTTP status of the answer, `field` the name of the offending field, if there is one.
    """

    def __init__(self, message: str, *, status: int = 422, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


class InvalidUrlError(InputError):
    """The URL is not one that can be bookmarked."""

    def __init__(self, message: str) -> None:
        super().__init__(message, field="url")


class QueueUnavailableError(FuzeError):
    """Redis cannot be reached, does not answer in time, or refuses the command."""


class StoreError(FuzeError):
    """The database cannot be reached or refuses the statement."""


class RefusedValueError(StoreError):
    """The database refuses a value of the statement: others may be stored all the same."""


class EmbeddingUnavailableError(FuzeError):
    """The embedding model cannot be loaded; texts are stored without a vector."""


class ServiceError(FuzeError):
    """A process that we start did not become ready or died."""


class LabError(FuzeError):
    """An experiment, a run folder or a notebook parameter is wrong."""


def one_line(error: BaseException) -> str:
    """The error's own words on one line, or its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """A half sentence that names the known word most like `name`, or lists all of them."""
    words = sorted(known)
    close = difflib.get_close_matches(name, words, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(words)}"
