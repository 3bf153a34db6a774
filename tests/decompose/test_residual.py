"""Errors of projections and of any Tucker tensor, formed slab by slab."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.decompose import residual
from tests.checks import assert_below, assert_close, assert_equal
from tests.oracles import tucker_dense


@pytest.mark.parametrize(
    ("entries", "slabs"), [(1, 10), (11, 10), (12, 10), (13, 10), (24, 5), (60, 2), (10**6, 1)]
)
def test_the_residual_is_that_of_the_dense_tensor_in_slabs_of_few_entries(entries, slabs, monkeypatch):
    rng = np.random.default_rng(0)
    X, core = rng.standard_normal((10, 4, 3)), rng.standard_normal((2, 2, 2))
    factors = [rng.standard_normal((size, 2)) for size in X.shape]
    sizes, plain = [], residual.squared_norm
    monkeypatch.setattr(residual, "_ENTRIES", entries)
    monkeypatch.setattr(residual, "squared_norm", lambda part: (sizes.append(part.size), plain(part))[1])
    norm2 = float(np.sum(X**2))
    want = np.linalg.norm(X - tucker_dense(core, factors)) / np.linalg.norm(X)
    assert_close(residual.residual_error(X, core, factors, norm2), want)
    assert_equal((len(sizes), sum(sizes)), (slabs, 120))
    assert_below(max(sizes), max(entries, 12), "entries of a slab")


@pytest.mark.parametrize("lost", [1e-2, 1e-3, 1e-5, 1e-12])
def test_the_error_of_a_projection_is_true_whatever_its_size(lost, monkeypatch):
    formed, plain = [], residual.residual_error
    monkeypatch.setattr(residual, "residual_error", lambda *a: (formed.append(1), plain(*a))[1])
    X = 1e3 * np.diag([1.0, lost])
    basis = np.eye(2)[:, :1]
    error = residual.relative_error(X, X[:1, :1], [basis, basis], float(np.sum(X**2)))
    assert_below(abs(error / (lost / np.hypot(1, lost)) - 1), 1e-9, "error against the truth")
    assert_equal(len(formed), int(lost**2 < 1.5e-8))
    assert_equal(residual.relative_error(0 * X, 0 * X[:1, :1], [basis, basis], 0.0), 0.0)
