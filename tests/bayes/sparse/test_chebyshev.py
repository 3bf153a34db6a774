"""Chebyshev polynomials as dictionaries: sparse coefficients are a function in Chebyshev-Tucker format."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfac import Chebyshev, KroneckerSBL, Tucker
from tests.checks import assert_below, assert_close, assert_equal, to_numpy

MODES = (Chebyshev(30, (0.0, 2.0)), Chebyshev(26, (-1.0, 1.0)))


def f(x: Any, y: Any) -> Any:
    """Polynomials 0 and 12 of the first variable, 1 and 7 of the second."""
    return (1 + np.cos(12 * np.arccos(x - 1))) * (2 * y + np.cos(7 * np.arccos(y)))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_sparse_coefficients_of_scattered_places_are_a_function(library: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    points = [np.sort(rng.uniform(*mode.domain, 18)) for mode in MODES]  # fewer than columns
    dictionaries = [mode.rows(np.eye(mode.size), x) for mode, x in zip(MODES, points, strict=True)]
    Y = f(points[0][:, None], points[1]) + 0.02 * rng.standard_normal((18, 18))
    if library == "torch":
        dictionaries, Y = [torch.from_numpy(a) for a in dictionaries], torch.from_numpy(Y)
    model = KroneckerSBL().fit(dictionaries, Y)
    assert_equal([to_numpy(s).tolist() for s in model.support_], [[0, 12], [1, 7]])
    columns = [np.eye(m.size)[:, to_numpy(s)] for m, s in zip(MODES, model.support_, strict=True)]
    if library == "torch":
        columns = [torch.from_numpy(c) for c in columns]
    F = Tucker(model.coef_, columns, MODES)
    assert_equal(F.rank, (2, 2))
    x, y = np.linspace(0, 2, 60), np.linspace(-1, 1, 61)
    assert_below(np.abs(to_numpy(F.on_grid(x, y)) - f(x[:, None], y)).max(), 0.05, "error anywhere")
    back = to_numpy(F.on_grid(points[0], points[1]))
    assert_close(back, to_numpy(model.predict()), 1e3)
    slope = 3 * 12 * np.sin(12 * np.arccos(-0.7)) / np.sqrt(1 - 0.7**2)
    assert_below(abs(float(F.diff(0).at(0.3, 1.0)) - slope), 0.02 * abs(slope), "error of the derivative")
