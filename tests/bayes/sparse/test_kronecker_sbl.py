"""The estimator: posterior against dense formulas, invariances, bad input, files."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tenfac import KroneckerSBL
from tests.bayes.sparse.dense import Dense, kron_dense, sparse_problem
from tests.checks import (
    assert_above,
    assert_close,
    assert_equal,
    assert_relative,
    quietly,
    to_numpy,
)

MODES = [((12,), (20,)), ((8, 9), (12, 14)), ((8, 7, 6), (12, 10, 9)), ((5, 4, 6, 5), (7, 8, 6, 7))]


def dense_of(model: KroneckerSBL, factors: list[Any], y: np.ndarray) -> Dense:
    """The dense problem on the active columns at the learned hyperparameters."""
    active = [a[:, s] for a, s in zip(factors, model.support_, strict=True)]
    gammas = [g[s] for g, s in zip(model.gammas_, model.support_, strict=True)]
    return Dense(kron_dense(active), y, kron_dense(gammas).ravel(), model.noise_)


def lists(support: Any) -> list[list[int]]:
    return [to_numpy(one).tolist() for one in support]


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(("rows", "columns"), MODES)
def test_mean_variances_and_evidence_are_those_of_dense_matrices(
    rows: Any, columns: Any, complex_: bool
) -> None:
    factors, y, support, _ = sparse_problem(rows, columns, 2, snapshots=3, complex_=complex_)
    model = KroneckerSBL().fit(factors, y, snapshots=True)
    assert_equal(lists(model.support_), lists(support))
    dense = dense_of(model, factors, y.reshape(-1, 3))
    variances = np.diag(dense.posterior).real.reshape(model.coef_.shape[:-1])
    assert_close(model.coef_, dense.mean.reshape(model.coef_.shape), 1e5)
    assert_close(model.coef_var(), variances, 1e5)
    assert_close(model.coef_std_, np.sqrt(variances), 1e5)
    assert_close(model.log_evidence_, dense.evidence, 1e4)
    assert_close(model.log_evidence(factors, y), model.log_evidence_, 1e4)
    assert_close(model.predict(), (dense.A @ dense.mean).reshape(y.shape), 1e5)


def test_variances_where_columns_outnumber_measurements_are_those_of_dense_matrices() -> None:
    factors, y, _, _ = sparse_problem((3, 4), (6, 4), 3, seed=2)
    model = quietly(KroneckerSBL(prune_alpha=0, max_iter=3).fit, factors, y[..., 0])
    dense = dense_of(model, factors, y.reshape(-1, 1))
    assert_above(model.coef_.shape[0], 4, "columns of the first mode")
    want = np.diag(dense.posterior).reshape(model.coef_.shape)
    assert_close(model.coef_var(), want, 1e4)


def test_the_evidence_never_falls_without_pruning() -> None:
    for seed in range(3):
        factors, y, _, _ = sparse_problem((5, 4, 6), (9, 8, 9), 2, seed=seed, snr_db=10)
        trace = KroneckerSBL(prune_alpha=0).fit(factors, y[..., 0]).evidence_trace_
        assert_above(min(b - a for a, b in pairwise(trace)), -1e-9 * abs(trace[-1]), "least gain of a sweep")


@pytest.mark.parametrize("update", ["fixed_point", "mm"])
def test_both_updates_reach_the_same_evidence(update: str) -> None:
    factors, y, support, _ = sparse_problem((8, 7), (12, 10), 2, snr_db=15)
    model = KroneckerSBL(update=update, tol=1e-8, max_iter=5000).fit(factors, y[..., 0])
    assert_equal(lists(model.support_), lists(support))
    assert_relative(model.log_evidence_, np.float64(-18.0), 10.0)
