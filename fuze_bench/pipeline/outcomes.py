"""What comes of claims: decided from what the stages found, and stored, also where the database is away for a while."""

from __future__ import annotations

import logging
import time

from fuze_bench.errors import StoreError, one_line
from fuze_bench.pipeline.bookmarks import Outcome, Processed, ProcessingError, Reason
from fuze_bench.pipeline.measurements import Ended
from fuze_bench.pipeline.retries import after_failure
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.timing import Clock

logger = logging.getLogger(__name__)

#: A page that is processed again must show at least this share of the words that are stored.
_LEAST_KEPT = 0.5
#: How often a database that takes writes may refuse an outcome, and how long it is left alone in between.
_MOST_REFUSALS = 2
_STEP_S = 0.5


class Outcomes:
    """Decides and stores. `patience_s`: how long a database that is away, or takes no writes, is waited for."""

    def __init__(self, store: Store, settings: Settings, clock: Clock, patience_s: float) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._patience_s = patience_s

    def store(self, found: list[Ended]) -> list[Ended]:
        """Store what came of the claims, which keep their leases meanwhile; returns what counts: where the claim held.

        What a database that takes writes refuses is stored one by one, in the end as an internal error: else it would be
        tried for ever. Raises StoreError.
        """
        return self._finish([self._decided(each) for each in found])

    def _decided(self, found: Ended) -> Ended:
        outcome, claim = found.outcome, found.claim
        decided: Outcome = outcome
        if isinstance(outcome, Processed) and outcome.word_count < _LEAST_KEPT * (claim.stored_words or 0):
            # A block page, an error page, an empty one: whatever it is, what is stored is better.
            detail = f"{outcome.word_count} words, {claim.stored_words} are stored"
            decided = ProcessingError(Reason.LESS_TEXT, detail, http_status=outcome.http_status)
        elif isinstance(outcome, ProcessingError):
            decided = after_failure(outcome, claim, self._clock.wall_s(), self._settings)
        return found._replace(outcome=decided)

    def _finish(self, results: list[Ended]) -> list[Ended]:
        until_s = time.monotonic() + self._patience_s
        refusals = 0
        while True:
            try:
                held = self._store.finish(results)
                return [each for each, was_held in zip(results, held, strict=True) if was_held]
            except StoreError as error:
                logger.warning("what came of %d bookmarks is not stored yet: %s", len(results), error)
                refusals += self._takes_writes(results)
                if refusals > _MOST_REFUSALS or time.monotonic() >= until_s:
                    raise
                if refusals == _MOST_REFUSALS:
                    if len(results) > 1:
                        return [stored for each in results for stored in self._finish([each])]
                    results = [self._decided(results[0]._replace(outcome=internal_error("store", error)))]
            time.sleep(_STEP_S)

    def _takes_writes(self, results: list[Ended]) -> bool:
        """Of the very rows: one that only answers, as a standby or with a full disk, is as good as away."""
        try:
            self._store.renew([each.claim for each in results], self._settings.lease_s)
        except StoreError:
            return False
        return True


def internal_error(stage: str, error: Exception) -> ProcessingError:
    """What a bookmark fails with where the fault is ours."""
    return ProcessingError(Reason.INTERNAL_ERROR, f"{stage}: {type(error).__name__}: {one_line(error)}")
