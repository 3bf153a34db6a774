"""What is of the train alone: its cores, rounding of both kinds of rank, ways to and from other formats."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import tenfac
from tenfac import (
    CP,
    Chebyshev,
    DataError,
    Discrete,
    RankError,
    ShapeError,
    Tucker,
    TuckerTrain,
    from_tensorly,
)
from tenfac.core.modes.chebyshev import coefficients
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_says,
    dtype_name,
    to_numpy,
)
from tests.oracles import format_dense, train_dense, true_error


def train(make, sizes=(4, 5, 3, 6), ranks=(2, 3, 2, 3), bonds=(2, 4, 3), modes=None, *batch):
    ends = [1, *bonds, 1]
    shapes = zip(ends[:-1], ranks, ends[1:], strict=True)
    cores = [make(*batch, *shape, seed=n) for n, shape in enumerate(shapes)]
    factors = [make(*batch, *shape, seed=n) for n, shape in enumerate(zip(sizes, ranks, strict=True))]
    return TuckerTrain(cores, factors, modes)


def decaying(make, d=5, size=6):
    """A train of ``1 / (1 + sum of the indices)``, whose singular values fall fast, without compression."""
    index = np.indices((size,) * d).sum(axis=0)
    dense = 1 / (1.0 + index)
    t = Tucker(make.asarray(dense), [make.asarray(np.eye(size))] * d)
    return t.to_train(), dense


# --- making ---------------------------------------------------------------------------------------------


def test_ranks_are_those_of_the_factors_and_of_the_bonds(make):
    t = train(make)
    assert_equal((t.rank, t.train_rank), ((2, 3, 2, 3), (2, 4, 3)))
    assert_says(repr(t), "rank=(2, 3, 2, 3), train_rank=(2, 4, 3)", "360 entries")
    assert_equal(train(make, (4,), (2,), ()).train_rank, ())


@pytest.mark.parametrize(
    ("cores", "parts"),
    [
        ([(1, 2, 3), (3, 2, 1)], ["one core per factor, 3", "got 2", "Tucker"]),
        ([(1, 2, 3), (2, 2, 3), (3, 2, 1)], ["cores[1]", "(3, 2, S_1)", "(2, 2, 3)"]),
        ([(1, 2, 3), (3, 3, 3), (3, 2, 1)], ["cores[1]", "(3, 2, S_1)", "(3, 3, 3)"]),
        ([(1, 2, 3), (3, 2, 3), (3, 2, 2)], ["cores[2]", "(3, 2, 1)", "(3, 2, 2)"]),
        ([(2, 2, 3), (3, 2, 3), (3, 2, 1)], ["cores[0]", "(1, 2, S_0)"]),
        ([(2, 3), (3, 2, 3), (3, 2, 1)], ["cores[0]", "(1, 2, S_0)", "(2, 3)"]),
        ([(1, 2, 3), (3, 2, 3), (7, 3, 2, 1)], ["cores[2]", "(7, 3, 2, 1)"]),
    ],
)
def test_cores_that_do_not_fit_are_named_with_the_shape_they_must_have(cores, parts):
    with pytest.raises(ShapeError) as error:
        TuckerTrain([np.ones(shape) for shape in cores], [np.ones((4, 2))] * 3)
    assert_says(error, "TuckerTrain", *parts)


def test_a_batch_gives_the_numbers_of_a_loop(make):
    t = train(make, (4, 5, 3), (2, 3, 2), (2, 3), None, 3)
    u = train(make, (4, 5, 3), (2, 2, 2), (3, 2), None, 3)
    dense = [
        train_dense(*(list(part) for part in ([c[k] for c in t.cores], [f[k] for f in t.factors])))
        for k in range(3)
    ]
    want = np.stack(dense)
    like = t.factors[0]
    assert_equal((t.batch_shape, t.rank, t.train_rank), ((3,), (2, 3, 2), (2, 3)))
    scale = float(np.abs(want).max())
    assert_close(t.to_tensor(), want, like=like)
    assert_close(t.at([0, 3], [1, 2], [2, 2]), want[:, [0, 3], [1, 2], [2, 2]], like=like, scale=scale)
    assert_close(t.norm(), np.linalg.norm(want.reshape(3, -1), axis=1), like=like)
    both = want + to_numpy(u.to_tensor())
    assert_close((t + u).to_tensor(), both, like=like)
    assert_close(t[:, 2].to_tensor(), want[:, :, 2], like=like, scale=scale)
    small = t.round(train_rank=1)
    assert_equal((small.train_rank, tuple(small.info.rel_error.shape)), ((1, 1), (3,)))
    lost = np.linalg.norm((to_numpy(small.to_tensor()) - want).reshape(3, -1), axis=1)
    error = lost / np.linalg.norm(want.reshape(3, -1), axis=1)
    assert_close(to_numpy(small.info.rel_error).astype(float), error.astype(float), 1e10)
    with pytest.raises(RankError) as caught:
        t.round(tol=0.1)
    assert_says(caught, "a batch", "train_rank")


# --- rounding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-4])
def test_rounding_keeps_the_tolerance_says_the_true_error_and_compresses_both_ranks(make, tol):
    t, dense = decaying(make)
    small = t.round(tol=tol)
    error = true_error(small, dense)
    assert_below(error, tol, "error")
    assert_above(error, tol / 30, "error")  # the budget is used
    assert_below(abs(small.info.rel_error - error), 1e-3 * error + 1e-6, "what info says")
    assert_below(max(*small.rank, *small.train_rank), 5, "rank")
    assert small.info.converged
    assert_equal(dtype_name(small.factors[0]), make.dtype)
    for factor in small.factors:
        basis = to_numpy(factor)
        assert_close(basis.T @ basis, np.eye(basis.shape[1]).astype(make.dtype), like=basis)
    assert_close(np.linalg.norm(to_numpy(small.cores[-1])), np.linalg.norm(format_dense(small)), 1e10)


def test_rounding_finds_the_exact_ranks_at_the_smallest_tolerance(make):
    t = train(make)
    twice = (t + t).round(tol=1e-14 if make.dtype == "float64" else 1e-6)
    assert_equal((twice.rank, twice.train_rank), (t.rank, t.train_rank))
    assert_close(twice.to_tensor(), 2 * format_dense(t), like=t.factors[0], factor=300)


@pytest.mark.parametrize("tol", [0.2, 0.5, 0.8])
def test_the_tolerance_is_kept_where_every_step_can_use_all_of_it(tol):
    make = _numpy_make()
    t = Tucker(make(*(4,) * 6), [make(5, 4, seed=n) for n in range(6)]).to_train()  # nothing small in it
    assert_below(true_error(t.round(tol=tol), format_dense(t)), tol, "error")


def test_a_closed_mode_leaves_the_smaller_of_its_bonds(make):
    t = train(make)
    assert_equal([u.train_rank for u in (t[:, 0], t[:, :, 0], t[0, ..., 1])], [(2, 3), (2, 3), (4,)])


def test_rounding_to_ranks_is_as_good_as_truncated_svds_allow(make):
    t, dense = decaying(make, d=4)
    small = t.round((2, 3, 3, 2), train_rank=(2, 2, 1))
    assert_equal((small.rank, small.train_rank), ((2, 3, 2, 1), (2, 2, 1)))
    tails = [np.linalg.svd(dense.reshape(6 ** (n + 1), -1))[1][r:] for n, r in enumerate((2, 2, 1))]
    bound = np.sqrt(sum(np.sum(tail**2) for tail in tails)) / np.linalg.norm(dense)
    error = true_error(small, dense)
    assert_below(error, 1.5 * bound, "error against quasi-optimality")
    assert_below(abs(small.info.rel_error - error), 1e-5 * error + 1e-6, "what info says")
    assert_equal(t.round(train_rank=2).train_rank, (2, 2, 2))
    assert_equal(t.round(1).rank, (1, 1, 1, 1))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, ["either rank", "neither"]),
        ({"rank": 2, "tol": 0.1}, ["not both"]),
        ({"train_rank": 2, "tol": 0.1}, ["not both", "train_rank=2"]),
        ({"train_rank": (2, 2)}, ["train_rank", "3 entries", "(2, 2)"]),
        ({"train_rank": "ab"}, ["train_rank"]),
        ({"train_rank": 0}, ["train_rank", "0"]),
        ({"rank": 9}, ["mode 0", "at most its size, 4"]),
        ({"tol": 1e-20}, ["tol must be at least"]),
    ],
)
def test_ranks_and_tolerances_that_make_no_sense_are_refused(options, parts):
    t = TuckerTrain(*map(list, train(_numpy_make())))
    with pytest.raises(RankError) as error:
        t.round(**options)
    assert_says(error, "round", *parts)


def _numpy_make():
    from tests.conftest import Make

    return Make("numpy", "float64")


def test_rounding_refuses_what_is_not_finite_or_empty_and_keeps_zero():
    cores = [np.ones((1, 2, 2)), np.ones((2, 2, 1))]
    cores[1][1, 0, 0] = np.nan
    with pytest.raises(DataError) as error:
        TuckerTrain(cores, [np.ones((3, 2))] * 2).round(tol=0.1)
    assert_says(error, "round", "cores.1", "(1, 0, 0)")
    empty = TuckerTrain([np.ones((1, 2, 0)), np.ones((0, 2, 1))], [np.ones((3, 2))] * 2)
    assert_equal(empty.to_tensor(), np.zeros((3, 3)))
    with pytest.raises(ShapeError) as error:
        empty.round(1)
    assert_says(error, "round", "Leave out")
    zero = (0 * TuckerTrain([np.ones((1, 2, 2)), np.ones((2, 2, 1))], [np.ones((3, 2))] * 2)).round(tol=0.1)
    assert_equal((zero.rank, zero.train_rank, zero.info.rel_error), ((1, 1), (1,), 0.0))
    assert_equal(zero.to_tensor(), np.zeros((3, 3)))


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_rounding_does_not_depend_on_the_scale(scale):
    t, dense = decaying(_numpy_make(), d=4)
    small = TuckerTrain([t.cores[0] * scale, *t.cores[1:]], t.factors).round(tol=1e-3)
    assert_equal(small.train_rank, t.round(tol=1e-3).train_rank)
    assert_below(true_error(small * (1 / scale), dense), 1e-3, "error")


def test_float16_is_rounded_in_float32_and_reports_its_own_rounding():
    t, dense = decaying(_numpy_make(), d=3)
    small = t._cast(np.float16).round(tol=3e-3)
    assert_equal(small.dtype, np.dtype("float16"))
    assert_below(true_error(small, dense), 3e-3, "error")
    assert_below(abs(small.info.rel_error / true_error(small, dense) - 1), 0.3, "what info says")
    assert_says(" ".join(small.info.warnings), "float32", "float16")


@pytest.mark.parametrize("tol", [0.03, 0.3])
def test_float16_keeps_any_tolerance(tol):
    make = _numpy_make()
    t = TuckerTrain(*map(list, train(make, bonds=(2, 6, 3), ranks=(2, 3, 2, 3)))) * 0.05
    assert_below(true_error(t._cast(np.float16).round(tol=tol), format_dense(t)), tol, "error")


def test_an_error_of_the_order_of_rounding_is_measured_and_a_larger_one_is_not(make):
    t = train(make, bonds=(2, 3, 3))
    twice = t + t
    exact = twice.round(tol=1e-14 if make.dtype == "float64" else 1e-6)
    true = true_error(exact, format_dense(twice))
    assert_below(exact.info.rel_error, 5 * true, "what info says")
    assert_above(exact.info.rel_error, true / 5, "what info says")
    with mock.patch.object(TuckerTrain, "_distance", side_effect=AssertionError("measured")):
        t.round(1)


def test_what_has_a_size_a_rank_or_a_bond_of_zero_is_not_rounded_and_of_one_is():
    for size, rank, bond in ((3, 2, 0), (3, 0, 2), (0, 2, 2)):
        cores = [np.ones((1, rank, bond)), np.ones((bond, rank, 1))]
        with pytest.raises(ShapeError) as error:
            TuckerTrain(cores, [np.ones((size, rank))] * 2).round(1)
        assert_says(error, "round", "Leave out")
    for size, rank, bond in ((3, 2, 1), (3, 1, 2), (1, 2, 2)):
        cores = [np.ones((1, rank, bond)), np.ones((bond, rank, 1))]
        t = TuckerTrain(cores, [np.ones((size, rank))] * 2)
        assert_close(t.round(1).to_tensor(), format_dense(t))


@pytest.mark.parametrize("kind", ["tucker", "train"])
def test_numbers_of_two_precisions_become_the_wider_and_half_stays(kind):
    t = train(_numpy_make())
    t = t if kind == "train" else t.to_tucker()
    for first, second, want in (("float32", "float64", "float64"), ("float16", "float16", "float16")):
        cores, factors = [c.astype(first) for c in t._cores], [f.astype(second) for f in t.factors]
        made = type(t)(cores if kind == "train" else cores[0], factors)
        assert_equal({array.dtype.name for array in made._arrays().values()}, {want})


@pytest.mark.parametrize("kind", ["tucker", "train"])
def test_heights_are_the_norms_of_the_coefficients_of_each_row(make, kind):
    t = train(make, modes=[Discrete(4), Chebyshev(5), Chebyshev(3), Chebyshev(6)])
    t = (t if kind == "train" else t.to_tucker()).round(3)
    dense = format_dense(t)
    for n, heights in enumerate(t._heights()):
        want = np.linalg.norm(np.moveaxis(dense, n, 0).reshape(dense.shape[n], -1), axis=1)
        assert_close(heights, want, 1000, like=t.factors[0])


def test_entries_of_one_mode_are_those_of_its_row():
    core, factor = np.arange(1.0, 4), np.random.default_rng(0).standard_normal((5, 3))
    t = TuckerTrain([core[None, :, None]], [factor])
    assert_close(t.at([4, 0, 4]), (factor @ core)[[4, 0, 4]])


# --- functions ------------------------------------------------------------------------------------------


def wave_of_a_sum(d, n=9, domain=(-1.0, 2.0)):
    """``cos(x_0 + ... + x_{d-1})`` by its exact train of rank 2, and the function."""
    mode = Chebyshev(n, domain)
    wave = coefficients(np.stack([np.cos(mode.nodes()), np.sin(mode.nodes())], axis=1))
    turn = np.zeros((2, 2, 2))  # cos and sin of a sum from those of its terms
    turn[0, 0, 0], turn[1, 1, 0], turn[0, 1, 1], turn[1, 0, 1] = 1, -1, 1, 1
    cores = [np.eye(2)[None], *([turn] * (d - 2)), turn[..., :1]]
    return TuckerTrain(cores, [wave] * d, [mode] * d), lambda *x: np.cos(sum(x))


def test_a_function_of_eight_variables_has_values_gradient_laplacian_and_integral():
    t, f = wave_of_a_sum(8, n=20)
    x = np.random.default_rng(0).uniform(-1, 2, (8, 5000))
    assert_close(t.at(*x), f(*x), 1e4)
    value, gradient = t.value_and_grad(*x)
    assert_close(value, f(*x), 1e4)
    assert_close(gradient, np.repeat(-np.sin(x.sum(axis=0))[:, None], 8, axis=1), 1e5)
    bent = t.laplacian()
    assert_equal((bent.rank, bent.train_rank), ((4,) * 8, (4,) * 7))
    assert_close(bent.at(*x), -8 * f(*x), 1e7)
    whole = np.real(((np.exp(2j) - np.exp(-1j)) / 1j) ** 8)
    assert_close(t.integrate(), whole, 1e5)
    assert_close(t.integrate([1, 2, 5]).at(*x[:5]), _integrated(x[:5].sum(axis=0)), 1e5)
    assert_close((t + t.restrict([(-1, 2)] * 8)).round(tol=1e-12).at(*x), 2 * f(*x), 1e5)
    assert_equal((t + t).round(tol=1e-12).train_rank, (2,) * 7)


def test_extrema_of_many_variables_are_found_where_no_grid_can_be_gone_through():
    t, f = wave_of_a_sum(8, n=16)
    for found, want in ((t.max(), 1), (t.min(), -1)):
        assert_below(abs(found.value - want), 1e-9, "value")
        assert_below(abs(f(*found.place) - want), 1e-9, "value at its place")


def test_a_peak_in_a_negative_function_is_found():
    mode, center = Chebyshev(40), np.linspace(-0.7, 0.6, 7)
    columns = [np.stack([np.exp(-8 * (mode.nodes() - c) ** 2), np.ones(40)], axis=1) for c in center]
    first, between = np.eye(2)[None], np.stack([np.diag([1.0, 0.0]), np.diag([0.0, 1.0])], axis=1)
    cores = [first, *([between] * 5), np.diag([1.0, -3.0])[..., None]]  # a bump less 3
    value, place = TuckerTrain(cores, [coefficients(c) for c in columns], [mode] * 7).max()
    assert_below(abs(value + 2), 1e-9, "value")
    assert_below(np.abs(np.array(place) - center).max(), 1e-5, "place")


def _integrated(rest):
    return np.real(np.exp(1j * rest) * ((np.exp(2j) - np.exp(-1j)) / 1j) ** 3)


def test_the_order_of_work_does_not_depend_on_where_the_widest_bond_is(make):
    for bonds in ((5, 2, 1), (1, 2, 5), (2, 5, 2), (1, 1, 1)):
        modes = [Chebyshev(4), Discrete(5), Chebyshev(3), Chebyshev(6)]
        t = train(make, bonds=bonds, modes=modes)
        x = [np.linspace(-1, 1, 9), np.arange(9) % 5, np.linspace(1, -1, 9), np.linspace(0, 1, 9)]
        x = [v.astype(make.dtype) if v.dtype.kind == "f" else v for v in x]
        whole = t.to_tucker()
        scale = float(np.abs(to_numpy(whole.at(*x))).max())
        assert_close(t.at(*x), to_numpy(whole.at(*x)), like=t.factors[0], scale=10 * scale)
        for got, want in zip(t.value_and_grad(*x), whole.value_and_grad(*x), strict=True):
            assert_close(got, to_numpy(want), like=t.factors[0], scale=30 * scale, factor=200)


# --- other formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [(2, 3, 2, 3), (3, 1, 2), (2, 2), (4,), (1, 1, 1)])
def test_conversions_from_tucker_cp_and_back_are_exact(make, rank):
    sizes = (4, 5, 3, 6)[: len(rank)]
    factors = [make(i, r, seed=n) for n, (i, r) in enumerate(zip(sizes, rank, strict=True))]
    t = Tucker(make(*rank), factors)
    there = t.to_train()
    assert_close(there.to_tensor(), format_dense(t), like=t.core)
    assert_equal(to_numpy(there.to_tucker().core), to_numpy(t.core))
    c = CP(make(3), [make(i, 3, seed=n) for n, i in enumerate(sizes)])
    assert_close(c.to_train().to_tensor(), format_dense(c), like=t.core)
    assert_equal(c.to_train().train_rank, (3,) * (len(rank) - 1))


def test_conversions_guard_their_size():
    t = TuckerTrain(*map(list, train(_numpy_make())))
    with pytest.raises(DataError) as error:
        t.to_tucker(max_bytes=287)
    assert_says(error, "to_tucker", "288", "Round")
    with pytest.raises(DataError) as error:
        CP(None, [np.ones((3, 10))] * 3).to_train(max_bytes=7999)
    assert_says(error, "to_train", "8,000")


def test_a_train_goes_to_tensorly_and_comes_back(make):
    t = train(make, (4, 50, 3, 6))
    there = t.to_tensorly()
    assert_equal((type(there).__name__, tuple(there.rank)), ("TTTensor", (1, 2, 4, 3, 1)))
    back = from_tensorly(there)
    assert_equal((back.shape, back.train_rank, back.rank), (t.shape, t.train_rank, (2, 8, 3, 3)))
    assert_close(back.to_tensor(), format_dense(t), like=t.factors[0])
    assert from_tensorly(t) is t
    with pytest.raises(ShapeError):
        train(make, modes=[Chebyshev(4), Discrete(5), Discrete(3), Discrete(6)]).to_tensorly()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_formats_of_two_kinds_meet_in_the_more_general_one(make, order):
    modes = [Discrete(4), Discrete(5), Discrete(3)]
    natural = train(make, (4, 5, 3), (2, 3, 2), (2, 3), modes)
    a = natural.reordered(order)
    b = Tucker(make(2, 1, 2, seed=5), [make(4, 2), make(5, 1), make(3, 2)])
    c = CP(make(2), [make(4, 2, seed=1), make(5, 2, seed=2), make(3, 2, seed=3)])
    known = {a: format_dense(natural), b: format_dense(b), c: format_dense(c)}
    for t, u, kind in ((a, b, TuckerTrain), (b, c, Tucker), (a, c, TuckerTrain)):
        for left, right in ((t, u), (u, t)):
            x, y = known[left], known[right]
            for got, want in ((left + right, x + y), (left - right, x - y), (left * right, x * y)):
                assert type(got) is kind
                assert_close(got.to_tensor(), want, like=t.factors[0], factor=500)
            assert_close(left.inner(right), np.sum(x * y), like=t.factors[0], factor=2000)
    assert_equal(((a + b).order, (c + a).order), (order, order))
    with pytest.raises(ShapeError) as error:
        a + b[0]
    assert_says(error, "same modes", "(4, 5, 3)", "(5, 3)")


def test_sums_of_other_kinds_are_of_one_dtype_and_degree():
    half = CP(None, [np.ones((4, 2), "float16")] * 2)
    assert_equal((half + half.to_tucker()).dtype, np.dtype("float16"))
    assert_equal((half + Tucker(np.ones((1, 1)), [np.ones((4, 1))] * 2)).dtype, np.dtype("float64"))
    x = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:], np.eye(4)[:, :1]], [Chebyshev(2), Chebyshev(4)])
    y = CP(None, [np.eye(3)[:, :1], np.eye(2)[:, 1:]], [Chebyshev(3), Chebyshev(2)])
    both = x.to_train(order=[1, 0]) + y
    assert_equal((both.order, both.coef_shape), ((1, 0), (3, 4)))
    assert_close(both.at(0.25, -0.5), np.array(-0.25))
    assert_close(x.inner(y.to_train() + x), np.array(4 / 3))
    assert_close((1 - y - both).at(0.25, -0.5), np.array(1.75))


def test_a_core_that_a_sum_would_make_huge_is_refused():
    terms = CP(None, [np.ones((2, 400))] * 4)
    with pytest.raises(DataError) as error:
        terms + Tucker(np.ones((1,) * 4), [np.ones((2, 1))] * 4)
    assert_says(error, "to_tucker", "Reduce the rank")


def test_a_train_is_saved_with_its_cores_and_comes_back_bit_by_bit(make, tmp_path):
    t = train(make, modes=[Chebyshev(4), Discrete(5), Chebyshev(3), Discrete(6)]).round(tol=0.1)
    tenfac.save(t, tmp_path / "t.tenfac")
    back = tenfac.load(tmp_path / "t.tenfac")
    assert_equal((type(back), back.modes, back.info), (TuckerTrain, t.modes, t.info))
    for a, b in zip((*back.cores, *back.factors), (*t.cores, *t.factors), strict=True):
        assert_equal(to_numpy(a), to_numpy(b))
