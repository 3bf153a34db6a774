"""Formats that mix discrete, Chebyshev and GP modes: ligand, dose and time, against dense formulas."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.polynomial import chebyshev as polynomials

from tenfac import GP, Chebyshev, Discrete, Tucker
from tests.checks import (
    assert_close,
    assert_equal,
)
from tests.oracles import matern_dense

DOSES, TIMES = (0.0, 2.0), (-1.0, 7.0)
KNOTS = np.array([0.0, 0.7, 1.5, 3.0, 4.2, 6.0])
MODES = (Discrete(3), Chebyshev(5, DOSES), GP("matern52", KNOTS, lengthscale=2.0, domain=TIMES))
RANK = (2, 2, 3)
RNG = np.random.default_rng(0)
CORE, TABLE = RNG.normal(size=RANK), RNG.normal(size=(3, 2))
SERIES, VALUES, LEVEL = RNG.normal(size=(5, 2)), RNG.normal(size=(6, 3)), np.array([0.5, -1.0, 0.0])
FACTOR = 2000  # sums of products of polynomials and of inverses between knots


def gp_dense(times):
    """``level + k(x, grid) K^-1 (f - level)``."""
    weights = np.linalg.solve(matern_dense(KNOTS, KNOTS, 2.5, 2.0), VALUES - LEVEL)
    return matern_dense(times, KNOTS, 2.5, 2.0) @ weights + LEVEL


def dense(doses, times):
    """Values on the grid of all ligands, doses and times, written out."""
    shares = (2 * np.asarray(doses) - sum(DOSES)) / (DOSES[1] - DOSES[0])
    rows = [TABLE, polynomials.chebval(shares, SERIES).T.reshape(-1, 2), gp_dense(np.asarray(times))]
    return np.einsum("abc,ia,jb,kc->ijk", CORE, *rows)


def created(kind, make):
    factors = [TABLE, SERIES, MODES[2].factor(VALUES, level=LEVEL)]
    t = Tucker(make.asarray(CORE), [make.asarray(factor) for factor in factors], MODES)
    return {"tucker": lambda: t, "cp": t.to_cp, "train": t.to_train}[kind]()


@pytest.fixture(params=["tucker", "cp", "train"])
def hybrid(request, make):
    return created(request.param, make)


@cache
def grids():
    doses, times = np.linspace(*DOSES, 7), np.array([-1.0, -0.3, 0.0, 0.4, 0.7, 2.0, 5.0, 6.0, 6.5, 7.0])
    return doses, times, dense(doses, times)


def test_values_equal_the_dense_formulas(hybrid, make):
    doses, times, want = grids()
    assert_close(hybrid.on_grid(None, doses, times), want, FACTOR, like=hybrid.factors[0])
    i, j, k = np.indices(want.shape).reshape(3, -1)
    got = hybrid.at(make.index(i), make.asarray(doses[j]), make.asarray(times[k]))
    assert_close(got, want.ravel(), FACTOR, like=hybrid.factors[0])
    assert_close(hybrid.fix({2: times[3]}).fix({1: doses[2]}).to_tensor(), want[:, 2, 3], FACTOR, like=got)
    assert_close(hybrid[1].on_grid(doses, times), want[1], FACTOR, like=got)
    assert_equal(hybrid.shape, (3, None, None))
