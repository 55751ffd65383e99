"""Simulated experiments with known answers: figures of a baseline, its copy and a rival, under four kinds of noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Figures = NDArray[np.float64]
NOISES = ("normal", "lognormal", "drifting", "outlier")


def figures(
    noise: str, sd: float, *, experiments: int, blocks: int, ratio: float, seed: int
) -> tuple[Figures, Figures, Figures]:
    """Baseline, its copy and the rival (`ratio` times as much), each experiments × blocks.

    normal: errors of `sd` of the figure. lognormal: of its logarithm. drifting: a machine that slows by a random
    walk from trial to trial, faster within the run as a whole, the order of the three turned round in every other
    block. outlier: of 2 % of the trials, 1.1 to 1.5 times slower than the others.
    """
    rng = np.random.default_rng(seed)
    shape = (3, experiments, blocks)
    # Each block has a level of its own, which a ratio must not see.
    levels = np.exp(rng.normal(0, 0.3, (experiments, blocks)))
    errors = rng.standard_normal(shape) * sd
    factors = np.maximum(1 + errors, 0.05) if noise == "normal" else np.exp(errors)
    if noise == "drifting":
        walk = rng.normal(0.004, 0.4 * sd, (experiments, 3 * blocks)).cumsum(axis=1)
        in_order = walk.reshape(experiments, blocks, 3)
        turned = np.where(np.arange(blocks)[None, :, None] % 2, in_order[..., ::-1], in_order)
        factors = factors * np.exp(-np.moveaxis(turned, -1, 0))
    if noise == "outlier":
        factors = factors / np.where(rng.random(shape) < 0.02, rng.uniform(1.1, 1.5, shape), 1)
    baseline, copy, rival = 10 * levels * factors
    return baseline, copy, rival * ratio


def by_block(figures_of_one: Figures) -> dict[int, float]:
    """One experiment's figures as the functions under test take them."""
    return dict(enumerate(figures_of_one.tolist(), start=1))
