"""Arithmetic between kinds, precisions and batches, and what counts as a number; values: test_operators."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

from tenfac import CP, Chebyshev, Discrete, ShapeError, Tucker
from tenfac.core.arithmetic import scalar_of
from tests.checks import assert_close, assert_equal, assert_says, to_numpy
from tests.core.test_formats import Case

KINDS = ["cp", "tucker", "train", "turned train"]


def made(kind: str, make: Any, seed: int) -> Any:
    if kind == "turned train":
        return Case("cp").create(make, seed=seed).to_train(order=(2, 0, 1))
    return Case(kind).create(make, seed=seed)


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_two_kinds_meet_in_the_more_general_one(make: Any, first: str, second: str) -> None:
    if {first, second} == {"train", "turned train"}:
        return
    a, b = made(first, make, 0), made(second, make, 7)
    A, B = to_numpy(a.to_tensor()).astype(float), to_numpy(b.to_tensor()).astype(float)
    general = a if KINDS.index(first) >= KINDS.index(second) else b
    for sign in (operator.add, operator.sub, operator.mul):
        assert_equal(type(sign(a, b)), type(general))
        assert_close(sign(a, b).to_tensor(), sign(A, B), 1000, like=a.factors[0])
    scale = float(np.linalg.norm(A) * np.linalg.norm(B))
    assert_close(a.inner(b), np.sum(A * B), like=a.factors[0], scale=scale)


def test_products_of_a_batch_are_those_of_each(make: Any) -> None:
    factors = [make(2, 4, 3), make(2, 5, 3)]
    batch, other = CP(make(2, 3), factors), CP(None, [make(2, 4, 2, seed=5), make(2, 5, 2, seed=6)])
    dense = [np.einsum("br,bir,bjr->bij", *map(to_numpy, (t.weights, *t.factors))) for t in (batch, other)]
    assert_close((batch * other).to_tensor(), dense[0] * dense[1], like=factors[0])
    assert_close((batch.to_tucker() * other).to_tensor(), dense[0] * dense[1], like=factors[0])


def test_half_precision_is_computed_in_float32_and_comes_back() -> None:
    for sizes in ((3,), (3, 2)):
        t = CP(np.array([0.1], "f2"), [np.full((size, 1), 300.0, "f2") for size in sizes])
        want = 0.1 * 300.0 ** len(sizes)  # 300 * 300 is no number of half precision
        dense = t.to_tensor()
        assert_equal((dense.dtype, (t + t).dtype, (2 * t).dtype), (np.dtype("f2"),) * 3)
        assert_close(dense.astype(float), np.full(sizes, want), 1e13)
        wide = CP(None, [np.ones((size, 1), "f4") for size in sizes])
        assert_equal(((t + wide).dtype, t.inner(t).dtype), (np.dtype("f4"), np.dtype("f4")))
        assert_equal((1j * t).dtype, np.dtype("c8"))
        assert_close((1j * t).to_tensor().imag.astype(float), np.full(sizes, want), 1e13)


def test_formats_of_the_same_modes_are_joined_as_they_are() -> None:
    mode = Chebyshev(3)
    a, b = (CP(None, [np.ones((3, rank))], [mode]) for rank in (1, 2))
    left, right = a._aligned(b, "+")
    assert left is a
    assert right is b


def test_a_function_and_a_table_or_a_function_of_more_are_not_joined() -> None:
    function, table = CP(None, [np.ones((3, 1))], [Chebyshev(3)]), CP(None, [np.ones((3, 1))])
    for a, b in ((function, table), (table, function)):
        with pytest.raises(ShapeError) as error:
            a + b
        assert_says(error, "+: the functions must live on one domain")
    more = CP(None, [np.ones((3, 1))] * 2, [Chebyshev(3)] * 2)
    for other in (more, more.to_tucker()):
        with pytest.raises(ShapeError) as error:
            function + other
        assert_says(error, "must have the same modes")


def test_what_is_no_number_is_refused_with_the_sign_that_was_written() -> None:
    table = Tucker(np.ones((1, 1)), [np.ones((3, 1)), np.ones((2, 1))])
    function = Tucker(np.ones(1), [np.ones((2, 1))], [Chebyshev(2)])
    for call in (lambda: 1 - table, lambda: "2" - function, lambda: table - 1, lambda: function - "2"):
        with pytest.raises(TypeError) as error:
            call()
        assert_says(error, "unsupported operand type(s) for -: ", "Tucker")


def test_a_number_is_one_entry_without_axes() -> None:
    torch = pytest.importorskip("torch")
    for value in (np.array(2.5), np.float32(2.5), torch.tensor(2.5), 2.5):
        assert_equal(float(scalar_of(value)), 2.5)
    for other in (
        np.ones(3),
        np.ones(1),
        np.array("a"),
        torch.ones(3),
        torch.ones(1),
        Discrete(3),
        "2",
        None,
    ):
        assert scalar_of(other) is None
    t = CP(None, [torch.ones(3, 2)])
    with pytest.raises(TypeError):
        t * torch.ones(2)


def test_products_with_matrices_and_vectors_of_half_precision_come_back_in_it() -> None:
    t = CP(None, [np.ones((size, 2), "f2") for size in (3, 4)])
    for other, want in (("f2", "f2"), ("f4", "f4")):
        assert_equal(t.mode_product(np.ones((2, 3), other), 0).dtype, np.dtype(want))
        assert_equal(t.contract({0: np.ones(3, other)}).dtype, np.dtype(want))
        assert_equal(t.contract({0: np.ones(3, other), 1: np.ones(4, other)}).dtype, np.dtype(want))
