"""Log lines on standard error: text for people or JSON for programs; one an event, with ids and without secrets."""

from __future__ import annotations

import contextvars
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

FORMATS = ("text", "json")
#: What a record may carry (`extra=`) and a JSON line then has, beside time, level, logger and message.
FIELDS = ("bookmark", "job", "worker", "user", "queue", "mode", "attempt", "reason", "retry_s", "duration_ms")

#: What RQ says of events that the pipeline has a line of its own for, or that are nobody's concern.
_CHATTER = frozenset(
    {
        ("rq.worker", "Worker %s: started with PID %d, version %s"),
        ("rq.worker", "Worker %s: subscribing to channel %s"),
        ("rq.worker", "Worker %s: unsubscribing from channel %s"),
        ("rq.worker", "*** Listening on %s..."),
        ("rq.worker", "Worker %s: cleaning registries for queue: %s"),
        ("rq.worker", "Worker %s: cleaning group registries"),
        ("rq.worker", "Worker %s: %s: %s (%s)"),
        ("rq.worker", "Worker %s: %s: %s"),
        ("rq.worker", "Successfully completed %s job in %ss on worker %s"),
        ("rq.worker", "Work horse killed for job %s: retpid=%s, ret_val=%s"),
        # How often a job is tried again is the bookmark's business: RQ's count of what remains means nothing.
        ("rq.job", "Job %s: scheduled for retry at %s, %s remaining"),
        ("rq.job", "Job %s: enqueued for retry, %s remaining"),
        ("rq.scheduler", "Acquired scheduler lock for %s"),
    }
)
#: What closes an address at its end: a sentence, a bracket, quotes.
_CLOSING = r"['\"<>)\]},;:.]{0,3}(?:\s|$)"
_SECRETS = (
    (re.compile(r"://[^\s/?#'\"<>]*@"), "://***@"),
    # A page's address may hold a token in its query, whatever that looks like.
    (re.compile(rf"\?(?!{_CLOSING})\S+?(?={_CLOSING})"), "?***"),
    (
        re.compile(r"(?i)((?:password|passwd|secret|token|api_?key)['\"]?\s?[=:]\s?)['\"]?[^\s'\"&,;)]+"),
        r"\1***",
    ),
)
_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"

_encode = json.JSONEncoder(default=str).encode
_logger = logging.getLogger(__name__)
_worker: str | None = None
_job: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("job", default={})  # noqa: B039
_handler: logging.Handler | None = None


def configure(log_format: str = "text", level: str = "INFO") -> None:
    """Log in this format (of `FORMATS`) from now on; called again, it changes the format and the level."""
    global _handler
    root = logging.getLogger()
    if _handler is None:
        _handler = _StandardError()
        _handler.addFilter(_fit_to_show)
        root.addHandler(_handler)
    _handler.setFormatter(_JsonLine() if log_format == "json" else _TextLine(_TEXT, "%H:%M:%S"))
    root.setLevel(level)
    logging.captureWarnings(log_format == "json")
    if log_format == "json":
        sys.excepthook = _on_exception
        threading.excepthook = _on_thread_exception


def present_setup() -> tuple[str, str]:
    """Format and level, for `configure` in a process that this one starts."""
    return "json" if are_json() else "text", logging.getLevelName(logging.getLogger().level)


def present_fields() -> dict[str, Any]:
    """What lines carry here and now, for `during` in a process that works on behalf of this one."""
    known = {"worker": _worker, **_job.get()}
    return {name: value for name, value in known.items() if value is not None}


def are_json() -> bool:
    """Whether lines are JSON, so that what is said to a person at the terminal is not in place."""
    return _handler is not None and isinstance(_handler.formatter, _JsonLine)


def name_worker(name: str) -> None:
    """This process, and those it forks, are the worker of that name: its lines say so."""
    global _worker
    _worker = name


@contextmanager
def during(fields: Mapping[str, Any]) -> Iterator[None]:
    """Lines of the block carry these fields (of `FIELDS`), also in a process that it forks."""
    token = _job.set(fields)
    try:
        yield
    finally:
        _job.reset(token)


def without_secrets(text: str) -> str:
    """`text` without credentials in URLs, without query strings, without `password=…` and the like."""
    if "=" in text or ":" in text or "?" in text:  # most lines have none, and this is done for each
        for pattern, replacement in _SECRETS:
            text = pattern.sub(replacement, text)
    return text


class _StandardError(logging.Handler):
    """Writes to what standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO = sys.stderr
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:  # noqa: BLE001 - as every handler of the library does
            self.handleError(record)


def _fit_to_show(record: logging.LogRecord) -> bool:
    return (record.name, record.msg) not in _CHATTER


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    known = {**present_fields(), **{k: v for k, v in vars(record).items() if k in FIELDS}}
    return {name: known[name] for name in FIELDS if known.get(name) is not None}


class _TextLine(logging.Formatter):
    """time, level, logger, message, and which worker says it; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        line = super().formatMessage(record)
        worker = present_fields().get("worker")
        return f"{line} [{worker}]" if worker and worker not in line else line

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class _JsonLine(logging.Formatter):
    """One JSON object a line, a traceback in its `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        message, exception = record.getMessage(), None
        if record.exc_info:
            exception = self.formatException(record.exc_info)
        elif "\nTraceback " in message:
            message, _, exception = message.partition("\n")
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(message),
            **_fields(record),
        }
        if exception is not None:
            line["exception"] = without_secrets(exception)
        return _encode(line)


def _on_exception(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    _logger.critical("ended by an error", exc_info=(kind, error, traceback))


def _on_thread_exception(arguments: threading.ExceptHookArgs) -> None:
    error = arguments.exc_value
    _logger.critical("a thread was ended by an error", exc_info=error)
