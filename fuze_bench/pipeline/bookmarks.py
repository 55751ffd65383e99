"""A bookmark, the states it goes through, and why one can fail."""

from __future__ import annotations

import enum

import msgspec

from fuze_bench.errors import FuzeError

#: Of a bookmark's number, and a user's: what every reader of JSON reads as it is.
LARGEST_ID = 2**53 - 1


class Status(enum.StrEnum):
    """pending → processing → processed or failed; a claim that runs out, or a retry, leads back to pending."""

    PENDING = "pending"
    PROCESSING = "processing"
    PROCESSED = "processed"
    FAILED = "failed"


class Mode(enum.StrEnum):
    """Who works on a bookmark: an RQ worker, a thread of the process that saved it, or whoever recovers it."""

    RQ = "rq"
    THREAD = "thread"
    DEFERRED = "deferred"


class EmbeddingState(enum.StrEnum):
    """`unavailable`: the model could not be had, the text is stored and the vector is filled in later."""

    OK = "ok"
    UNAVAILABLE = "unavailable"
    OFF = "off"


class Reason(enum.StrEnum):
    """Why a page could not be had. `sentence` says it to a person."""

    NOT_FOUND = "not_found"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    BLOCKED = "blocked"
    RATE_LIMITED = "rate_limited"
    HTTP_ERROR = "http_error"
    SERVER_ERROR = "server_error"
    NOT_HTML = "not_html"
    EMPTY_PAGE = "empty_page"
    NO_TEXT = "no_text"
    TOO_LARGE = "too_large"
    TOO_COMPLEX = "too_complex"
    TIMED_OUT = "timed_out"
    CONNECTION_FAILED = "connection_failed"
    TLS_FAILED = "tls_failed"
    BROKEN_ANSWER = "broken_answer"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    BAD_REDIRECT = "bad_redirect"
    ADDRESS_REFUSED = "address_refused"
    LESS_TEXT = "less_text"
    CANCELLED = "cancelled"
    KILLED_WORKER = "killed_worker"
    INTERNAL_ERROR = "internal_error"

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Reason.NOT_FOUND: "The page does not exist (any more).",
    Reason.UNAUTHORIZED: "The site wants a login.",
    Reason.FORBIDDEN: "The site refused to show the page.",
    Reason.BLOCKED: "The site showed a barrier instead of the page.",
    Reason.RATE_LIMITED: "The site asked for fewer requests.",
    Reason.HTTP_ERROR: "The site answered with an error.",
    Reason.SERVER_ERROR: "The site has a problem of its own.",
    Reason.NOT_HTML: "The address does not lead to a web page.",
    Reason.EMPTY_PAGE: "The page is empty.",
    Reason.NO_TEXT: "The page holds no readable text.",
    Reason.TOO_LARGE: "The page is too large.",
    Reason.TOO_COMPLEX: "The page is too complicated to read.",
    Reason.TIMED_OUT: "The site took too long to answer.",
    Reason.CONNECTION_FAILED: "The site could not be reached.",
    Reason.TLS_FAILED: "The site's certificate cannot be trusted.",
    Reason.BROKEN_ANSWER: "The site's answer was broken off or garbled.",
    Reason.TOO_MANY_REDIRECTS: "The address was passed on too many times.",
    Reason.BAD_REDIRECT: "The address was passed on to one that cannot be fetched.",
    Reason.ADDRESS_REFUSED: "The address is not one that may be fetched.",
    Reason.LESS_TEXT: "The page shows much less text than is stored.",
    Reason.CANCELLED: "Processing was cancelled.",
    Reason.KILLED_WORKER: "Processing the page killed the worker, twice.",
    Reason.INTERNAL_ERROR: "Something went wrong here while the page was processed.",
}


class ProcessingError(FuzeError):
    """A bookmark cannot be processed: ends as `failed` with the reason; `detail` is for the engineer."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        http_status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{reason.sentence} ({detail})")
        self.reason = reason
        self.detail = detail
        self.http_status = http_status
        self.retry_after_s = retry_after_s


class NewBookmark(msgspec.Struct, frozen=True, kw_only=True):
    """What a save brings: a checked URL and what the user said about it."""

    user_id: int
    url: str
    canonical_url: str
    title: str | None = None
    description: str | None = None
    queue: str = "default"


class AttemptNote(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Why the last attempt to process a bookmark again left its stored text alone; `at` is seconds since 1970 UTC."""

    reason: Reason
    error: str
    http_status: int | None = None
    at: float


class Bookmark(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=False):
    """A bookmark as the store holds it and the API shows it (without its text and vector).

    Times are seconds since 1970 UTC; durations are milliseconds; `reading_time_s` is seconds.
    """

    id: int
    user_id: int
    url: str
    canonical_url: str
    final_url: str | None = None
    status: Status
    title: str | None = None
    description: str | None = None
    queue: str
    generation: int
    attempts: int
    times_saved: int
    created_at: float
    started_at: float | None = None
    done_at: float | None = None
    reason: Reason | None = None
    error: str | None = None
    http_status: int | None = None
    note: AttemptNote | None = None
    language: str | None = None
    published: str | None = None
    summary: str | None = None
    keywords: list[str] = []
    word_count: int | None = None
    reading_time_s: int | None = None
    content_hash: str | None = None
    embedding: EmbeddingState | None = None
    embedding_model: str | None = None
    retry_at: float | None = None
    durations_ms: dict[str, float] = {}

    @property
    def job_id(self) -> str:
        return job_id(self.id, self.generation)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The right to process one bookmark until the lease ends; `token` proves it."""

    bookmark_id: int
    url: str
    user_id: int
    token: str
    generation: int
    attempts: int
    tries: int
    queue: str
    queued_at: float
    stored_words: int | None = None
    """Words of the text that an earlier generation stored; None if there is none."""

    @property
    def job_id(self) -> str:
        return job_id(self.bookmark_id, self.generation)


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A save's outcome. `needs_job`: this save is the one that has to see to the processing."""

    bookmark: Bookmark
    was_duplicate: bool
    needs_job: bool


class Processed(msgspec.Struct, frozen=True, kw_only=True):
    """All that processing found out about one page. `vector` is float32 bytes of unit length, or None."""

    final_url: str
    http_status: int
    title: str | None
    text: str
    language: str | None
    published: str | None
    summary: str
    keywords: list[str]
    word_count: int
    reading_time_s: int
    content_hash: str
    embedding: EmbeddingState
    embedding_model: str | None
    vector: bytes | None


class TryAgain(msgspec.Struct, frozen=True, kw_only=True):
    """It failed, and is to be tried again `delay_s` seconds from now; `counts`: this used up a try."""

    error: ProcessingError
    delay_s: float
    counts: bool


#: Outcome of one claim: what to store, why not, or why not yet.
Outcome = Processed | ProcessingError | TryAgain

#: What the queue calls: a name, so that enqueuing imports neither torch nor trafilatura.
TASK_NAME = "fuze_bench.pipeline.process.process_bookmark_content_task"


def job_id(bookmark_id: int, generation: int) -> str:
    """The id of the job that processes this generation (RQ allows letters, digits, `_` and `-`)."""
    return f"bookmark-{bookmark_id}-{generation}"


def parse_job_id(text: str) -> tuple[int, int] | None:
    """(bookmark id, generation) of a job id of ours; None for anything else."""
    kind, _, rest = text.partition("-")
    number, _, generation = rest.partition("-")
    if kind != "bookmark" or not _is_small_number(number) or not _is_small_number(generation):
        return None
    return int(number), int(generation)


def _is_small_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15
