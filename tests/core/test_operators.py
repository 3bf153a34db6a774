"""Operators and functions of numpy on functions in the format, against the function values themselves."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tenfac import CP, Chebyshev, DataError, Discrete, ShapeError, Tucker
from tests.checks import assert_close, assert_equal, assert_says

X = np.linspace(1.0, 3.0, 7)
FUNCTION = Tucker(np.ones(1), [np.array([[0.75], [0.25]])], [Chebyshev(2, (1.0, 3.0))])  # f(x) = (1 + x) / 4
F = (1 + X) / 4
OTHER = Tucker(np.ones(1), [np.array([[2.0], [1.0]])], [Chebyshev(2, (1.0, 3.0))])  # g(x) = x
TABLE = Tucker(np.ones((1, 1)), [np.ones((3, 1)), np.ones((2, 1))])


@pytest.mark.parametrize(
    ("call", "want"),
    [
        (lambda f: f + 2, F + 2),
        (lambda f: 2 + f, F + 2),
        (lambda f: f - 2, F - 2),
        (lambda f: 2 - f, 2 - F),
        (lambda f: f - OTHER, F - X),
        (lambda f: f * OTHER, F * X),
        (lambda f: f / OTHER, F / X),
        (lambda f: 2 / f, 2 / F),
        (lambda f: f / 2, F / 2),
        (lambda f: f**2, F**2),
        (lambda f: 2**f, 2**F),
        (lambda f: -f, -F),
        (lambda f: np.float64(2) - f, 2 - F),
        (lambda f: np.exp(f), np.exp(F)),
        (lambda f: np.arctan2(f, OTHER), np.arctan2(F, X)),
        (lambda f: np.arctan2(2.0, f), np.arctan2(2.0, F)),
        (lambda f: np.arctan2(f, 2.0), np.arctan2(F, 2.0)),
        (lambda f: np.subtract(f, OTHER), F - X),
        (lambda f: np.true_divide(f, OTHER), F / X),
    ],
)
def test_operators_on_functions_act_on_values(call: Callable[..., Any], want: np.ndarray) -> None:
    assert_close(call(FUNCTION).at(X), want, 1e6)


@pytest.mark.parametrize("symbol", [operator.lt, operator.le, operator.gt, operator.ge])
def test_formats_have_no_order(symbol: Callable[..., Any]) -> None:
    for other in (OTHER, np.float64(2)):
        with pytest.raises(TypeError):
            symbol(FUNCTION, other)
    assert_equal((np.float64(2) == FUNCTION, np.float64(2) != FUNCTION), (False, True))


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t + 1,
        lambda t: 1 + t,
        lambda t: t - 1,
        lambda t: 1 - t,
        lambda t: 1 / t,
        lambda t: t**2,
        lambda t: 2**t,
        lambda t: t * "2",
        lambda t: t / "2",
        lambda t: t / t,
        np.exp,
        np.modf,
        lambda t: np.add.reduce(t),
        lambda t: np.multiply(t, 2, where=True),
        lambda t: np.arctan2(t, "2"),
    ],
)
def test_what_leaves_the_format_of_a_table_is_refused(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError):
        call(TABLE)


@pytest.mark.parametrize("call", [lambda f: f + "2", lambda f: f - "2", lambda f: "2" - f, lambda f: f**1j])
def test_what_is_no_number_is_not_added_to_a_function(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError):
        call(FUNCTION)


@pytest.mark.parametrize("number", [np.inf, np.nan, complex(0, np.inf)])
def test_numbers_that_are_not_finite_are_refused(number: complex) -> None:
    for call in (lambda: FUNCTION * number, lambda: FUNCTION + number, lambda: TABLE / number):
        with pytest.raises(DataError) as error:
            call()
        assert_says(error, "finite", str(number))
    with pytest.raises(DataError) as error:
        FUNCTION * 10**400  # beyond the range of floats
    assert_says(error, "no larger than floats", "1329 bits")


def test_functions_on_two_domains_and_tables_of_two_sizes_are_not_joined() -> None:
    elsewhere = Tucker(np.ones(1), [np.ones((2, 1))], [Chebyshev(2, (0.0, 3.0))])
    for call in (operator.add, operator.sub, Tucker.inner):
        with pytest.raises(ShapeError) as error:
            call(FUNCTION, elsewhere)
        assert_says(error, "on one domain")
    mixed = Tucker(np.ones((1, 1)), [np.ones((3, 1)), np.ones((2, 1))], [Discrete(3), Chebyshev(2)])
    with pytest.raises(ShapeError) as error:
        mixed + Tucker(np.ones((1, 1)), [np.ones((4, 1)), np.ones((2, 1))], [Discrete(4), Chebyshev(2)])
    assert_says(error, "+", "on one domain")
    with pytest.raises(ShapeError) as error:
        TABLE + CP(None, [np.ones((3, 1))])
    assert_says(error, "the same modes")


@pytest.mark.parametrize("rank", [1, 3])
def test_heights_are_the_norms_of_the_rows_of_the_unfoldings(rank: int) -> None:
    rng = np.random.default_rng(rank)
    factors = [np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in (5, 3, 4)]
    t = Tucker(rng.standard_normal((rank,) * 3), factors)
    dense = np.einsum("pqr,ip,jq,kr", t.core, *factors)
    want = [np.sqrt(np.sum(dense**2, axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    for made in (t, t.to_train(), t.to_train(order=(2, 0, 1))):
        for got, heights in zip(made._heights(), want, strict=True):
            assert_close(got, heights)


def test_a_table_is_no_operand_from_either_side():
    table, t = (
        pytest.importorskip("pandas").DataFrame(np.ones((2, 2))),
        Tucker(np.ones((1, 1)), [np.ones((2, 1))] * 2),
    )
    for sign in (operator.add, operator.sub, operator.mul):
        for left, right in ((t, table), (table, t)):
            with pytest.raises(TypeError) as error:
                sign(left, right)
            assert_says(error, "unsupported operand", "Tucker", "DataFrame")
