"""What a peer's empty job leaves behind, if it is told to: which process it ran in, or that it was the last."""

from __future__ import annotations

import os

import redis

WARM, LAST = "warm", "last"
_WORKED, _ENDED = "fuze:worked", "fuze:ended"


def take(note: str) -> None:
    """The job: nothing, but for its note."""
    if note == WARM:
        _redis().sadd(_WORKED, os.getpid())
    elif note == LAST:
        _redis().set(_ENDED, 1)


def workers(client: redis.Redis) -> int:
    """How many processes have run a job with the note WARM."""
    return int(client.scard(_WORKED))


def is_over(client: redis.Redis) -> bool:
    """Whether the job with the note LAST has run."""
    return bool(client.exists(_ENDED))


def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["REDIS_URL"])
