"""A train whose modes stand in another order along it: the same tensor, and everything done with it."""

from __future__ import annotations

import numpy as np
import pytest

import tenfac
from tenfac import Chebyshev, ShapeError, Tucker, TuckerTrain
from tests.checks import assert_below, assert_close, assert_equal, assert_says, to_numpy

ORDER, RANK, SIZES, BONDS = (2, 0, 3, 1), (2, 3, 4, 2), (5, 6, 7, 4), (1, 2, 5, 2, 1)


def parts(make=None, seed=0):
    """Cores, one per mode, and factors."""
    rng = np.random.default_rng(seed)
    shapes = [(BONDS[ORDER.index(n)], RANK[n], BONDS[ORDER.index(n) + 1]) for n in range(4)]
    arrays = [rng.standard_normal(shape) for shape in (*shapes, *zip(SIZES, RANK, strict=True))]
    arrays = arrays if make is None else [make.asarray(array) for array in arrays]
    return arrays[:4], arrays[4:]


def dense(cores, factors):
    cores, factors = [to_numpy(core) for core in cores], [to_numpy(factor) for factor in factors]
    core = np.einsum("aib,bjc,ckd,dle->ijkl", *(cores[n] for n in ORDER)).transpose(1, 3, 0, 2)
    return np.einsum("pqrs,ip,jq,kr,ls->ijkl", core, *factors)


@pytest.fixture
def both():
    cores, factors = parts()
    return TuckerTrain(cores, factors, order=ORDER), dense(cores, factors)


@pytest.fixture
def functions():
    """The same as functions: a train and a Tucker tensor."""
    cores, factors = parts()
    modes = [Chebyshev(size, (0.0, 1.0)) for size in SIZES]
    train = TuckerTrain(cores, factors, modes, order=ORDER)
    return train, Tucker(dense(cores, [np.eye(r) for r in RANK]), factors, modes)


def test_values_slices_and_sums_are_those_of_the_dense_tensor(both):
    t, X = both
    assert_equal(t.train_rank, BONDS[1:-1])
    assert_close(t.to_tensor(), X)
    index = ([0, 4, 1], [2, 3, 5], [6, 5, 0], [1, 2, 3])
    assert_close(t.at(*index), X[index])
    for key in (1, (slice(None), 2), (1, slice(None), 2), (slice(None), slice(2, 4), 1, 3), (1, 2, 3)):
        assert_close(t[key].to_tensor(), X[key])
    assert_close(t[1, 2, 3, 0], X[1, 2, 3, 0])
    assert_close(t.sum([1, 2]).to_tensor(), X.sum((1, 2)))
    assert_close(t.to_tucker().to_tensor(), X)


def test_the_order_of_what_is_left_is_that_of_the_train(both):
    t, _ = both
    assert_equal(t[1].order, (1, 2, 0))
    assert_equal(t[:, :, 1].order, (0, 2, 1))


def test_algebra_joins_trains_of_one_order_and_of_different_ones(both):
    t, X = both
    natural = t.reordered(range(4))
    assert_equal(natural.order, (0, 1, 2, 3))
    assert_close(natural.to_tensor(), X, factor=1000)
    for other in (t, natural):
        assert_close((t + other).to_tensor(), 2 * X, factor=1000)
        assert_close((t * other).to_tensor(), X * X, factor=1000)
        assert_close(t.inner(other), np.sum(X * X), factor=1000)
    assert_equal((t + natural).order, ORDER)
    assert_close(t.norm(), np.linalg.norm(X))
    assert_close((-2 * t).to_tensor(), -2 * X)


def test_rounding_keeps_the_order_and_the_tensor(both):
    t, X = both
    twice = (t + t).round(tol=1e-12)
    assert_equal((twice.order, twice.train_rank), (ORDER, (2, 4, 2)))
    assert_close(twice.to_tensor(), 2 * X, factor=1000)
    assert_equal(t.round(rank=(2, 2, 2, 1)).rank, (2, 2, 2, 1))


