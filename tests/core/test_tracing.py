"""What is registered with other libraries, and when values and times are known."""

from __future__ import annotations

import sys
import types
from time import perf_counter
from unittest import mock

import numpy as np
import pytest

from tenfac.core import tracing
from tenfac.core.tracing import clock, constant, is_traced, register_pytree
from tests.checks import assert_above, assert_below, assert_equal


def test_a_class_is_registered_once_with_each_library_that_is_loaded_and_with_no_other():
    register, cls = mock.Mock(), type("Format", (), {})
    with mock.patch.dict(tracing._REGISTRARS, {"some_library": register}, clear=True):
        register_pytree(cls)
        assert_equal(register.call_count, 0)
        with mock.patch.dict(sys.modules, {"some_library": types.ModuleType("some_library")}):
            register_pytree(cls)
            register_pytree(cls)
        register.assert_called_once_with(cls)
    tracing._REGISTERED.discard(("some_library", cls))


def test_values_and_times_are_known_outside_of_transformations_and_not_inside():
    torch, seen = pytest.importorskip("torch"), []

    def look(x):
        seen.append((is_traced(x), clock(x)))
        return x

    torch.vmap(look)(torch.ones(2))
    assert_equal(seen, [(True, 0.0)])
    for array in (np.ones(2), np.float64(1), 1.0, torch.ones(2)):
        assert_equal(is_traced(array), False)
        before = perf_counter()
        assert_above(clock(array), before, "clock")
        assert_below(clock(array), perf_counter(), "clock")


def test_a_constant_of_torch_has_no_gradient():
    torch = pytest.importorskip("torch")
    array = torch.ones(2, requires_grad=True)
    assert_equal((constant(array).requires_grad, constant(array * 2).requires_grad), (False, False))
