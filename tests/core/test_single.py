"""Formats of one mode, and modes of one row or one coefficient: every operation, against the dense tensor."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from numpy.polynomial import chebyshev as series

from tenfac import CP, Chebyshev, Discrete, Tucker, TuckerTrain
from tenfac.core import extrema
from tests.checks import assert_close, assert_equal
from tests.conftest import Make
from tests.core.test_formats import Case, case

__all__ = ["case"]  # the fixture
MAKE = Make("numpy", "float64")
SHAPES = [(4,), (1,), (1, 1, 1), (1, 4, 1), (4, 1, 2)]
BOX = (-1.0, 3.0)


def create(case: Case, shape: tuple[int, ...]) -> tuple[Tucker | CP | TuckerTrain, np.ndarray]:
    t = case.create(MAKE, shape=shape, rank=(2,) * len(shape))
    return t, case.dense(t)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_sums_and_slices(case, shape) -> None:
    t, dense = create(case, shape)
    scale = 10 * float(np.abs(dense).max())
    index = np.unravel_index(np.arange(dense.size), shape)
    assert_close(t.at(*index), dense.ravel(), scale=scale)
    assert_close(t.norm(), float(np.linalg.norm(dense)))
    assert_close(t.inner(t), float(np.sum(dense**2)))
    assert_close((t + 2 * t).to_tensor(), 3 * dense, scale=scale)
    assert_close((t * t).to_tensor(), dense**2, scale=scale**2)
    assert_close(t.sum(), float(dense.sum()), scale=scale)
    for n, size in enumerate(shape):
        matrix = MAKE(3, size, seed=5)
        want = np.moveaxis(np.tensordot(matrix, dense, (1, n)), 0, n)
        assert_close(t.mode_product(matrix, n).to_tensor(), want, scale=3 * scale)
        assert_close(t.cumsum(n).to_tensor(), np.cumsum(dense, n), scale=scale)
        kept = t.fix({n: size - 1})
        want = dense.take(size - 1, n)
        assert_close(kept if len(shape) == 1 else kept.to_tensor(), want if want.ndim else float(want))
        assert_close(t[(slice(None),) * n + (slice(0, 1),)].to_tensor(), dense.take([0], n), scale=scale)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rounding_and_other_formats(case, shape) -> None:
    t, dense = create(case, shape)
    scale = 10 * float(np.abs(dense).max())
    if case.name != "cp":
        assert_close(t.round(tol=1e-12).to_tensor(), dense, 1e5)
        assert_equal(t.round(1).shape, shape)
    if case.name != "tucker":
        assert_close(t.to_tucker().to_tensor(), dense, scale=scale)
    if case.name == "tucker":
        assert_close(t.to_cp().to_tensor(), dense, scale=scale)
        assert_close(t.to_train().to_tensor(), dense, scale=scale)


@pytest.mark.parametrize("grid", [0, 10**6], ids=["slab by slab, or along the train", "at once"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_largest_and_smallest_entry(case, shape, grid) -> None:
    t, dense = create(case, shape)
    with mock.patch.object(extrema, "_GRID", grid):
        assert_close(t.max().value, float(dense.max()))
        assert_close(t.min().value, float(dense.min()))
        assert_equal(t.max().place, tuple(map(int, np.unravel_index(dense.argmax(), shape))))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("beside", [(), (Discrete(1),)], ids=["alone", "beside one row"])
def test_calculus_in_one_variable(case, size, beside) -> None:
    coefs = np.random.default_rng(size).standard_normal(size)
    ones = [np.full((1, 1), 2.0)] * len(beside)
    factors, modes = [coefs[:, None], *ones], (Chebyshev(size, BOX), *beside)
    cores = [np.ones((1, 1, 1))] * len(modes)
    t = {"cp": CP(None, factors, modes), "train": TuckerTrain(cores, factors, modes)}.get(
        case.name, Tucker(np.ones((1,) * len(modes)), factors, modes)
    )
    f = series.Chebyshev(2.0 ** len(beside) * coefs, BOX)
    x, rows = np.linspace(*BOX, 7), [0] * len(beside)
    scale = float(np.abs(f(x)).max())
    assert_close(t.at(x, *rows), f(x), scale=scale)
    for order in (1, 2):
        assert_close(t.diff(0, order).at(x, *rows), f.deriv(order)(x), 1e3, scale=scale)
    assert_close(t.laplacian().at(x, *rows), f.deriv(2)(x), 1e3, scale=scale)
    assert_close(t.grad()[0].at(x, *rows), f.deriv(1)(x), 1e3, scale=scale)
    value, slope = t.value_and_grad(x, *rows)
    assert_close(value, f(x), scale=scale)
    assert_close(slope[..., 0], f.deriv(1)(x), 1e3, scale=scale)
    area = float(f.integ(lbnd=BOX[0])(BOX[1]))
    whole = t.integrate()
    assert_close(float(whole if not beside else whole.to_tensor()[0]), area, scale=scale)
    assert_close(t.norm() ** 2, float((f * f).integ(lbnd=BOX[0])(BOX[1])), scale=scale**2)
    part = t.restrict([(0.0, 1.0), *[None] * len(beside)])
    assert_close(part.at(x[2:4], *rows), f(x[2:4]), scale=scale)
    fine = np.linspace(*BOX, 20001)
    assert_close(t.max().value, float(f(fine).max()), 1e8, scale=scale)
