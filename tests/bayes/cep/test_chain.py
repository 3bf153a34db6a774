"""Chains of Matérn processes against dense Gaussian algebra."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.bayes.cep.bridge import bridges, thinned
from tenfac.bayes.cep.chain import Chain
from tests.bayes.toys import SMOOTHNESS
from tests.checks import assert_above, assert_below, assert_close, assert_equal
from tests.oracles import matern_dense

LENGTHS, VARIANCES = np.array([0.2, 0.7]), np.array([1.5, 0.3])
BEYOND = np.array([-8.0, -0.4, 0.33, 0.5, 1.7, 9.0])


def dense(t: np.ndarray, kernel: str, information: np.ndarray, shift: np.ndarray) -> tuple:
    """Means, covariances and log of the integral, at ``t`` and then at ``BEYOND``."""
    x = np.concatenate([t, BEYOND])
    prior = np.zeros((x.size, 2, x.size, 2))
    known = np.zeros_like(prior)
    for r in range(2):
        prior[:, r, :, r] = VARIANCES[r] * matern_dense(x, x, SMOOTHNESS[kernel], LENGTHS[r])
    for i in range(t.size):
        known[i, :, i, :] = information[i]
    prior, known = prior.reshape(2 * x.size, -1), known.reshape(2 * x.size, -1)
    told = np.concatenate([shift.ravel(), np.zeros(2 * BEYOND.size)])
    ratio = np.eye(told.size) + prior @ known
    cov = np.linalg.solve(ratio, prior)
    log_z = 0.5 * told @ cov @ told - 0.5 * np.linalg.slogdet(ratio)[1]
    covs = cov.reshape(x.size, 2, x.size, 2)
    return (cov @ told).reshape(-1, 2), np.stack([covs[i, :, i] for i in range(x.size)]), log_z


def sites(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    root = rng.normal(size=(size, 2, 3))
    return 3 * root @ root.transpose(0, 2, 1), rng.normal(size=(size, 2))


@pytest.mark.parametrize("kernel", ["matern12", "matern32", "matern52"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 40])
def test_a_chain_equals_the_dense_gaussian_at_between_and_beyond_its_indices(kernel: str, size: int) -> None:
    rng = np.random.default_rng(size)
    t = np.sort(rng.random(size))
    information, shift = sites(size, rng)
    mean, cov, log_z = dense(t, kernel, information, shift)
    chain = Chain(t, kernel)
    got = chain.solve(information, shift, LENGTHS, VARIANCES)
    order = chain.order
    assert_close(got.mean[:, ::order], mean[:size], factor=1e4, scale=1.0)
    assert_close(got.cov[:, ::order, ::order], cov[:size], factor=1e4, scale=1.0)
    assert_close(got.log_z, log_z, factor=1e4)
    at_mean, at_cov = chain.at(np.concatenate([t, BEYOND]), got, LENGTHS, VARIANCES)
    assert_close(at_mean, mean, factor=1e4, scale=1.0)
    assert_close(at_cov, cov, factor=1e4, scale=1.0)


@pytest.mark.parametrize("kernel", ["matern12", "matern32", "matern52"])
def test_indices_far_closer_than_a_lengthscale_lose_no_digits(kernel: str) -> None:
    rng = np.random.default_rng(5)
    t = np.cumsum(rng.uniform(1e-6, 1e-5, 60))
    information, shift = sites(60, rng)
    mean, cov, log_z = dense(t, kernel, information, shift)
    got = Chain(t, kernel).solve(information, shift, LENGTHS, VARIANCES)
    order = Chain(t, kernel).order
    assert_close(got.mean[:, ::order], mean[:60], factor=1e6, scale=1.0)
    assert_close(got.log_z, log_z, factor=1e6)
    values = got.cov[:, ::order, ::order]
    assert_close(values, cov[:60], factor=1e6, scale=1.0)
    assert_below(-np.linalg.eigvalsh(values).min(), 1e-15, "negative variance of a value")


def test_the_covariance_with_the_next_index_is_that_of_the_dense_gaussian() -> None:
    t = np.array([0.0, 0.1, 0.15, 0.4, 0.7, 1.0])
    information, shift = sites(6, np.random.default_rng(0))
    prior = np.zeros((6, 2, 6, 2))
    known = np.zeros_like(prior)
    for r in range(2):
        prior[:, r, :, r] = VARIANCES[r] * matern_dense(t, t, 0.5, LENGTHS[r])
    for i in range(6):
        known[i, :, i] = information[i]
    cov = np.linalg.inv(np.linalg.inv(prior.reshape(12, 12)) + known.reshape(12, 12)).reshape(6, 2, 6, 2)
    got = Chain(t, "matern12").solve(information, shift, LENGTHS, VARIANCES)
    assert_close(got.cross, np.stack([cov[i, :, i + 1] for i in range(5)]), factor=1e4)


def test_every_inner_index_is_taken_out_once_between_indices_that_stay() -> None:
    for size in range(1, 40):
        levels = thinned(size)
        out = np.concatenate([level.out for level in levels]) if levels else np.zeros(0, int)
        assert_equal(sorted(out.tolist()), list(range(1, size - 1)))
        for level in levels:
            assert_above(np.stack([level.out - level.left, level.right - level.out]).min(), 1, "distance")


def test_a_bridge_over_any_distance_is_finite() -> None:
    distances = np.array([0.0, 1e-12, 1e-3, 1.0, 1e6])
    for kernel in ("matern12", "matern32", "matern52"):
        for before in distances[1:]:
            parts = bridges(kernel, np.ones(1), np.full(5, before), distances)
            assert all(np.isfinite(part).all() for part in parts)


@pytest.mark.parametrize("kernel", ["matern12", "matern32", "matern52"])
@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_the_average_over_the_indices_is_that_of_the_dense_gaussian(kernel: str, size: int) -> None:
    rng = np.random.default_rng(size)
    t = np.sort(rng.random(size))
    information, shift = sites(size, rng)
    prior, known = np.zeros((2, size, 2, size, 2))
    for r in range(2):
        prior[:, r, :, r] = VARIANCES[r] * matern_dense(t, t, SMOOTHNESS[kernel], LENGTHS[r])
    known[np.arange(size), :, np.arange(size)] = information
    prior, known = prior.reshape(2 * size, -1), known.reshape(2 * size, -1)
    cov = np.linalg.solve(np.eye(2 * size) + prior @ known, prior)
    chain = Chain(t, kernel)
    mean, got = chain.solve(information, shift, LENGTHS, VARIANCES).average()
    order = chain.order
    assert_close(mean[::order], (cov @ shift.ravel()).reshape(size, 2).mean(axis=0), factor=1e5, scale=1.0)
    want = cov.reshape(size, 2, size, 2).mean(axis=(0, 2))
    assert_close(got[::order, ::order], want, factor=1e5, scale=1.0)
