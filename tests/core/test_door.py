"""What a door says of a call that does not fit, word by word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tenfac.core.door import door
from tests.checks import assert_equal


@door
def fit(X: Any, rank: Any = 1, *, tol: float = 0.5, max_iter: int = 3) -> tuple[Any, ...]:
    return X, rank, tol, max_iter


@door
def plain(X: Any) -> Any:
    return X


@door
def named(*, tol: float) -> float:
    return tol


@door
def free(first: Any, *rest: Any, **options: Any) -> Any:
    if first == "type":
        raise TypeError("arrays: not this")
    if first == "value":
        raise ValueError("arrays: not that")
    if first == "bare":
        raise TypeError
    return first, rest, options


class Fitted:
    def run(self, steps: int, *, tol: float = 0.5) -> tuple[int, float]:
        return steps, tol

    def _hidden(self, steps: int) -> int:
        return steps


Fitted.__module__ = Fitted.run.__module__ = Fitted._hidden.__module__ = "tenfac.core.door"
FITTED = door(Fitted)()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: fit(1, 2, 3),
            "fit: takes 2 by position (X, rank); got 3. Give the others by name: tol=, max_iter=.",
        ),
        (
            lambda: fit(1, 2, 3, tol=1),
            "fit: takes 2 by position (X, rank); got 3. Give the others by name: max_iter=.",
        ),
        (lambda: fit(1, 2, 3, tol=1, max_iter=2), "fit: takes 2 by position (X, rank); got 3."),
        (lambda: fit(1, tols=3), "fit: unknown argument `tols`. Did you mean 'tol'?"),
        (lambda: fit(1, zzz=3), "fit: unknown argument `zzz`. Its arguments are X, rank, tol, max_iter."),
        (lambda: plain(1, 2), "plain: takes 1 by position (X); got 2."),
        (lambda: named(1), "named: takes none by position; got 1. Give the others by name: tol=."),
        (
            lambda: FITTED.run(1, 2),
            "Fitted.run: takes 1 by position (steps); got 2. Give the others by name: tol=.",
        ),
        (lambda: FITTED.run(1, tool=2), "Fitted.run: unknown argument `tool`. Did you mean 'tol'?"),
        (lambda: free("type"), "free: not this"),
    ],
)
def test_a_call_that_does_not_fit_is_told_in_whole_sentences(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(TypeError) as error:
        call()
    assert_equal(str(error.value), said)


def test_calls_that_fit_pass_and_errors_of_values_name_the_caller() -> None:
    assert_equal((fit(1), fit(1, 2, tol=3)), ((1, 1, 0.5, 3), (1, 2, 3, 3)))
    assert_equal(free(1, 2, 3, other=4), (1, (2, 3), {"other": 4}))
    assert_equal((FITTED.run(3), FITTED._hidden(2)), ((3, 0.5), 2))
    with pytest.raises(ValueError, match=r"^free: not that$"):
        free("value")
    with pytest.raises(TypeError) as bare:
        free("bare")
    assert_equal(str(bare.value), "")
