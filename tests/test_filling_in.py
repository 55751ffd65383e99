"""Texts that were stored without a vector get one, whenever that was, from whichever worker has the model."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from conftest import StartWorker, wait_until
from numpy.typing import NDArray
from rq import Queue, SimpleWorker
from rq.executions import Execution
from rq.serializers import JSONSerializer

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline import process
from fuze_bench.pipeline.bookmarks import EmbeddingState, NewBookmark
from fuze_bench.pipeline.process import Pipeline, install_pipeline
from fuze_bench.pipeline.recovery import Recovery
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.settings import BUNDLED_MODEL, Settings
from fuze_bench.pipeline.task_queue import TaskQueue


class Ones:
    """An embedder whose vectors are all the same."""

    state = EmbeddingState.OK
    model_name = "ones"
    problem = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(texts), 2), dtype=np.float32)


@pytest.fixture
def lacking(settings: Settings) -> Iterator[Pipeline]:
    """As in a worker, or the API's threads, without the model."""
    pipeline = Pipeline(replace(settings, embedding_model="/no/such/model", recovery_interval_s=0.1))
    yield pipeline
    pipeline.close()


def stored(pipeline: Pipeline, origin: Origin, *numbers: int) -> list[int]:
    urls = [f"{origin.url}/page/{n}" for n in numbers]
    saved = pipeline.store.save([NewBookmark(user_id=1, url=url, canonical_url=url) for url in urls])
    ids = [each.bookmark.id for each in saved]
    pipeline.process(ids)
    assert embeddings(pipeline) >= {EmbeddingState.UNAVAILABLE}
    return ids


def embeddings(pipeline: Pipeline) -> set[str]:
    return {row["embedding"] for row in pipeline.store.rows("embedding")}


def low(settings: Settings) -> Queue:
    return Queue("low", connection=connect(settings.redis_url or ""), serializer=JSONSerializer)


@pytest.fixture
def look(lacking: Pipeline) -> Callable[[], None]:
    """A look of any process that recovers, with its own memory of when it looked last."""

    def look_once(settings: Settings = lacking.settings) -> None:
        Recovery(settings, lacking.store, TaskQueue(settings)).when_due()

    return look_once


def test_they_are_asked_for_now_and_then_and_once(
    lacking: Pipeline, look: Callable[..., None], origin: Origin
) -> None:
    queue = low(lacking.settings)
    look()
    assert queue.count == 0, "nothing is missing"
    stored(lacking, origin, 1)
    wait_until(lambda: look() or queue.count, what="a later look")
    [job] = queue.get_jobs()
    assert job.timeout == lacking.settings.job_timeout_s
    connection = queue.connection
    forget = "fuze:first:vectors"
    connection.delete(forget)
    look()
    assert queue.count == 1, "it waits already"
    queue.empty()
    with connection.pipeline() as pipeline:
        Execution.create(job, ttl=60, pipeline=pipeline)
        pipeline.execute()
    connection.delete(forget)
    look()
    assert queue.count == 0, "it is being done"


def test_nobody_is_asked_where_embedding_is_off(
    lacking: Pipeline, look: Callable[..., None], origin: Origin
) -> None:
    stored(lacking, origin, 1)
    look(replace(lacking.settings, embedding_model="off"))
    assert low(lacking.settings).count == 0


def test_a_look_while_redis_is_away_says_nothing(
    lacking: Pipeline,
    look: Callable[..., None],
    origin: Origin,
    private_redis: PrivateRedis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stored(lacking, origin, 1)
    private_redis.stop()
    look()
    assert not [r for r in caplog.records if r.name.endswith("recovery")]


def test_the_job_goes_on_until_nothing_is_left(
    lacking: Pipeline, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small jobs, one after another, so that others have their turn between them."""
    monkeypatch.setattr(process, "_FILL_IN_BATCH", 1)
    monkeypatch.setattr(process, "_FILL_IN_MAX_S", 0.0)
    stored(lacking, origin, 1, 2, 3)
    having = Pipeline(lacking.settings, store=lacking.store, embedder=Ones())
    install_pipeline(having)
    TaskQueue(lacking.settings).ask_for_vectors()
    queue = low(lacking.settings)
    worker = SimpleWorker([queue], connection=queue.connection, serializer=JSONSerializer)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        worker.work(burst=True)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        install_pipeline(None)
    assert embeddings(lacking) == {EmbeddingState.OK}
    assert queue.count == 0
    assert len(queue.finished_job_registry) == 1


@pytest.mark.xdist_group("model")
def test_a_running_worker_does_what_is_stored_later(
    lacking: Pipeline, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    having = replace(settings, embedding_model=BUNDLED_MODEL, recovery_interval_s=0.1, lease_check_s=0.1)
    with start_worker(having):
        [bookmark_id] = stored(lacking, origin, 1)
        wait_until(lambda: embeddings(lacking) == {EmbeddingState.OK}, timeout_s=120, what="the vector")
    assert len(lacking.store.content(bookmark_id)[1] or b"") == 4 * 384
