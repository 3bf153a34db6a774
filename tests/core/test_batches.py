"""A batch of formats gives, by every operation, the numbers of each alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tenfac import CP, GP, Chebyshev, Discrete, Tucker, TuckerTrain
from tests.checks import assert_close, assert_equal

BATCH = (2, 1, 3)
MODES = (Chebyshev(4, (0.0, 2.0)), Discrete(3), GP("matern52", [0.0, 1.0, 2.5], lengthscale=1.5))
TABLE = (Discrete(4), Discrete(3), Discrete(2))
V = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
GRID = ([0.0, 0.7, 2.0], [0, 2], [0.3, 2.5])


def draw(kind: str, modes: tuple[Any, ...], batch: tuple[int, ...] = BATCH, *, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    sizes = [len(mode.nodes()) if hasattr(mode, "nodes") else mode.size for mode in modes]
    ranks = (2, 2, 2) if kind == "cp" else (2, 3, 2)
    factors = []
    for mode, size, rank in zip(modes, sizes, ranks, strict=True):
        values = rng.standard_normal((*batch, size, rank))
        level = {"level": values.mean(-2, keepdims=True)} if isinstance(mode, GP) else {}
        factors.append(mode.factor(values, **level) if hasattr(mode, "factor") else values)
    if kind == "cp":
        return CP(rng.standard_normal((*batch, 2)), factors, modes)
    if kind == "tucker":
        return Tucker(rng.standard_normal((*batch, *ranks)), factors, modes)
    bonds = zip((1, 2, 3), ranks, (2, 3, 1), strict=True)
    return TuckerTrain([rng.standard_normal((*batch, *size)) for size in bonds], factors, modes)


def numbers(result: Any) -> list[np.ndarray]:
    """Arrays, whatever the result is: a format by its values, a tuple by its parts."""
    if isinstance(result, tuple):
        return [array for part in result for array in numbers(part)]
    if not hasattr(result, "on_grid"):
        return [np.asarray(result)]
    grid = [
        np.arange(mode.size) if mode.domain is None else np.linspace(*mode.domain, 4) for mode in result.modes
    ]
    return [result.on_grid(*grid)]


def assert_one_by_one(call: Callable[[Any, Any], Any], t: Any, u: Any) -> None:
    whole = numbers(call(t, u))
    for place in np.ndindex(*BATCH):
        alone = [x._with([array[place] for array in x._arrays().values()]) for x in (t, u)]
        for got, want in zip(whole, numbers(call(*alone)), strict=True):
            assert_equal(got.shape, (*BATCH, *want.shape))
            assert_close(got[place], want, 1e5, scale=max(1.0, float(np.abs(want).max())))


EITHER = {
    "values": lambda t, _: t,
    "+": lambda t, u: t + 2 * u,
    "-": lambda t, u: t - u / 3,
    "norm": lambda t, _: t.norm(),
    "inner": lambda t, u: t.inner(u),
    "sum": lambda t, _: t.sum(1),
    "cumsum": lambda t, _: t.cumsum(1),
    "contract": lambda t, _: t.contract({1: V[0]}),
    "mode_product": lambda t, _: t.mode_product(V, 1),
    "slice": lambda t, _: t[:, ::-1, :],
    "row": lambda t, _: t[:, -1],
    "fix": lambda t, _: t.fix({0: 1}),
    "fix two": lambda t, _: t.fix({0: 1, 2: 1}),
    "fix all": lambda t, _: t.fix({0: 1, 1: 2, 2: 1}),
    "at": lambda t, _: t.at([0, 1, 1], [2, 1, 0], [0, 1, 0]),
    "at one": lambda t, _: t.at(1, 2, 0),
    "table": lambda t, _: t.change_mode(0, [0, 1, 1]),
}
FUNCTIONS = {
    "+ 1": lambda t, _: 1 + t,
    "grid": lambda t, _: t.on_grid(*GRID),
    "grid and whole modes": lambda t, _: t.on_grid(1.0, None, GRID[2]),
    "diff": lambda t, _: t.diff(0),
    "diff of a process": lambda t, _: t.diff(2),
    "diff twice": lambda t, _: t.diff(0, 2),
    "laplacian": lambda t, _: t.change_mode(2, Chebyshev(5, (0.0, 2.0)), tol=0.9).laplacian(),
    "laplacian of a process": lambda t, _: t.fix({0: 0.5}).laplacian(),
    "grad": lambda t, _: t.grad(),
    "value_and_grad": lambda t, _: t.value_and_grad([0.1, 2.0], [1, 2], [2.5, 1.0]),
    "integrate": lambda t, _: t.integrate([2]),
    "integrate all": lambda t, _: t.integrate(),
    "marginal": lambda t, _: t.marginal(0),
    "cumulative integral": lambda t, _: t.cumsum(0),
    "restrict": lambda t, _: t.restrict([(0.5, 1.0), None, (0.5, 2.0)]),
    "change_mode": lambda t, _: t.change_mode(0, Chebyshev(6, (0.0, 2.0))),
    "other degrees": lambda t, u: t + u.change_mode(0, Chebyshev(6, (0.0, 2.0))),
}
TABLES = {
    "dense": lambda t, _: t.to_tensor(),
    "sum all": lambda t, _: t.sum(),
    "sum two": lambda t, _: t.sum([0, 2]),
    "*": lambda t, u: t * u,
    "contract all": lambda t, _: t.contract({0: np.arange(4.0), 1: V[0], 2: V[0, :2]}),
}


@pytest.mark.parametrize("kind", ["tucker", "cp", "train"])
@pytest.mark.parametrize("name", EITHER)
@pytest.mark.parametrize("modes", [MODES, TABLE], ids=["functions", "tables"])
def test_operations_on_a_batch_are_those_on_each(kind: str, name: str, modes: tuple[Any, ...]) -> None:
    assert_one_by_one(EITHER[name], draw(kind, modes), draw(kind, modes, seed=1))


@pytest.mark.parametrize("kind", ["tucker", "cp", "train"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_calculus_of_a_batch_is_that_of_each(kind: str, name: str) -> None:
    assert_one_by_one(FUNCTIONS[name], draw(kind, MODES), draw(kind, MODES, seed=1))


@pytest.mark.parametrize("kind", ["tucker", "cp", "train"])
@pytest.mark.parametrize("name", TABLES)
def test_operations_on_a_batch_of_tables_are_those_on_each(kind: str, name: str) -> None:
    assert_one_by_one(TABLES[name], draw(kind, TABLE), draw(kind, TABLE, seed=1))


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("cp", lambda t, _: t.to_tucker()),
        ("cp", lambda t, _: t.to_train(order=(2, 0, 1))),
        ("tucker", lambda t, _: t.to_train(order=(1, 2, 0))),
        ("tucker", lambda t, _: t.round(2)),
        ("train", lambda t, _: t.to_tucker()),
        ("train", lambda t, _: t.round(2)),
        ("train", lambda t, _: t.round(train_rank=2)),
        ("train", lambda t, _: t.reordered((2, 0, 1))),
        ("train", lambda t, u: t.reordered((2, 0, 1)) + u),
    ],
)
def test_other_formats_of_a_batch_are_those_of_each(kind: str, call: Callable[[Any, Any], Any]) -> None:
    assert_one_by_one(call, draw(kind, TABLE), draw(kind, TABLE, seed=1))
    assert_one_by_one(call, draw(kind, MODES), draw(kind, MODES, seed=1))


@pytest.mark.parametrize("pair", [("cp", "tucker"), ("cp", "train"), ("tucker", "train")])
def test_two_kinds_of_a_batch_meet_as_those_of_each(pair: tuple[str, str]) -> None:
    left, right = (draw(kind, TABLE, seed=n) for n, kind in enumerate(pair))
    for call in (lambda t, u: t + u, lambda t, u: u * t, lambda t, u: t.inner(u), lambda t, u: u - t):
        assert_one_by_one(call, left, right)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("batch", [(), BATCH], ids=["one", "batch"])
@pytest.mark.parametrize(("kind", "option"), [("tucker", "rank"), ("train", "rank"), ("train", "train_rank")])
def test_the_error_of_rounding_is_that_of_the_entries_at_every_scale(
    kind: str, option: str, batch: tuple[int, ...], scale: float
) -> None:
    t = scale * draw(kind, TABLE, batch)
    made = t.round(**{option: 1})
    axes = (-3, -2, -1)
    lost = np.sqrt(np.sum((made.to_tensor() - t.to_tensor()) ** 2, axis=axes))
    want = lost / np.sqrt(np.sum(t.to_tensor() ** 2, axis=axes))
    assert_close(np.asarray(made.info.rel_error), np.asarray(want), 1e5)
    zero = (0 * t).round(**{option: 1})
    assert_equal(np.asarray(zero.info.rel_error), np.zeros(batch))
    assert_equal(zero.to_tensor(), np.zeros((*batch, 4, 3, 2)))


@pytest.mark.parametrize("batch", [(), (1,)], ids=["one", "batch"])
def test_the_error_of_rounding_is_relative_where_cores_of_order_one_cancel(batch: tuple[int, ...]) -> None:
    cores = [np.diag([0.1, 1.0])[None], np.diag([1.0, 0.05])[..., None]]  # the matrix diag(0.1, 0.05)
    arrays = [
        np.broadcast_to(array, (*batch, *array.shape)).copy() for array in (*cores, np.eye(2), np.eye(2))
    ]
    made = TuckerTrain(arrays[:2], arrays[2:]).round(train_rank=1)
    assert_close(np.asarray(made.info.rel_error), np.full(batch, 1 / np.sqrt(5)))
