"""One frozen Settings, built from a mapping and checked whole; the environment is read once, at the edge."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote, urlsplit

from fuze_bench.errors import SettingsError, nearest
from fuze_bench.logs import FORMATS
from fuze_bench.pipeline.addresses import AddressPolicy

#: The pipeline's queues in priority order: a `high` job overtakes everything, `low` is for bulk.
QueueName = Literal["high", "default", "low"]
QUEUES: tuple[str, ...] = get_args(QueueName)


class Kind(enum.StrEnum):
    """How a worker runs its jobs."""

    SIMPLE = "simple"
    """In the worker's own process: a job that crashes takes the worker with it."""
    FORK = "fork"
    """Each in a fork of the worker: isolated; the loaded model is shared."""
    SPAWN = "spawn"
    """Each in a fresh interpreter: isolated where forking is unsafe; loads the model for every job."""
    BATCH = "batch"
    """Many at a time in one long-lived fork: fastest, isolated from the worker; the loaded model is shared."""


#: It does several times the work of `fork`, and isolates the worker from its jobs as that does.
DEFAULT_KIND = Kind.BATCH


class Strategy(enum.StrEnum):
    """Which queue a worker that listens to several takes the next job from."""

    STRICT = "strict"
    """The first that holds one: what comes later in the order waits as long as it has to."""
    ROUND_ROBIN = "round_robin"
    """The queue that a job came from goes to the end of the order."""
    RANDOM = "random"
    """The order is shuffled after each job."""

    @property
    def as_rq_says(self) -> str:
        """RQ's name for it, on its command line and in its `work`."""
        return "default" if self is Strategy.STRICT else self.value


#: Query parameters that name a campaign or a click and never the page.
TRACKING_PARAMETERS = tuple(
    """
    utm_source utm_medium utm_campaign utm_term utm_content utm_id utm_name utm_reader utm_social
    fbclid gclid gclsrc dclid gbraid wbraid msclkid twclid ttclid igshid igsh yclid ysclid
    mc_cid mc_eid _hsenc _hsmi mkt_tok vero_id vero_conv oly_anon_id oly_enc_id rb_clickid s_cid wickedid
    """.split()
)

#: Values of `embedding_model` that are not a folder or a hub name.
BUNDLED_MODEL = "bundled"
NO_MODEL = "off"
#: Values of `embedding_dtype`.
EMBEDDING_DTYPES = ("auto", "float32", "bfloat16")


_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")

