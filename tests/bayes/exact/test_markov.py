"""Covariances, draws and totals of the coefficient functions, against one Gaussian of all states at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tenfac.bayes.exact import levels, smoother
from tenfac.bayes.exact.posterior import root_of, roots_of
from tenfac.core.modes.state_space import StateSpace, correlation
from tests.checks import assert_below, assert_close, assert_draws, assert_equal

SEEN = np.array([0.0, 0.2, 0.25, 0.7, 1.0])
PLACES = np.array([-0.4, 0.0, 0.1, 0.25, 0.6, 1.0, 1.3])  # left of, at, between and right of the observed
SIZE = 3


def data(noise: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(3)
    counts = (2, 4, 1, 1, 3)
    designs = [rng.normal(size=(n, SIZE)) / noise for n in counts]
    return designs, [rng.normal(size=n) / noise for n in counts]


def dense(cov: Callable[[Any, Any], np.ndarray], places: np.ndarray, noise: float) -> tuple[Any, Any]:
    """Mean and covariance of ``h`` at places, entries of one place side by side."""
    designs, targets = data(noise)
    blocks = [np.kron(np.eye(1, SEEN.size, t), design) for t, design in enumerate(designs)]
    design, target = np.concatenate(blocks), np.concatenate(targets)
    prior = np.kron(cov(SEEN, SEEN), np.eye(SIZE))
    cross = np.kron(cov(places, SEEN), np.eye(SIZE))
    gain = np.linalg.solve(design @ prior @ design.T + np.eye(len(target)), design @ cross.T).T
    return gain @ target, np.kron(cov(places, places), np.eye(SIZE)) - gain @ design @ cross.T


def posterior(kind: str, noise: float = 0.3) -> tuple[Any, np.ndarray, Any]:
    """A posterior, places to ask it at, and its dense twin's prior covariance."""
    designs, targets = data(noise)
    if kind == "levels":
        shared = np.random.default_rng(4).normal(size=(SEEN.size, 2))
        post, _ = levels.solve(designs, targets, shared)

        def cov(x: Any, z: Any) -> np.ndarray:
            i, j = (np.searchsorted(SEEN, part) for part in (x, z))
            return shared[i] @ shared[j].T + np.equal.outer(i, j)

        return post, SEEN[[0, 1, 3]], cov
    prior = smoother.Prior((smoother.Group(StateSpace(kind, 0.4), SIZE),))
    post, _ = smoother.solve(designs, targets, SEEN, prior)
    return post, PLACES, lambda x, z: correlation(np.asarray(x), np.asarray(z), kind, 0.4)


def asked(kind: str, places: np.ndarray) -> np.ndarray:
    return np.searchsorted(SEEN, places).astype(float) if kind == "levels" else places


every_kind = pytest.mark.parametrize("kind", ["matern12", "matern32", "matern52", "levels"])


@every_kind
def test_covariances_between_any_places_are_the_dense_ones(kind: str) -> None:
    post, places, cov = posterior(kind)
    order = np.random.default_rng(0).permutation(np.tile(np.arange(places.size), 2))  # in any order, twice
    rows = np.random.default_rng(1).normal(size=(order.size, SIZE))
    mean, want = dense(cov, places, 0.3)
    lifted = np.zeros((order.size, mean.size))
    for n, (place, row) in enumerate(zip(order, rows, strict=True)):
        lifted[n, place * SIZE : (place + 1) * SIZE] = row
    assert_close(post.cov(asked(kind, places[order]), rows), lifted @ want @ lifted.T, factor=1e5)
    assert_close(post.at(asked(kind, places))[0].ravel(), mean, factor=1e5)


@every_kind
def test_draws_have_the_dense_mean_and_covariance(kind: str) -> None:
    post, places, cov = posterior(kind)
    mean, want = dense(cov, places, 0.3)
    count = 6000
    draws = post.sample(count, asked(kind, places), np.random.default_rng(0)).reshape(count, -1)
    assert_draws(draws, mean, want)


@pytest.mark.parametrize("kind", ["matern12", "matern32", "matern52"])
def test_draws_in_many_short_walks_are_those_of_one_walk(kind: str, monkeypatch) -> None:
    post, places, cov = posterior(kind)
    monkeypatch.setattr("tenfac.bayes.exact.markov._BLOCK", 2)
    whole = post.sample(40, places, np.random.default_rng(0))
    monkeypatch.setattr("tenfac.bayes.exact.markov._NUMBERS", 1)
    parts = post.sample(40, places, np.random.default_rng(0))
    assert_equal(whole.shape, parts.shape)
    std = np.sqrt(np.diag(dense(cov, places, 0.3)[1])).reshape(whole.shape[1:])
    off = np.abs(whole.mean(axis=0) - parts.mean(axis=0)) / std * np.sqrt(20)
    assert_below(off.max(), 4.5, "distance of the means, in standard errors")


@pytest.mark.parametrize("kind", ["matern12", "matern32", "matern52"])
def test_noiseless_values_fix_draws_and_covariances(kind: str) -> None:
    designs = [np.eye(SIZE) * 1e7 for _ in SEEN]
    values = np.random.default_rng(0).normal(size=(SEEN.size, SIZE))
    prior = smoother.Prior((smoother.Group(StateSpace(kind, 0.4), SIZE),))
    post, _ = smoother.solve(designs, [1e7 * v for v in values], SEEN, prior)
    draws = post.sample(20, SEEN, np.random.default_rng(0))
    assert_below(np.abs(draws - values).max(), 1e-6, "distance of a draw from the exact values")
    cov = post.cov(SEEN, np.ones((SEEN.size, SIZE)))
    assert_below(np.abs(cov).max(), 1e-12, "covariance at exact values")


@every_kind
def test_a_total_is_the_dense_weighted_sum(kind: str) -> None:
    post, _, cov = posterior(kind)
    rng = np.random.default_rng(5)
    weights, factor = rng.normal(size=(SEEN.size, SIZE)), rng.normal(size=(SIZE, SIZE))
    combine = np.hstack([np.diag(w) @ factor for w in weights])
    mean, want = dense(cov, SEEN, 0.3)
    got_mean, got_cov = post.total(weights, factor)
    assert_close(got_mean, combine @ mean, factor=1e5)
    assert_close(got_cov, combine @ want @ combine.T, factor=1e5)


def test_no_draws_and_no_places_are_empty() -> None:
    for kind in ("matern32", "levels"):
        post, places, _ = posterior(kind)
        rng = np.random.default_rng(0)
        assert_equal(post.sample(0, asked(kind, places), rng).shape, (0, places.size, SIZE))
        assert_equal(post.sample(2, np.zeros(0), rng).shape, (2, 0, SIZE))
        assert_equal(post.cov(np.zeros(0), np.zeros((0, SIZE))).shape, (0, 0))


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
def test_roots_of_singular_matrices_square_to_them(rank: int) -> None:
    half = np.random.default_rng(rank).normal(size=(5, rank))
    cov = half @ half.T
    root = root_of(cov)
    assert_close(root @ root.T, cov, scale=1.0)
    several = roots_of(np.stack([cov, np.eye(5), np.zeros((5, 5))]))
    assert_close(np.einsum("uij,ukj->uik", several, several)[:2], np.stack([cov, np.eye(5)]), scale=10.0)
    assert_equal(several[2], np.zeros((5, 5)))
