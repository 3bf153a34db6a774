"""Random starts: shapes, library, and signs."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.core.progress import Progress
from tenfac.decompose.cp.mttkrp import DenseTensor
from tenfac.decompose.cp.search import Options, search
from tenfac.decompose.cp.start import as_cp, given_start, random_start
from tenfac.decompose.cp.sweep import Starts
from tests.checks import assert_above, assert_equal, assert_relative, assert_same_kind, assert_says, to_numpy
from tests.oracles import cp_dense


def test_random_starts_are_of_the_library_of_the_data_in_double_precision(make):
    target = DenseTensor(make(3, 4))
    found = random_start(target, 2, 5, np.random.default_rng(0))
    assert_equal([tuple(factor.shape) for factor in found], [(5, 2, 3), (5, 2, 4)])
    assert_same_kind(found[0], target.xp.astype(target.array, target.xp.float64))


def test_nonnegative_starts_are_magnitudes(make):
    target = DenseTensor(make(3, 4))
    free = random_start(target, 2, 5, np.random.default_rng(0))
    kept = random_start(target, 2, 5, np.random.default_rng(0), nonnegative=True)
    assert_equal(to_numpy(kept[0]), np.abs(to_numpy(free[0])))
    assert_above(-to_numpy(free[0]).min(), 0.1, "most negative number of a free start")


def test_complex_data_start_from_complex_factors(make):
    found = random_start(DenseTensor(make.complex(3, 4)), 2, 1, np.random.default_rng(0))
    assert_above(np.abs(to_numpy(found[0]).imag).min(), 1e-6, "imaginary parts")


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_a_given_start_stands_for_the_tensor_it_is_given_as_in_the_scale_of_the_data(make, scale):
    target = DenseTensor(make(3, 4, 5))
    weights, factors = make(2), [make(size, 2, seed=1) for size in (3, 4, 5)]
    found = given_start((weights, factors), target, 2, scale=scale, nonnegative=False)
    assert_same_kind(found[0], target.xp.astype(target.array, target.xp.float64))
    got = cp_dense(None, [to_numpy(factor)[0].T for factor in found])
    assert_relative(got, cp_dense(weights, factors) / scale, 10 * make.eps)


def test_what_is_no_tensor_is_refused_with_the_remedy_of_its_place():
    for name, remedy in (("init", "n_init="), ("a", "got int.")):
        with pytest.raises(TypeError) as error:
            as_cp(3, "cp", name)
        assert_says(error, f"`{name}`", remedy)
        assert_equal(str(error.value).endswith("got int."), name != "init")


@pytest.mark.parametrize(("n_init", "kept"), [(8, [4, 2, 1]), (5, [3, 2, 1]), (3, [2, 2, 1])])
def test_the_better_half_of_the_starts_goes_on_then_the_best_two_then_one(monkeypatch, n_init, kept):
    seen = []
    keep = Starts.keep
    monkeypatch.setattr(Starts, "keep", lambda self, rows: (seen.append(len(rows)), keep(self, rows))[1])
    X = np.random.default_rng(0).standard_normal((5, 6, 7))
    best = search(DenseTensor(X), Options(3, n_init=n_init, tol=1e-14, progress=Progress("cp", 500)), 1)
    assert_equal((seen, len(best.errors)), (kept, 1))


@pytest.mark.parametrize(("max_iter", "rank", "stages"), [(7, 3, 1), (30, 3, 2), (61, 3, 3), (500, 1, 1)])
def test_a_search_logs_each_stage_once_and_ends_with_the_best_start(caplog, max_iter, rank, stages):
    X = np.random.default_rng(0).standard_normal((5, 6, 7))
    X = np.ones((5, 6, 7)) if rank == 1 else X  # found at once
    with caplog.at_level("INFO", logger="tenfac"):
        best = search(DenseTensor(X), Options(rank, tol=1e-14, progress=Progress("cp", max_iter, 2)), 4)
    said = [record.getMessage() for record in caplog.records]
    errors = [float(error) for error in said[-1].split("[")[1].rstrip("]").split()]
    assert_equal((len(said), len(best.errors)), (stages, 1))
    assert_relative(best.errors[0], np.float64(min(errors)), 1e-6)