#: How an empty list is written in the environment, where an empty variable is one that is not set.
_EMPTY = "none"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set. Each field is the environment variable `FUZE_<NAME>` in capitals,
    except `redis_url` (`REDIS_URL`, or `REDIS_HOST` and its companions) and `database_url` (`DATABASE_URL`).
    """

    data_dir: Path = Path(".fuze")
    """Folder for everything that is written: SQLite file, private Redis, run folders."""
    redis_url: str | None = None
    """An own Redis; None: a private redis-server in `data_dir`."""
    database_url: str | None = None
    """A SQLAlchemy or PostgreSQL URL; None: SQLite in `data_dir`."""

    embedding_model: str = BUNDLED_MODEL
    """`bundled` (all-MiniLM-L6-v2), `off`, a folder, or a name on a model hub."""
    embedding_threads: int = 1
    """Threads that one process gives to the model; 0: this machine's cores over the workers that are started together
    (or over the fallback's threads)."""
    embedding_dtype: str = "auto"
    """What the model computes with: `bfloat16` or `float32`; `auto`: whichever a short trial at start finds better."""

    job_timeout_s: int = 600
    retry_intervals_s: tuple[float, ...] = (60.0, 300.0)
    """After a failure that may pass: how long to wait before each further try (comma-separated, or
    `none`); then it is final."""
    retry_after_default_s: float = 60.0
    """How long to leave a site alone that asks for fewer requests, even if it says sooner; doubled each time."""
    retry_after_max_s: float = 3_600.0
    """The longest wait that a site may ask for with Retry-After."""
    retry_for_s: float = 86_400.0
    """How long a site may put us off before it counts as a failure."""
    result_ttl_s: int = 86_400
    """How long Redis keeps the result of a finished job; the database keeps the bookmark for ever."""
    lease_s: float = 15.0
    """How long a claim holds without a sign of life of its worker; renewed while the worker lives."""
    lease_check_s: float = 5.0
    """How often one of the workers looks for leases that have run out."""
    recovery_interval_s: float = 30.0
    """How often one of the workers looks for bookmarks that wait without a job."""
    recover_after_s: float = 60.0
    """How long a bookmark may wait beyond its time before that is looked into."""
    worker_ttl_s: int = 60
    """A worker that has not been heard of for this long counts as dead."""

    fetch_total_s: float = 30.0
    """Limit on one page from the first byte sent to the last byte read, redirects included."""
    fetch_idle_s: float = 10.0
    """Limit on connecting, and on a silence in the middle of an answer."""
    fetch_max_bytes: int = 10 * 1024 * 1024
    """Largest page, counted after decompression."""
    fetch_max_redirects: int = 5
    fetch_threads: int = 16
    """Pages of one batch that are fetched at the same time."""
    fetch_allow: tuple[str, ...] = ()
    """What may be fetched beside public addresses, for a lab or an intranet (comma-separated): hosts,
    `host:port`, IP addresses, networks such as `10.0.0.0/8`; `[::1]:8080`."""
    host_fetches: int = 2
    """Pages of one host that all workers together fetch at the same time; 0: as many as there are workers."""
    host_interval_s: float = 0.5
    """Time from one fetch's start to the next of the same host, over all workers, on average."""
    host_unlimited: tuple[str, ...] = ()
    """Hosts (or host:port) that may be asked without these two limits (comma-separated)."""
    extract_timeout_s: float = 15.0
    """Limit on finding the text of one page."""
    user_agent: str = "fuze_bench/0.1 (bookmark pipeline)"

    url_max_chars: int = 8_000
    title_max_chars: int = 1_000
    description_max_chars: int = 10_000
    body_max_bytes: int = 256 * 1024
    """Largest request body that the API reads, but for imports."""
    import_max_bytes: int = 16 * 1024 * 1024
    """Largest list of pages that the API takes at once."""
    import_max_items: int = 20_000
    """Most pages in such a list."""
    tracking_parameters: tuple[str, ...] = TRACKING_PARAMETERS
    """Query parameters dropped from the canonical URL (comma-separated in the environment)."""

    api_tokens: Path | None = None
    """A file that says who may use the API, `token user_id` a line; None: whoever reaches it, which is this machine."""
    api_hosts: tuple[str, ...] = ()
    """Names under which the API may be asked for beside its own address (comma-separated, without ports)."""
    rate_limit_per_min: int = 600
    """How many changes one user may ask for in a minute, a tenth of them at once; 0, or without tokens: any number."""

    redis_connect_timeout_s: float = 0.5
    redis_timeout_s: float = 2.0
    redis_retry_s: float = 1.0
    """After Redis failed, how long saves go to threads before it is tried again."""
    fallback_threads: int = 2
    fallback_backlog: int = 1_000
    """Bookmarks that may wait for the fallback's threads; beyond, they stay `pending` in the database."""
    fallback_batch: int = 8

    log_format: str = "text"
    """How lines are logged: `text` for people, or `json`, one object a line."""

    def __post_init__(self) -> None:
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            if not math.isfinite(value) or value < lowest:
                raise SettingsError(f"{_variable(name)}={value} cannot be used: give {lowest} or more")
        if any(not math.isfinite(each) or each < 0 for each in self.retry_intervals_s):
            raise SettingsError(
                f"FUZE_RETRY_INTERVALS_S={self.retry_intervals_s}: no interval may be negative"
            )
        for name in self.api_hosts:
            if _HOST_NAME.fullmatch(name) is None:
                raise SettingsError(f"FUZE_API_HOSTS={name!r}: give names without scheme, port and *")
        if self.redis_url is not None and not self.redis_url.startswith(("redis://", "rediss://", "unix://")):
            # Without a scheme the password may be what comes first.
            scheme = self.redis_url.partition("://")[0] if "://" in self.redis_url else ""
            raise SettingsError(f"REDIS_URL starts with {scheme!r}: use redis://, rediss:// or unix://")
        if self.log_format not in FORMATS:
            raise SettingsError(f"FUZE_LOG_FORMAT={self.log_format[:40]!r}: use {' or '.join(FORMATS)}")
        if self.embedding_dtype not in EMBEDDING_DTYPES:
            raise SettingsError(
                f"FUZE_EMBEDDING_DTYPE={self.embedding_dtype[:40]!r}: use {', '.join(EMBEDDING_DTYPES)}"
            )
        if self.database_url is not None:
            _check_database_url(self.database_url)
        AddressPolicy(self.fetch_allow)  # raises for an entry that cannot be one

    @property
    def sqlalchemy_url(self) -> str:
        """The database as SQLAlchemy wants it: psycopg 3 for PostgreSQL, a file in `data_dir` by default."""
        url = self.database_url or f"sqlite:///{(self.data_dir / 'bookmarks.sqlite').absolute()}"
        for scheme in ("postgresql://", "postgres://"):
            if url.startswith(scheme):
                return "postgresql+psycopg://" + url.removeprefix(scheme)
        return url

    @classmethod
    def from_mapping(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from environment variables.

        Raises SettingsError on a value that cannot be read, and on an unknown variable that starts with `FUZE_`.
        """
        fields = {_variable(f.name): f for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for variable, text in environment.items():
            known = fields.get(variable)
            if known is not None and text != "":
                is_path = known.type == "Path | None"
                values[known.name] = _read(variable, text, Path() if is_path else known.default)
            elif variable.startswith("FUZE_") and known is None:
                raise SettingsError(f"unknown setting {variable}: {nearest(variable, fields)}")
        if values.get("redis_url") is None:
            values["redis_url"] = _redis_url_from_parts(environment)
        return cls(**values)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` for another process, with these settings and no others, whatever `base` says of Redis and database."""
        ours = ("FUZE_", "REDIS_")
        kept = {k: v for k, v in base.items() if not k.startswith(ours) and k != "DATABASE_URL"}
        return {**kept, **self.to_mapping()}

    def to_mapping(self) -> dict[str, str]:
        """The environment that gives these settings to another process; the inverse of `from_mapping`."""
        result = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if value is not None:
                result[_variable(f.name)] = (
                    (",".join(map(str, value)) or _EMPTY) if isinstance(value, tuple) else str(value)
                )
        return result


_LOWEST: dict[str, float] = {
    "embedding_threads": 0,
    "job_timeout_s": 1,
    "result_ttl_s": 1,
    "retry_after_default_s": 1,
    "retry_after_max_s": 1,
    "retry_for_s": 0,
    "lease_s": 0.2,
    "lease_check_s": 0.1,
    "recovery_interval_s": 0.1,
    "recover_after_s": 0,
    "worker_ttl_s": 16,
    "fetch_total_s": 0.1,
    "fetch_idle_s": 0.1,
    "fetch_max_bytes": 1,
    "fetch_max_redirects": 0,
    "fetch_threads": 1,
    "host_fetches": 0,
    "host_interval_s": 0,
    "extract_timeout_s": 0.1,
    "url_max_chars": 16,
    "title_max_chars": 1,
    "description_max_chars": 1,
    "body_max_bytes": 256,
    "import_max_bytes": 256,
    "import_max_items": 1,
    "rate_limit_per_min": 0,
    "redis_connect_timeout_s": 0.01,
    "redis_timeout_s": 0.01,
    "redis_retry_s": 0,
    "fallback_threads": 1,
    "fallback_backlog": 1,
    "fallback_batch": 1,
}


def _variable(name: str) -> str:
    return name.upper() if name in ("redis_url", "database_url") else f"FUZE_{name.upper()}"


def _read(variable: str, text: str, default: object) -> object:
    """The text as the type of the setting's default; a tuple's parts as the type of its first (else as text)."""
    try:
        if isinstance(default, tuple):
            if text == _EMPTY:
                return ()
            kind = type(default[0]) if default else str
            return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
        if isinstance(default, int | float | Path):
            return Path(text) if isinstance(default, Path) else type(default)(text)
    except ValueError:
        shown = default[0] if isinstance(default, tuple) else default
        raise SettingsError(f"{variable}={text!r} is not a number: give one, such as {shown}") from None
    return text


def _check_database_url(url: str) -> None:
    scheme = url.split(":")[0]
    if scheme not in ("sqlite", "postgresql", "postgres", "postgresql+psycopg"):
        raise SettingsError(f"DATABASE_URL starts with {scheme[:40]!r}: use sqlite:/// or postgresql://")
    try:
        parts = urlsplit(url)
        is_cut = scheme != "sqlite" and (parts.netloc + parts.path).count("@") > 1
    except ValueError:
        is_cut = True
    if is_cut:
        # No word of it is shown, nor of Python's, which quote it: what is cut in the wrong place is the password.
        raise SettingsError("DATABASE_URL cannot be read: percent-encode special characters of the password")


def _redis_url_from_parts(environment: Mapping[str, str]) -> str | None:
    """REDIS_HOST and its companions as one URL; the password is given plain and encoded here."""
    parts = {
        key: environment.get(f"REDIS_{key}", "")
        for key in ("HOST", "PORT", "DB", "USERNAME", "PASSWORD", "SSL")
    }
    if not any(parts.values()):
        return None
    ssl = parts["SSL"].lower()
    if ssl not in ("", "0", "1", "true", "false", "yes", "no"):
        raise SettingsError(f"REDIS_SSL={parts['SSL']!r} is neither yes nor no: use true or false")
    for key in ("PORT", "DB"):
        if parts[key] and not parts[key].isdigit():
            raise SettingsError(f"REDIS_{key}={parts[key]!r} is not a number: give one, such as 6379 or 0")
    login = ""
    if parts["USERNAME"] or parts["PASSWORD"]:
        login = f"{quote(parts['USERNAME'], safe='')}:{quote(parts['PASSWORD'], safe='')}@"
    host = parts["HOST"] or "127.0.0.1"
    if ":" in host:
        host = f"[{host}]"
    scheme = "rediss" if ssl in ("1", "true", "yes") else "redis"
    return f"{scheme}://{login}{host}:{parts['PORT'] or 6379}/{parts['DB'] or 0}"
