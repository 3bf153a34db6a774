"""A format as a torch module: the same values, gradients in the points and in the parameters."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import CP, Chebyshev, DataError, Discrete, ShapeError, Tucker, TuckerTrain, to_torch
from tenfac.core.errors import MissingExtraError
from tests.checks import assert_close, assert_equal, assert_says

torch = pytest.importorskip("torch")


def some(kind=Tucker):
    rng = np.random.default_rng(0)
    modes = [Chebyshev(6, (0.0, 2.0)), Discrete(3), Chebyshev(4)]
    factors = [rng.standard_normal((mode.size, 2)) for mode in modes]
    if kind is TuckerTrain:
        return kind([rng.standard_normal(size) for size in ((1, 2, 2), (2, 2, 2), (2, 2, 1))], factors, modes)
    return kind(rng.standard_normal((2, 2, 2) if kind is Tucker else 2), factors, modes)


X = np.array([[0.1, 0, -0.5], [1.9, 2, 1.0], [0.0, 1, 0.25]])


@pytest.mark.parametrize("kind", [Tucker, CP, TuckerTrain])
def test_the_module_has_the_values_of_the_format_by_columns_or_rows(kind):
    t = some(kind)
    want = t.at(X[:, 0], X[:, 1].astype(int), X[:, 2])
    module = to_torch(t)
    like = torch.zeros(1, dtype=torch.float64)
    assert_close(module(torch.tensor(X)), want, like=like)
    assert_close(module(X[:, 0], [0, 2, 1], X[:, 2]), want, like=like)
    single = to_torch(t, dtype=torch.float32)
    assert_close(single(torch.tensor(X)), want, like=like.float())
    assert_equal(
        (len(list(module.parameters())), len(module.state_dict())), (0, 6 if kind is TuckerTrain else 4)
    )
    assert_says(repr(module), kind.__name__, "degree=(5, -, 3)")


def test_gradients_reach_points_and_parameters():
    module = to_torch(some(), trainable=True)
    points = torch.tensor(X, requires_grad=True)
    (slope,) = torch.autograd.grad(module(points).sum(), points, retain_graph=True)
    want = some().value_and_grad(X[:, 0], X[:, 1].astype(int), X[:, 2])[1]
    assert_close(slope[:, [0, 2]], want, like=slope)
    module(points).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name


def test_a_function_of_two_variables_takes_rows():
    module = to_torch(Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2))  # x y
    points = torch.tensor([[0.5, 0.5], [-1.0, 0.25]], dtype=torch.float64)
    assert_close(module(points), np.array([0.25, -0.25]), like=points)


def test_places_that_are_whole_numbers_have_a_slope_and_row_numbers_must_be_whole():
    module = to_torch(some())
    points = torch.tensor([[1.0, 0.0, -1.0], [2.0, 1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(module(points).sum(), points)
    assert_close(slope[:, [0, 2]], some().value_and_grad([1.0, 2.0], [0, 1], [-1.0, 1.0])[1], like=slope)
    with pytest.raises(DataError, match="mode 1"):
        module(torch.tensor([[1.0, 0.5, 0.0]]))


def test_a_state_dict_carries_the_function():
    module, other = to_torch(some()), to_torch(2 * some())
    other.load_state_dict(module.state_dict())
    assert_equal(other(torch.tensor(X)), module(torch.tensor(X)))
    assert_equal(type(other.format()), Tucker)


def test_what_is_no_function_or_no_point_is_refused():
    module = to_torch(some())
    for points, kind in (
        (X[:, :2], ShapeError),
        (X + 0.5, DataError),
        (np.array([[2.5, 0, 0.0]]), DataError),
    ):
        with pytest.raises(kind):
            module(torch.tensor(points))
    with pytest.raises(ShapeError) as error:
        to_torch(CP(None, [np.ones((2, 3, 1))]))
    assert_says(error, "batch", "(2,)")
    with pytest.raises(TypeError):
        to_torch(np.ones(3))


def test_a_function_of_one_variable_takes_rows_columns_and_single_numbers():
    t = Tucker(np.array([2.0]), [np.eye(2)[:, 1:]], [Chebyshev(2)])  # 2 x
    module = to_torch(t, dtype=torch.float64)
    rows = torch.tensor([[0.5], [-0.25], [1.0]], dtype=torch.float64)
    assert_close(module(rows), np.array([1.0, -0.5, 2.0]), like=rows)
    assert_close(module(rows[:, 0]), np.array([1.0, -0.5, 2.0]), like=rows)
    assert_close(module(rows[:2].T), np.array([[1.0, -0.5]]), like=rows)
    assert_close(module(rows[:1, 0]), np.array([1.0]), like=rows)
    assert_equal(float(module(0.5)), 1.0)


def test_other_dtypes_and_a_missing_library_are_said(monkeypatch):
    with pytest.raises(DataError) as error:
        to_torch(some(), dtype=torch.float16)
    assert_says(error, "to_torch", "float32, torch.float64", "float16")
    monkeypatch.setattr("tenfac.functional.to_torch.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError) as error:
        to_torch(some())
    assert_says(error, "pip install 'tenfac[torch]'")
