"""Formats in half precision: every operation computes in float32 and comes back in the dtype it was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tenfac import CP, Chebyshev, Tucker
from tests.checks import assert_equal, assert_relative, dtype_name, to_numpy
from tests.core.test_formats import case

__all__ = ["case"]  # the fixture
STEP = 2.0**-10


def halved(t: Any, library: str) -> tuple[Any, Any]:
    """A format with entries that half precision holds exactly, in it and in float64."""
    arrays = [np.rint(8 * a) / 8 for a in t._arrays().values()]
    made = [a.astype("float16") for a in arrays]
    if library == "torch":
        torch = pytest.importorskip("torch")
        made = [torch.from_numpy(a).to(torch.bfloat16) for a in made]
    return t._with(made), t._with(arrays)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(
    "call",
    [
        lambda t, _: t + t,
        lambda t, _: t - 2 * t,
        lambda t, _: t * t,
        lambda t, _: -t / 3,
        lambda t, _: t.sum(1),
        lambda t, _: t.sum(),
        lambda t, _: t.cumsum(0),
        lambda t, v: t.contract({0: v[:, 0]}),
        lambda t, v: t.contract(dict.fromkeys((0,), v[:, 0])).sum(),
        lambda t, v: t.mode_product(v.T, 0),
        lambda t, _: t.fix({0: 1}),
        lambda t, _: t.fix({0: 1, 1: 0, 2: 2}),
        lambda t, _: t[1],
        lambda t, _: t[1, 0, 2],
        lambda t, _: t.to_tensor(),
        lambda t, _: t.at([0, 1], [1, 2], [0, 0]),
    ],
)
def test_operations_keep_half_precision(case, library: str, call: Callable[..., Any]) -> None:
    from tests.conftest import Make

    t, exact = halved(case.create(Make("numpy", "float64")), library)
    size = t.shape[0]
    v = np.linspace(-1, 1, 2 * size).reshape(size, 2).astype("float16")
    if library == "torch":
        v = pytest.importorskip("torch").from_numpy(v).bfloat16()
    wide = to_numpy(v.float() if library == "torch" else v).astype(float)
    got, want = call(t, v), call(exact, wide)
    assert_equal(dtype_name(got), "float16" if library == "numpy" else "bfloat16")
    got, want = (x.to_tensor() if hasattr(x, "to_tensor") else x for x in (got, want))
    got = got.double() if library == "torch" else got
    step = STEP if library == "numpy" else 8 * STEP
    assert_relative(np.asarray(to_numpy(got), dtype=float), np.asarray(want), 4 * step)


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
