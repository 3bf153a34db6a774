"""A CP tensor at observed entries: its parameters and starts, and the component it can best do without."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.decompose.completion.cp import CPProblem, _balanced, _least_missed, normalized
from tenfac.decompose.completion.observed import Observed
from tests.checks import assert_above, assert_below, assert_close, assert_equal
from tests.oracles import cp_dense

SHAPE = (5, 4, 6)


def problem(rank, shape=SHAPE, seed=0):
    """All entries of a random tensor, of mean square 1."""
    values = np.random.default_rng(seed).standard_normal(shape)
    values /= np.sqrt(np.mean(values**2))
    indices = np.unravel_index(np.arange(values.size), shape)
    return CPProblem(Observed(shape, indices, values.ravel()), rank, np.random.default_rng(1))


@pytest.mark.parametrize(("shape", "rank"), [((5, 4, 6), 2), ((5, 4, 6), 3), ((3, 4, 3, 2), 2)])
def test_the_number_of_parameters_is_the_dimension_of_the_set_of_such_tensors(shape, rank):
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((size, rank)) for size in shape]
    tangents = []
    for n, factor in enumerate(factors):
        for place in np.ndindex(factor.shape):
            step = np.zeros_like(factor)
            step[place] = 1.0
            tangents.append(cp_dense(None, [step if m == n else f for m, f in enumerate(factors)]).ravel())
    assert_equal(problem(rank, shape).n_params, int(np.linalg.matrix_rank(np.stack(tangents))))


@pytest.mark.parametrize("rank", [1, 3])
def test_the_entries_of_a_start_have_the_variance_that_makes_a_tensor_of_mean_square_one(rank):
    p = problem(rank)
    starts = [p.start(np.random.default_rng(n)) for n in range(300)]
    variance = np.mean([np.mean(factor**2) for start in starts for factor in start])
    assert_below(abs(rank * variance**3 - 1), 0.3, "mean square of a start - 1")


def test_balanced_factors_are_the_same_tensor_with_equal_norms_and_a_zero_component_is_zero_in_all():
    rng = np.random.default_rng(0)
    factors = [
        rng.standard_normal((size, 3)) * scale for size, scale in zip(SHAPE, (1e-80, 1e90, 5.0), strict=True)
    ]
    factors[1][:, 2] = 0.0
    got = _balanced(factors)
    for factor in got:
        assert_equal(factor[:, 2], np.zeros(len(factor)))
    norms = np.stack([np.linalg.norm(factor, axis=0) for factor in got])
    assert_close(norms, np.broadcast_to(norms[0], norms.shape), factor=1e3)
    assert_close(cp_dense(None, got), cp_dense(None, factors), factor=1e3)


def test_normalized_factors_have_unit_columns_falling_weights_and_the_scale_of_the_data():
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((size, 3)) for size in SHAPE]
    factors[1][:, 1] = 0.0
    weights, columns = normalized(factors, 7.0)
    assert_close(cp_dense(weights, columns), 7.0 * cp_dense(None, factors))
    assert_below(np.diff(weights).max(), 0.0, "largest rise of the weights")
    assert_close(np.linalg.norm(columns[0], axis=0), np.ones(3))
    assert_close(np.linalg.norm(columns[1], axis=0), np.array([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_repair_puts_the_leading_component_of_what_the_others_leave_in_the_place_of_the_worst(share):
    rng = np.random.default_rng(0)
    shape = (20, 21, 22)
    parts = [rng.standard_normal((size, 3)) for size in shape]
    large, missed = (cp_dense([w], [f[:, [r]] for f in parts]) for r, w in enumerate((10.0, 1.0)))
    indices = np.nonzero(rng.random(shape) < share)
    p = CPProblem(Observed(shape, indices, (large + missed)[indices]), 2, rng)
    state = [parts[0][:, [0, 2]] * [10.0, 2.0], *(f[:, [0, 2]] for f in parts[1:])]
    fixed = p.repair(state)
    assert_close(cp_dense(None, [f[:, [0]] for f in fixed]), large)
    got = cp_dense(None, [f[:, [1]] for f in fixed])
    cosine = np.vdot(got, missed) / np.linalg.norm(got) / np.linalg.norm(missed)
    assert_above(cosine, 0.9, "cosine between the new component and the one that was missed")
    left = (missed - got)[indices]
    along = got[indices] @ left / np.sum(got[indices] ** 2)
    assert_below(abs(along), 1e-12, "what is left along the new component")


def test_a_repair_of_a_fit_without_residual_takes_the_component_out_of_nothing():
    rng = np.random.default_rng(0)
    p = CPProblem(Observed((3, 4), np.unravel_index(np.arange(12), (3, 4)), np.zeros(12)), 1, rng)
    fixed = p.repair([np.zeros((3, 1)), np.zeros((4, 1))])
    assert_equal(p.evaluate(fixed, p.entries.indices), np.zeros(12))


def rise_without(h: np.ndarray, r: int) -> float:
    """Residual of the sum of the columns when column r is left out and the others are rescaled."""
    rest = np.delete(h, r, axis=1)
    total = h.sum(axis=1)
    return float(np.linalg.norm(total - rest @ np.linalg.lstsq(rest, total, rcond=None)[0]))


def test_the_component_missed_least_is_that_of_the_smallest_rise_of_the_residual():
    found = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shared = rng.standard_normal((30, 1))
        h = (rng.standard_normal((30, 4)) + shared * rng.random(4) * 3) * 10.0 ** rng.uniform(-3, 3, 4)
        want = int(np.argmin([rise_without(h, r) for r in range(4)]))
        assert_equal(_least_missed(h), want)
        found.add(want)
    assert_equal(found, {0, 1, 2, 3})


def test_a_zero_component_is_missed_least():
    h = np.random.default_rng(0).standard_normal((10, 3)) * [1e-9, 0.0, 1.0]
    assert_equal(_least_missed(h), 1)
