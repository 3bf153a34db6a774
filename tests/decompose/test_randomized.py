"""Randomised Tucker: the error of the deterministic one on long modes, reported as it is."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import RankError, randomized_tucker, tucker
from tenfac.decompose import randomized as module
from tests.checks import (
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
)
from tests.oracles import true_error, tucker_dense


def noisy(shape, rank=4, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    factors = [rng.standard_normal((size, rank)) * 0.8 ** np.arange(rank) for size in shape]
    X = tucker_dense(rng.standard_normal((rank,) * len(shape)), factors)
    return X + noise * np.std(X) * rng.standard_normal(shape)


@pytest.mark.parametrize("shape", [(300, 20, 15), (12, 200, 180), (150, 7, 140), (400, 300), (5, 6, 130, 8)])
@pytest.mark.parametrize("rank", [3, 4])
def test_the_error_is_within_one_percent_of_that_of_tucker(shape, rank):
    X = noisy(shape)
    t = randomized_tucker(X, rank)
    assert_below(true_error(t, X), 1.01 * tucker(X, rank).info.rel_error, "error")
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 1e-6, "reported over true error - 1")
    for factor in t.factors:
        assert_close(factor.T @ factor, np.eye(rank))


def test_library_and_dtype_are_kept(make):
    X = make.asarray(noisy((200, 150, 6)))
    t = randomized_tucker(X, 4)
    assert_same_kind(t.core, X)
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 0.01, "reported over true error - 1")


def test_a_low_rank_is_recovered_and_the_error_is_of_rounding():
    X = noisy((250, 120, 9), noise=0.0)
    t = randomized_tucker(X, 4)
    assert_relative(t.to_tensor(), X, 1e-13)
    assert_below(t.info.rel_error, 1e-13, "reported error")


def test_complex_data_and_extreme_scales():
    X = noisy((200, 20, 6)) + 1j * noisy((200, 20, 6), seed=1)
    t = randomized_tucker(X, 5)
    assert_below(true_error(t, X), 1.01 * tucker(X, 5).info.rel_error, "error")
    for scale in (1e-300, 1e200):
        assert_relative(randomized_tucker(X * scale, 5).to_tensor() / scale, t.to_tensor(), 1e-9)


def test_power_iterations_lower_the_error_of_noisy_data():
    X = noisy((400, 300), noise=1.0)
    errors = [randomized_tucker(X, 4, power_iterations=q, oversampling=2).info.rel_error for q in (0, 1, 3)]
    assert_below(errors[1], errors[0] - 1e-3, "one power iteration against none")
    assert_below(errors[2], errors[1], "three power iterations against one")


@pytest.mark.parametrize(
    ("shape", "rank", "modes"),
    [
        ((80, 79, 30), 2, [0]),  # of modes of eight sketches of ten columns and more
        ((100, 160, 12), (2, 2, 2), [1, 0]),  # the one that shrinks most first
        ((100, 160, 12), (2, 4, 2), [0, 1]),
        ((400, 3, 3), 2, []),  # not where the unfolding has fewer columns than the sketch
        ((400, 5, 2), 2, [0]),
    ],
)
def test_long_modes_are_sketched_and_the_others_are_not(shape, rank, modes, monkeypatch):
    sketched, plain = [], module._sketched
    monkeypatch.setattr(module, "_sketched", lambda X, n, *a: (sketched.append(n), plain(X, n, *a))[1])
    X = noisy(shape, rank=2, noise=0.1)
    t = randomized_tucker(X, rank)
    assert_equal(sketched, modes)
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 1e-6, "reported over true error - 1")


def test_the_same_seed_gives_the_same_bits():
    X = noisy((200, 20, 6))
    assert_equal(randomized_tucker(X, 3, random_state=1).core, randomized_tucker(X, 3, random_state=1).core)


def test_wrong_settings_are_refused():
    for kwargs in ({"oversampling": -1}, {"power_iterations": 0.5}):
        with pytest.raises(ValueError, match="must be an integer of 0 or more") as error:
            randomized_tucker(np.ones((4, 4)), 1, **kwargs)
        assert_says(error, "randomized_tucker:", next(iter(kwargs)))
    with pytest.raises(RankError):
        randomized_tucker(np.ones((4, 4)), 5)
