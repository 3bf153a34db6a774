"""Made problems: the model holds, the noise has its power, the channel is that of its matrices."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest

from tenfac.core.errors import DataError, ShapeError
from tenfac.datasets import IRSChannel, SparseProblem, make_irs_channel, make_kronecker_sparse
from tenfac.datasets.irs import steering
from tests.checks import assert_below, assert_close, assert_equal, assert_relative, assert_says


@pytest.mark.parametrize("complex_values", [False, True])
@pytest.mark.parametrize("snapshots", [None, 4])
@pytest.mark.parametrize("values", ["free", "rank1"])
def test_without_noise_the_measurements_are_the_dictionaries_times_the_coefficients(
    values: str, snapshots: int | None, complex_values: bool
) -> None:
    options: dict[str, Any] = {"values": values, "snapshots": snapshots, "complex_values": complex_values}
    made = make_kronecker_sparse((3, 4, 2), (5, 6, 4), (2, 3, 1), snr_db=np.inf, random_state=0, **options)
    x = made.coef_tensor()
    T = snapshots or 1
    want = reduce(np.kron, made.factors) @ x.reshape(-1, T)
    assert_relative(made.y.reshape(-1, T), want, 1e-13)
    assert_equal(made.noise, 0.0)
    assert made.y.shape == (3, 4, 2, *((snapshots,) if snapshots else ()))
    assert np.iscomplexobj(made.y) == complex_values
    assert_equal(int((x != 0).sum()), 6 * T)
    rank = np.linalg.matrix_rank(made.coef.reshape(2, 3, T)[:, :, 0])
    assert_equal(int(rank), 1 if values == "rank1" else 2)


@pytest.mark.parametrize("complex_values", [False, True])
def test_the_noise_has_the_power_that_is_asked_for(complex_values: bool) -> None:
    options: dict[str, Any] = {"complex_values": complex_values, "random_state": 1}
    clean = make_kronecker_sparse((60, 70), 40, 3, snr_db=np.inf, **options)
    noisy = make_kronecker_sparse((60, 70), 40, 3, snr_db=10, **options)
    assert_equal(noisy.factors[1], clean.factors[1])
    assert_close(noisy.noise**2, float(np.mean(abs(clean.y) ** 2)) / 10)
    assert_relative(np.mean(abs(noisy.y - clean.y) ** 2), noisy.noise**2, 0.15)
    for A in noisy.factors:
        assert_relative(np.mean(abs(A) ** 2), 1.0, 0.15)


def test_the_same_seed_makes_the_same_problem() -> None:
    one, two, other = (make_kronecker_sparse(random_state=seed) for seed in (5, 5, 6))
    assert_equal(one.y, two.y)
    assert abs(one.y - other.y).max() > 0
    a, b = (make_irs_channel(random_state=np.random.default_rng(0)) for _ in range(2))
    assert_equal(a.y, b.y)


def dense_channel(made: IRSChannel, leaving: int) -> tuple[Any, Any]:
    """The two channels as matrices, for one angle at which the surface may send: only their product shows."""
    (_, angles), base = made.mobile_dictionary.shape, made.factors[2]
    surface = steering(len(made.patterns), angles)
    arrival = (leaving - made.support[0]) % angles
    left, _, right = np.linalg.svd(made.coef[:, 0])
    H1 = surface[:, arrival] @ left[:, :1] @ made.mobile_dictionary[:, made.support[1]].T
    weights = np.linalg.norm(made.coef) * base[:, made.support[2]] @ right[0][:, None]
    return H1, weights @ surface[:, leaving : leaving + 1].conj().T


@pytest.mark.parametrize("leaving", [0, 11])
def test_the_channel_is_that_through_the_surface(leaving: int) -> None:
    made = make_irs_channel(np.inf, random_state=3)
    H1, H2 = dense_channel(made, leaving)
    for k, pattern in enumerate(made.patterns.T):
        H = H2 @ np.diag(pattern) @ H1
        assert_relative(made.channel[k], H.T, 1e-11)
        assert_relative(made.y[k], (H @ made.pilots).T, 1e-11)
    assert_relative(made.channel_of(made.coef_tensor()), made.channel, 1e-11)


def test_the_channel_has_the_sizes_and_the_design_of_the_paper() -> None:
    made = make_irs_channel(12, random_state=0)
    assert_equal([A.shape for A in made.factors], [(6, 18), (3, 18), (16, 18)])
    assert_equal(made.channel.shape, (6, 6, 16))
    assert_equal([rows.size for rows in made.support], [3, 1, 3])
    assert_close(abs(made.pilots), np.full((6, 3), 1 / np.sqrt(6)))
    assert_close(abs(made.patterns), np.full((256, 6), 1 / 16))
    power = np.mean(abs(np.einsum("kab,at->ktb", made.channel, made.pilots)) ** 2)
    assert_close(made.noise**2, float(power / 10**1.2), factor=1e3)
    assert_close(made.channel_nmse(np.zeros((18, 18, 18))), 1.0)


def test_a_design_is_taken_over() -> None:
    first = make_irs_channel(random_state=0)
    second = make_irs_channel(random_state=1, design=first)
    assert_equal(second.factors[0], first.factors[0])
    assert_equal(second.factors[1], first.factors[1])
    assert abs(second.channel - first.channel).max() > 0
    with pytest.raises(TypeError, match="`design` must be a channel"):
        make_irs_channel(design="first")
    with pytest.raises(ShapeError) as caught:
        make_irs_channel(pilots=4, design=first)
    assert_says(caught, "(6, 4)", "(6, 3)")


def test_gains_have_the_power_of_the_paper() -> None:
    power = [np.sum(abs(make_irs_channel(random_state=seed).coef) ** 2) for seed in range(200)]
    assert_relative(np.mean(power), 256**2 * 16 * 6, 0.25)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        ((8, 15), {}, ShapeError, "`measurements`"),
        (((8, 9), (15,)), {}, ShapeError, "`unknowns`"),
        (((8, 9), 15, 16), {}, DataError, "at most unknowns"),
        (((8, 0), 15), {}, DataError, "`measurements`"),
        (((8, 9), 15, 2.5), {}, ShapeError, "`columns`"),
        (((8, 9), 15), {"values": "rank-1"}, DataError, "Did you mean 'rank1'?"),
        (((8, 9), 15), {"snr_db": np.nan}, DataError, "`snr_db`"),
        (((8, 9), 15), {"snapshots": 0}, DataError, "`snapshots`"),
    ],
)
def test_sizes_that_are_none_are_refused(arguments: Any, options: Any, error: Any, said: str) -> None:
    with pytest.raises(error) as caught:
        make_kronecker_sparse(*arguments, **options)
    assert_says(caught, said)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"spread": 19}, "18 angles"), ({"pilots": 0}, "`pilots`"), ({"snr_db": "loud"}, "'loud'")],
)
def test_channels_that_cannot_be_are_refused(options: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        make_irs_channel(**options)
    assert_says(caught, said)


def test_a_dense_tensor_beyond_the_limit_is_refused_and_one_within_is_made() -> None:
    made: SparseProblem = make_kronecker_sparse((2, 2, 2), 2000, 1, random_state=0)
    with pytest.raises(DataError) as caught:
        made.coef_tensor()
    assert_says(caught, "64,000,000,000 bytes")
    with pytest.raises(ShapeError) as error:
        make_irs_channel().channel_of(np.ones(3))
    assert_says(error, "(18, 18, 18)")
    assert_below(made.coef.size, 1, "values")
