"""A Tucker tensor at observed entries: its parameters, starts, and the steps on its core."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.decompose.completion import tucker as module
from tenfac.decompose.completion.observed import Observed
from tenfac.decompose.completion.tucker import TuckerProblem
from tests.checks import assert_below, assert_close, assert_equal
from tests.oracles import tucker_dense

SHAPE, RANK = (5, 4, 6), (2, 3, 2)


def problem(rank=RANK, shape=SHAPE):
    """All entries of a random tensor, of mean square 1."""
    values = np.random.default_rng(0).standard_normal(shape)
    values /= np.sqrt(np.mean(values**2))
    indices = np.unravel_index(np.arange(values.size), shape)
    return TuckerProblem(Observed(shape, indices, values.ravel()), rank, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("shape", "rank"), [(SHAPE, RANK), ((4, 5, 3), (1, 1, 1)), ((3, 3, 4, 3), (2, 1, 2, 2))]
)
def test_the_number_of_parameters_is_the_dimension_of_the_set_of_such_tensors(shape, rank):
    rng = np.random.default_rng(0)
    parts = [
        rng.standard_normal(rank),
        *(rng.standard_normal(size) for size in zip(shape, rank, strict=True)),
    ]
    tangents = []
    for n, part in enumerate(parts):
        for place in np.ndindex(part.shape):
            step = np.zeros_like(part)
            step[place] = 1.0
            core, *factors = (step if m == n else p for m, p in enumerate(parts))
            tangents.append(tucker_dense(core, factors).ravel())
    assert_equal(problem(rank, shape).n_params, int(np.linalg.matrix_rank(np.stack(tangents))))


def test_a_start_has_the_mean_square_of_the_data():
    p = problem()
    states = [p.start(np.random.default_rng(n)) for n in range(300)]
    squares = [np.mean(p.evaluate(state, p.entries.indices) ** 2) for state in states]
    assert_below(abs(np.mean(squares) - 1), 5 * np.std(squares) / np.sqrt(300), "mean square of a start - 1")
    assert_below(np.std(squares), 2.0, "or the test shows nothing")


@pytest.mark.parametrize(
    ("ridge", "noise2", "penalty"),
    [
        (0.3, 0.0, 0.3 * 120),  # a share of the mean diagonal: features have mean square 1
        (0.0, 0.5, 0.5 * 12 / 0.5),  # noise over signal per number of the core
        (0.01, 0.5, 0.5 * 12 / 0.5),  # the larger of both
        (0.0, 3.0, 3.0 * 12 / 0.01),  # a signal of one percent at least
    ],
)
def test_the_core_solves_its_normal_equations_with_the_penalty_of_ridge_and_noise(
    monkeypatch, ridge, noise2, penalty
):
    monkeypatch.setattr(module, "_CORE_STEPS", 30)
    p = problem()
    (core, factors), residual2 = p.sweep(p.start(np.random.default_rng(0)), ridge, noise2)
    h = np.einsum("ia,jb,kc->ijkabc", *factors).reshape(120, 12)
    want = np.linalg.solve(h.T @ h + penalty * np.eye(12), h.T @ p.entries.values)
    assert_close(core.ravel(), want, factor=1e5)
    assert_close(residual2, float(np.sum((p.entries.values - h @ want) ** 2)), factor=1e5)


def test_a_core_that_fits_stays():
    p = problem()
    core, factors = p.start(np.random.default_rng(0))
    exact = TuckerProblem(Observed(SHAPE, p.entries.indices, np.zeros(120)), RANK, p.rng)
    (zero, _), residual2 = exact.sweep((0 * core, factors), 0.0, 0.0)
    assert_equal(zero, 0 * core)
    assert_equal(residual2, 0.0)


@pytest.mark.parametrize("kept", [True, False])
def test_features_of_the_last_mode_are_computed_once_a_sweep_where_memory_allows(monkeypatch, kept):
    p, calls, rows_of = problem(), [], module._kronecker_rows
    state = p.start(np.random.default_rng(0))
    monkeypatch.setattr(module, "_kronecker_rows", lambda *given: calls.append(1) or rows_of(*given))
    monkeypatch.setattr(module, "_KEPT", 120 * 4 if kept else 120 * 4 - 1)  # two columns in each other mode
    p.sweep(state, 0.0, 0.0)
    blocks = sum(map(len, p.blocks))
    assert_equal(len(calls) == blocks, kept)


def test_the_mode_of_the_largest_rank_goes_last():
    assert_equal(problem((2, 4, 3)).order, [0, 2, 1])
