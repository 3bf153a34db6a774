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
def named(*, tol: float = 0.5) -> float:
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
        (lambda: plain(), "plain: needs `X`. Its arguments are X."),
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


def cannot(*_: Any) -> None:
    raise ValueError("arrays: no numbers", 2, 3)


class Base:
    def __init__(self, rank: int) -> None:
        self.rank = rank

    def run(self, steps: int) -> int:
        return steps

    def _hidden(self, steps: int) -> int:
        return steps


class Foreign:
    def work(self, steps: int) -> int:
        return steps


for function in (Base.__init__, Base.run, Base._hidden):
    function.__module__ = "tenfac.core.made"
Foreign.work.__module__ = "elsewhere.core.made"


def test_a_class_speaks_for_what_it_has_of_this_package_and_for_nothing_else() -> None:
    @door
    class Child(Base, Foreign):
        count = 3

    unknown = "unknown argument `step`"
    for call, said in (
        (lambda: Child(step=1), f"Child: {unknown}. Its arguments are rank."),
        (lambda: Child(1).run(step=1), f"Child.run: {unknown}. Did you mean 'steps'?"),
        (lambda: Child(1)._hidden(step=1), "_hidden() got an unexpected keyword argument 'step'"),
        (lambda: Child(1).work(step=1), "work() got an unexpected keyword argument 'step'"),
        (lambda: Base(1).run(step=1), "run() got an unexpected keyword argument 'step'"),
    ):
        with pytest.raises(TypeError) as error:
            call()
        assert str(error.value).endswith(said)
    assert_equal((Child(2).rank, Child(2).run(3), Child.count), (2, 3, 3))
    assert_equal((Child.run.__qualname__, Child.run.__module__), (f"{Child.__qualname__}.run", __name__))


def test_a_door_in_a_door_speaks_under_the_outer_name() -> None:
    class Inner(Base):
        __module__ = "tenfac.core.made"

    door(Inner)
    outer = door(type("Outer", (Inner,), {}))
    for made, name in ((outer(1), "Outer"), (Inner(1), "Inner")):
        with pytest.raises(TypeError) as error:
            made.run(step=1)
        assert_equal(str(error.value), f"{name}.run: unknown argument `step`. Did you mean 'steps'?")


@pytest.mark.parametrize("own", [TypeError("bad dtype"), ValueError("bad"), ValueError(3, "arrays: x")])
def test_errors_of_its_own_pass_as_they_are(own: Exception) -> None:
    @door
    def refuse(X: Any, tol: float = 0.5) -> None:
        raise own

    before = own.args
    for call in (lambda: refuse(1), lambda: refuse(1, 2.0)):
        with pytest.raises(type(own)) as error:
            call()
        assert_equal(error.value.args, before)


def test_the_name_of_the_caller_replaces_that_of_a_helper_and_the_rest_stays() -> None:
    with pytest.raises(ValueError, match="no numbers") as error:
        door(cannot)(1, 2, 3)
    assert_equal(error.value.args, ("cannot: no numbers", 2, 3))