def test_swapping_neighbors_finds_the_bonds_of_the_other_order(both):
    t, X = both
    other = t.reordered((3, 1, 0, 2))
    want = tuple(
        np.linalg.matrix_rank(np.moveaxis(X, (3, 1), (0, 1)).reshape(4 if k == 1 else 24, -1)) for k in (1, 2)
    )
    assert_equal(other.train_rank[:2], want)
    assert_close(other.to_tensor(), X, factor=1000)


def test_a_batch_is_reordered_too(make):
    cores, factors = zip(parts(make, 0), parts(make, 1), strict=True)
    pairs = [
        [make.asarray(np.stack([to_numpy(a), to_numpy(b)])) for a, b in zip(*two, strict=True)]
        for two in (cores, factors)
    ]
    t = TuckerTrain(*pairs, order=ORDER)
    want = np.stack([dense(c, f) for c, f in zip(cores, factors, strict=True)])
    assert_close(to_numpy(t.reordered(range(4)).to_tensor()), want.astype(make.dtype), factor=1000)


def test_files_pytrees_and_torch_keep_the_order(both, functions, tmp_path):
    t, X = both
    tenfac.save(t, tmp_path / "train.tenfac")
    loaded = tenfac.load(tmp_path / "train.tenfac")
    assert_equal(loaded.order, ORDER)
    assert_close(loaded.to_tensor(), X)
    again = TuckerTrain._unflatten(*t._flatten())
    assert_equal(again.order, ORDER)
    F, G = functions
    x = np.random.default_rng(3).uniform(0, 1, (5, 4))
    torch = pytest.importorskip("torch")
    got = tenfac.to_torch(F)(torch.tensor(x)).detach().numpy()
    assert_close(got, G.at(*x.T))


def test_calculus_is_that_of_the_tucker_tensor(functions):
    F, G = functions
    x = np.random.default_rng(3).uniform(0, 1, (4, 9))
    assert_close(F.at(*x), G.at(*x))
    for got, want in zip(F.value_and_grad(*x), G.value_and_grad(*x), strict=True):
        assert_close(got, want)
    assert_close(F.diff(1).at(*x), G.diff(1).at(*x))
    assert_close(F.laplacian().at(*x), G.laplacian().at(*x), factor=1000)
    assert_close(F.integrate([2]).at(*x[[0, 1, 3]]), G.integrate([2]).at(*x[[0, 1, 3]]))
    assert_close(F.on_grid(*[[0.1, 0.7]] * 4), G.on_grid(*[[0.1, 0.7]] * 4))
    assert_close((F + 1).at(*x), G.at(*x) + 1)
    assert_close(F.norm(), G.norm())


def test_the_maximum_of_a_train_too_large_for_a_grid_is_found_in_any_order():
    modes = [Chebyshev(9, (-1.0, 1.0))] * 8
    place = np.linspace(-0.6, 0.7, 8)
    bumps = [
        np.polynomial.chebyshev.chebinterpolate(lambda x, c=c: np.exp(-((x - c) ** 2)), 8) for c in place
    ]
    F = TuckerTrain(
        [np.ones((1, 1, 1))] * 8, [b[:, None] for b in bumps], modes, order=(3, 1, 0, 2, 7, 6, 4, 5)
    )
    assert_below(np.abs(np.array(F.max().place) - place).max(), 1e-3, "distance from the maximum")


def test_an_order_that_is_none_is_refused(both):
    cores, factors = parts()
    for order in ((0, 1, 2), (0, 1, 2, 2), (1, 2, 3, 4)):
        with pytest.raises(ShapeError) as error:
            TuckerTrain(cores, factors, order=order)
        assert_says(error, "order", "0 to 3", str(order))
    with pytest.raises(ShapeError) as error:
        TuckerTrain(cores, factors, order=(0, 2, 3, 1))
    assert_says(error, "must have shape")
    with pytest.raises(ShapeError):
        both[0].reordered((0, 0, 1, 2))
