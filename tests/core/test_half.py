"""Functions in half precision: norms in float32, calculus in the dtype that was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfac import CP, Chebyshev, Tucker
from tests.checks import assert_equal, assert_relative, dtype_name

STEP = 2.0**-10


@pytest.mark.parametrize("kind", [CP, Tucker])
def test_norms_and_inner_products_of_half_precision_are_float32(kind: Any) -> None:
    core = np.full((1,) if kind is CP else (1, 1), 100, dtype="float16")
    t = kind(core, [np.full((4, 1), 100, dtype="float16")] * 2)
    for got, want in ((t.norm(), 4e6), (t.inner(t), 1.6e13)):
        assert_equal(dtype_name(got), "float32")
        assert_relative(np.asarray(got), np.asarray(want), 1e-6)


def test_integrals_and_derivatives_of_half_precision_keep_it() -> None:
    factor = np.array([[0.5], [0.25], [0.125]], dtype="float16")
    t = CP(None, [factor, factor], [Chebyshev(3)] * 2)
    exact = CP(None, [factor.astype(float)] * 2, [Chebyshev(3)] * 2)
    for call in (
        lambda t: t.integrate([0]),
        lambda t: t.integrate(),
        lambda t: t.diff(1),
        lambda t: t.restrict([(0.0, 1.0), None]),
        lambda t: t.fix({1: 0.5}),
    ):
        got, want = call(t), call(exact)
        assert_equal(dtype_name(got), "float16")
        place = [0.25] * getattr(got, "ndim", 0)
        pair = (got.at(*place), want.at(*place)) if hasattr(got, "at") else (got, want)
        assert_relative(np.asarray(pair[0], dtype=float), np.asarray(pair[1]), 4 * STEP)
