"""Cores of a train from inside: numbers that conversions make, what rounding decomposes, work at points."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from tenfac import Chebyshev, Tucker, TuckerTrain
from tenfac.core import train_cores as module
from tenfac.core.arrays import namespace_of
from tests.checks import assert_close, assert_equal

XP = namespace_of(np.ones(1))


def functions(ranks, bonds, sizes=None, seed=0):
    """A train of Chebyshev modes with random numbers."""
    rng, ends = np.random.default_rng(seed), [1, *bonds, 1]
    cores = [rng.standard_normal(shape) for shape in zip(ends[:-1], ranks, ends[1:], strict=True)]
    sizes = [rank + 1 for rank in ranks] if sizes is None else sizes
    factors = [rng.standard_normal(shape) for shape in zip(sizes, ranks, strict=True)]
    return TuckerTrain(cores, factors, [Chebyshev(size) for size in sizes])


@pytest.mark.parametrize(
    "sizes", [(2, 3, 4), (2, 2, 9), (9, 2, 2), (1, 1, 1), (1, 1, 3), (4,), (0, 3), (3, 2, 2, 3)]
)
def test_a_core_becomes_a_train_of_as_few_numbers_as_there_can_be(sizes):
    core = np.random.default_rng(0).standard_normal(sizes)
    cores = module.from_core(core, len(sizes), XP)
    assert_equal(module.dense(cores, XP), core)

    def numbers(place):  # the core at this place, unit matrices before and after
        before = sum(np.prod(sizes[: n + 1]) ** 2 for n in range(place))
        return before + core.size + sum(np.prod(sizes[n:]) ** 2 for n in range(place + 1, len(sizes)))

    assert_equal(sum(part.size for part in cores), int(min(map(numbers, range(len(sizes))))))


def test_the_last_cut_of_rounding_may_spend_all_that_is_left():
    # modes 0 and 1 and the first bond lose nothing; the last bond gets half, the last mode all of the rest
    mixed = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0] * 10.0 ** -np.arange(12)
    tol = 1.1 * np.linalg.norm(mixed[:, 3:]) / np.linalg.norm(mixed)
    t = Tucker(mixed.reshape(4, 3, 12), [np.eye(4), np.eye(3), np.eye(12)]).to_train()
    assert_equal(t.round(tol=tol).rank, (4, 3, 3))


def test_rounding_decomposes_no_matrix_that_is_wider_than_high():
    t = functions((4, 9, 3, 2), (3, 4, 2))
    with mock.patch.object(XP.linalg, "svd", side_effect=XP.linalg.svd) as svd:
        t.round(train_rank=2)
    shapes = [call.args[0].shape for call in svd.call_args_list]
    assert_equal((len(shapes), {rows >= columns for rows, columns in shapes}), (7, {True}))


def test_the_laplacian_of_a_batch_is_that_of_each():
    ones = [functions((2, 3, 2), (2, 3), seed=seed) for seed in (0, 1)]
    pairs = zip(*(t._arrays().values() for t in ones), strict=True)
    arrays = [np.stack(pair) for pair in pairs]
    many = TuckerTrain(arrays[:3], arrays[3:], ones[0].modes)
    x = np.random.default_rng(2).uniform(-1, 1, (3, 5))
    assert_close(many.laplacian().at(*x), np.stack([t.laplacian().at(*x) for t in ones]), 1e4)


def test_points_of_one_mode_have_values_and_slopes():
    mode, rng = Chebyshev(5), np.random.default_rng(0)
    core, factor = rng.standard_normal(3), rng.standard_normal((5, 3))
    t, x = TuckerTrain([core[None, :, None]], [factor], [mode]), np.linspace(-1, 1, 7)
    value, slope = t.value_and_grad(x)
    for got in (t.at(x), value):
        assert_close(got, np.polynomial.chebyshev.chebval(x, factor @ core))
    derivative = np.polynomial.chebyshev.chebder(factor @ core)
    assert_close(slope[:, 0], np.polynomial.chebyshev.chebval(x, derivative), 1000)


@pytest.mark.parametrize(("bonds", "most"), [((2, 9, 2), 6), ((9, 2, 2), 6), ((2, 2, 9), 6), ((4, 4, 4), 12)])
def test_at_points_the_widest_bond_meets_no_mode_and_blocks_follow_the_largest_product(bonds, most):
    t = functions((3, 3, 3, 3), bonds)
    x = np.random.default_rng(0).uniform(-1, 1, (4, 5))
    with (
        mock.patch.object(module, "_LONGER", 2),
        mock.patch.object(module, "row_pairs", side_effect=module.row_pairs) as pairs,
    ):
        assert_close(t.at(*x), t.to_tucker().at(*x), 1e4)
        assert_equal(t._kernel(XP).width, most // 2)
    rows = [call.args[0].shape[-2] * call.args[1].shape[-2] for call in pairs.call_args_list]
    assert_equal(max(rows), most)


def test_a_large_batch_of_small_trains_is_evaluated_at_few_points_at_once():
    cores = [np.ones((2**9, 1, 2, 2)), np.ones((2**9, 2, 2, 1))]
    t = TuckerTrain(cores, [np.ones((2**9, 1, 2))] * 2)
    rows, whole = [np.ones((2**9, 600, 2))] * 2, module.TrainKernel.value
    with mock.patch.object(module.TrainKernel, "value", autospec=True, side_effect=whole) as value:
        assert_close(t._at_rows(rows, XP), np.full((2**9, 600), 8.0))
    assert_equal([call.args[1][0].shape[-1] for call in value.call_args_list], [256, 256, 88])
