"""Claims: who works on which bookmark, until when, and what came of it. One conditional update each way."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from fuze_bench.pipeline.bookmarks import Bookmark, Claim, Outcome, Processed, ProcessingError, Reason, Status
from fuze_bench.pipeline.database import Database
from fuze_bench.pipeline.rows import ended_values, outcome_values, to_bookmark
from fuze_bench.pipeline.schema import SHORT_COLUMNS, bookmarks
from fuze_bench.timing import Clock

#: One that ends later than this many leases from now was taken before the clock was set back.
_MOST_LEASES_AHEAD = 4
#: Clocks of hosts do not differ by this much.
_SET_BACK_S = 60.0
#: A bookmark that this many workers died over, with no outcome in between, is left alone.
_MOST_DEATHS = 2
#: Notes about a claim whose token follows: its lease ran out; its holder was told to stop.
_RAN_OUT = "its lease ran out"
_STOPPING = "told to stop"
#: The lease of a holder whose end was seen.
_SEEN = 0.0

_t = bookmarks.c
#: What becomes of a claim that is given back.
_UNUSED = {"status": Status.PENDING, "claimed_by": None, "lease_until": None, "attempts": _t.attempts - 1}


class Claims:
    """The statements that take, keep, give back and end claims. Raises StoreError as the store does.

    A death is counted when somebody saw the holder's process end (`note_death`), and when a lease runs out: nobody can
    tell a host that is dead from one that is cut off. It is no death if the holder had been told to stop (`excuse`);
    and a holder that comes back to a claim that it has lost (`renew`, `release`, `finish`) takes the death back. Every
    outcome that is stored sets the count to 0.
    """

    def __init__(self, database: Database, clock: Clock, lease_s: float) -> None:
        """`lease_s`: for how long claims are usually taken."""
        self._db = database
        self._clock = clock
        self._latest_lease_s = _MOST_LEASES_AHEAD * lease_s

    def claim(self, bookmark_ids: Sequence[int], lease_s: float) -> list[Claim]:
        """Take the bookmarks that wait for `lease_s` seconds; the others are somebody else's, done, or not due yet.

        One conditional update: of any number of callers at once exactly one gets a row.
        """
        now_s, now_ns, token = (
            self._clock.wall_s(),
            self._clock.monotonic_ns(),
            f"{process_name()}/{uuid.uuid4().hex}",
        )
        # Where the last try began in the future, the clock was set back, and the time of the next one says nothing.
        is_due = (_t.retry_at <= now_s) | (_t.started_at > now_s + _SET_BACK_S)
        statement = (
            sa.update(bookmarks)
            .where(_t.id.in_(bookmark_ids), _t.status == Status.PENDING, _t.retry_at.is_(None) | is_due)
            .values(
                status=Status.PROCESSING,
                claimed_by=token,
                lease_until=now_s + lease_s,
                started_at=now_s,
                started_ns=now_ns,
                attempts=_t.attempts + 1,
            )
            .returning(
                _t.id,
                _t.url,
                _t.user_id,
                _t.generation,
                _t.attempts,
                _t.tries,
                _t.queue,
                _t.queued_at,
                _t.content_hash,
                _t.word_count,
            )
        )
        with self._db.write() as connection:
            rows = connection.execute(statement).all()
        return [
            Claim(
                bookmark_id=row.id,
                url=row.url,
                user_id=row.user_id,
                token=token,
                generation=row.generation,
                attempts=row.attempts,
                tries=row.tries,
                queue=row.queue,
                queued_at=row.queued_at,
                stored_words=row.word_count if row.content_hash else None,
            )
            for row in rows
        ]

    def renew(self, claims: Sequence[Claim], lease_s: float) -> None:
        """Move the end of the leases that still hold to `lease_s` from now."""
        with self._db.write() as connection:
            statement = (
                sa.update(bookmarks)
                .where(
                    _t.id.in_([c.bookmark_id for c in claims]), _t.claimed_by.in_({c.token for c in claims})
                )
                .values(lease_until=self._clock.wall_s() + lease_s)
                .returning(_t.id)
            )
            held = set(connection.execute(statement).scalars())
            for claim in claims:
                if claim.bookmark_id not in held:
                    _take_back_death(connection, claim)

    def release(self, claims: Sequence[Claim]) -> None:
        """Give the claims back unused: the bookmarks wait again, and the attempt does not count."""
        with self._db.write() as connection:
            for claim in claims:
                statement = sa.update(bookmarks).where(*_holds(claim)).values(_UNUSED)
                if connection.execute(statement).rowcount == 0:
                    _take_back_death(connection, claim)

    def give_back(self, process: str, all_but: Collection[int] = ()) -> int:
        """As `release`, for whatever the process of that `process_name` held, `all_but` these bookmarks: it was stopped
        on purpose, or others killed it, so that this counts neither as an attempt nor as a death.
        """
        held = _held_by(process) & _t.id.not_in(all_but)
        with self._db.write() as connection:
            return connection.execute(sa.update(bookmarks).where(held).values(_UNUSED)).rowcount

    def excuse(self, process: str) -> int:
        """The process of that `process_name` was told to stop: it goes on, but if it is killed, that is no death of
        what it holds now. How many that is.
        """
        with self._db.write() as connection:
            statement = sa.update(bookmarks).where(_held_by(process)).values(death_note=_about(_STOPPING))
            return connection.execute(statement).rowcount

    def finish(self, results: Sequence[tuple[Claim, Outcome, Mapping[str, float]]]) -> list[bool]:
        """Store each claim's outcome and stage durations (ms), all in one transaction.

        False for a claim that no longer held: its result is void, somebody else's counts.
        """
        now = {"done_at": self._clock.wall_s(), "done_ns": self._clock.monotonic_ns()}
        stored = []
        with self._db.write() as connection:
            for claim, outcome, durations_ms in results:
                has_text = claim.stored_words is not None
                values = outcome_values(outcome, now, has_text=has_text)
                values |= {"claimed_by": None, "lease_until": None, "deaths": 0, "death_note": None}
                if isinstance(outcome, Processed) or not has_text:
                    values["durations_ms"] = dict(durations_ms)  # else they stay those of the text that stays
                statement = sa.update(bookmarks).where(*_holds(claim)).values(values)
                stored.append(connection.execute(statement).rowcount == 1)
                if not stored[-1]:
                    _take_back_death(connection, claim)
        return stored

    def take_back_expired(self) -> tuple[list[Bookmark], int]:
        """The bookmarks whose lease has run out wait again; those that killed their worker twice (see above) have failed.

        A lease that ends implausibly late (the clock was set back) counts as run out, too. Returns the ones that wait
        again, and how many have failed.
        """
        now_s = self._clock.wall_s()
        run_out = self._has_run_out(now_s)
        excused = _t.death_note.is_not_distinct_from(_about(_STOPPING))
        is_last = sa.not_(excused) & (_t.deaths + 1 >= _MOST_DEATHS)
        free = {"claimed_by": None, "lease_until": None}
        with self._db.write() as connection:
            poison = (
                sa.select(_t.id, _t.death_note, _t.content_hash).where(run_out, is_last).with_for_update()
            )
            given_up = connection.execute(poison).all()
            for row in given_up:
                note = row.death_note or _RAN_OUT
                if note.startswith((_RAN_OUT, _STOPPING)):
                    note = _RAN_OUT  # on whose part is nothing to tell
                error = ProcessingError(Reason.KILLED_WORKER, note)
                ended = ended_values(error, now_s, has_text=row.content_hash is not None)
                stamps = {"done_at": now_s, "done_ns": self._clock.monotonic_ns()}
                connection.execute(
                    sa.update(bookmarks)
                    .where(_t.id == row.id)
                    .values({**free, **ended, **stamps, "deaths": _t.deaths + 1})
                )
            died = {
                "deaths": _t.deaths + sa.case((excused, 0), else_=1),
                "death_note": sa.case(
                    (excused, sa.null()), (_t.lease_until == _SEEN, _t.death_note), else_=_about(_RAN_OUT)
                ),
            }
            # What another look at the rows finds run out only now, and for the last time, is left to the next look.
            again = sa.update(bookmarks).where(run_out, sa.not_(is_last))
            again = again.values({**free, **died, "status": Status.PENDING})
            rows = connection.execute(again.returning(*SHORT_COLUMNS)).mappings().all()
        return [to_bookmark(row) for row in rows], len(given_up)

    def expired_leases(self) -> int:
        """How many bookmarks are held by a worker that has stopped renewing its lease."""
        query = sa.select(sa.func.count()).where(self._has_run_out(self._clock.wall_s()))
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def _has_run_out(self, now_s: float) -> sa.ColumnElement[bool]:
        return (_t.status == Status.PROCESSING) & (
            (_t.lease_until < now_s) | (_t.lease_until > now_s + self._latest_lease_s)
        )

    def note_death(self, process: str, note: str, of: Collection[int] | None = None) -> int:
        """The process of that `process_name` is dead: what it held, or `of` it these bookmarks, is free at once. `note`
        says what it died of.
        """
        held = _held_by(process) if of is None else _held_by(process) & _t.id.in_(of)
        with self._db.write() as connection:
            statement = sa.update(bookmarks).where(held).values(lease_until=_SEEN, death_note=note)
            return connection.execute(statement).rowcount


def process_name(pid: int | None = None) -> str:
    """A name for a process of this host, this one by default, under which it holds claims."""
    return f"{pid or os.getpid()}@{socket.gethostname()[:100]}"


def _held_by(process: str) -> sa.ColumnElement[bool]:
    """Compared letter by letter: in a LIKE, SQLite ignores case, and `_` of a host's name stands for any character."""
    prefix = f"{process}/"  # no host's name has a slash, many go on with a hyphen
    return (sa.func.substr(_t.claimed_by, 1, len(prefix)) == prefix) & (_t.status == Status.PROCESSING)


def _about(note: str) -> sa.ColumnElement[str]:
    return sa.literal(f"{note}: ") + _t.claimed_by


def _take_back_death(connection: sa.Connection, claim: Claim) -> None:
    """The holder of a lost claim lives."""
    connection.execute(
        sa.update(bookmarks)
        .where(_t.id == claim.bookmark_id, _t.death_note == f"{_RAN_OUT}: {claim.token}")
        .values(deaths=_t.deaths - 1, death_note=None)
    )


def _holds(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _t.id == claim.bookmark_id,
        _t.claimed_by == claim.token,
        _t.generation == claim.generation,
        _t.status == Status.PROCESSING,
    )
