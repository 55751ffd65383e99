"""Saves that share a transaction: each gets its own outcome, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fuze_bench.errors import RefusedValueError, StoreError
from fuze_bench.pipeline.api.group_commit import GroupCommit
from fuze_bench.pipeline.bookmarks import Mode, NewBookmark
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService, SaveResult
from fuze_bench.pipeline.settings import Settings


def new(number: int, user_id: int = 1) -> NewBookmark:
    url = f"https://example.org/{number}"
    return NewBookmark(user_id=user_id, url=url, canonical_url=url)


def saved_together(service: BookmarkService, pages: list[NewBookmark]) -> list[SaveResult | BaseException]:
    """All are asked for in one turn of the loop: the first is a group of its own, or shares one with the rest."""

    async def save() -> list[SaveResult | BaseException]:
        saver = GroupCommit(service)
        results = await asyncio.gather(*map(saver.save, pages), return_exceptions=True)
        await saver.close()
        return results

    return asyncio.run(save())


def test_a_value_that_cannot_be_stored_fails_alone(
    any_database: Settings, private_redis: PrivateRedis
) -> None:
    with BookmarkService(replace(any_database, redis_url=private_redis.url)) as service:
        results = saved_together(service, [new(1), new(2), new(3, user_id=2**70), new(4)])
        assert [type(result) for result in results] == [SaveResult, SaveResult, RefusedValueError, SaveResult]
        assert service.store.counts()["pending"] == 3
        assert service.save_results == {"saved": 3, "failed": 1, "duplicate": 0}
        with connect(private_redis.url) as client:
            assert client.llen("rq:queue:default") == 3


def test_one_trip_to_redis_for_a_group(any_database: Settings, private_redis: PrivateRedis) -> None:
    with (
        BookmarkService(replace(any_database, redis_url=private_redis.url)) as service,
        connect(private_redis.url) as client,
    ):
        saved_together(service, [new(0)])  # connects, and looks who listens
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        results = saved_together(service, [new(n) for n in range(1, 41)])
        assert {result.job.mode for result in results if isinstance(result, SaveResult)} == {Mode.RQ}
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] - before == 1


def test_a_database_that_is_away_fails_all(settings: Settings) -> None:
    with BookmarkService(settings) as service:
        service.store.close()
        for path in settings.data_dir.glob("bookmarks.sqlite*"):
            path.unlink()
        (settings.data_dir / "bookmarks.sqlite").mkdir()
        results = saved_together(service, [new(n) for n in range(3)])
        assert [type(result) for result in results] == [StoreError] * 3
        assert service.save_results["failed"] == 3
