"""GPyTorch kernels as processes: the same covariance, the same gradients, or a refusal."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from tenfac.bayes.exact.filter import filter_smooth
from tenfac.bayes.exact.sites import Sites
from tenfac.bayes.from_gpytorch import from_gpytorch
from tenfac.core.errors import DataError, MissingExtraError
from tests.checks import assert_below, assert_equal, assert_relative, assert_says

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 2026-07: gpytorch's import, torch.jit

X = torch.tensor([0.3, 5.1, 2.2, 2.2, -1.0, 3.7], dtype=torch.float64)
Y = torch.tensor([1.0, -0.4, 0.7, 0.5, -1.2, 0.1], dtype=torch.float64)
AT = torch.tensor([6.0, -3.0, 2.2, 1.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def kernels() -> Any:
    return pytest.importorskip("gpytorch.kernels")


def matern(kernels: Any, nu: float, lengthscale: float) -> Any:
    kernel = kernels.MaternKernel(nu=nu)
    kernel.lengthscale = lengthscale
    return kernel


def build(kernels: Any, name: str) -> Any:
    season = kernels.PeriodicKernel()
    season.period_length, season.lengthscale = 2.6, 1.4
    line, level = kernels.LinearKernel(), kernels.ConstantKernel()
    line.variance, level.constant = 0.3, torch.tensor(1.7)
    scaled = kernels.ScaleKernel(matern(kernels, 1.5, 0.7))
    scaled.outputscale = 2.5
    built = {
        "matern12": lambda: matern(kernels, 0.5, 1.2),
        "matern32": lambda: matern(kernels, 1.5, 1.2),
        "matern52": lambda: matern(kernels, 2.5, 1.2),
        "periodic": lambda: season,
        "linear": lambda: line,
        "constant": lambda: level,
        "scaled": lambda: scaled,
        "all": lambda: level + line + scaled * season,
    }
    return built[name]().double()


def dense(kernel: Any, x: Any, z: Any) -> Any:
    """Covariance of a kernel; a sum or product part by part, as GPyTorch's own product adds jitter."""
    if type(kernel).__name__ in ("AdditiveKernel", "ProductKernel"):
        parts = torch.stack([dense(part, x, z) for part in kernel.kernels])
        return parts.sum(0) if type(kernel).__name__ == "AdditiveKernel" else parts.prod(0)
    return kernel(x[:, None], z[:, None]).to_dense()


NAMES = ("matern12", "matern32", "matern52", "periodic", "linear", "constant", "scaled", "all")


@pytest.mark.parametrize("name", NAMES)
def test_covariance_is_that_of_the_kernel(kernels: Any, name: str) -> None:
    kernel = build(kernels, name)
    with torch.no_grad():
        total = dense(kernel, X, X) + 0.2 * torch.eye(6, dtype=torch.float64)
        cross, prior = dense(kernel, AT, X), dense(kernel, AT, AT)
        mean = cross @ torch.linalg.solve(total, Y)
        cov = prior - cross @ torch.linalg.solve(total, cross.T)
        post = filter_smooth(from_gpytorch(kernel), X, Sites.from_observations(Y, 0.2))
    # gpytorch centers its inputs, which rounds their distances
    assert_below((post.at(AT)[0] - mean).abs().max(), 1e-8, "mean")
    assert_below((post.cov(AT) - cov).abs().max(), 1e-8, "covariance")


def test_gradients_reach_the_parameters_of_the_kernel(kernels: Any) -> None:
    kernel = build(kernels, "all")
    evidence = filter_smooth(
        from_gpytorch(kernel, gradient=True), X, Sites.from_observations(Y, 0.2)
    ).log_evidence
    got = torch.autograd.grad(evidence, list(kernel.parameters()))
    total = dense(kernel, X, X) + 0.2 * torch.eye(6, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), total)
    want = torch.autograd.grad(normal.log_prob(Y), list(kernel.parameters()))
    assert_equal(len(got), 6)
    for one, other in zip(got, want, strict=True):
        assert_relative(one, other, 1e-6)


def test_numbers_without_gradient_serve_numpy(kernels: Any) -> None:
    process = from_gpytorch(build(kernels, "all"))
    mean, _ = filter_smooth(process, X.numpy(), Sites.from_observations(Y.numpy(), 0.2)).at(AT.numpy())
    assert_equal(type(mean), np.ndarray)
    assert_equal(process.tensors(), [])


def test_other_kernels_are_refused(kernels: Any) -> None:
    cases = [
        (kernels.RBFKernel(), "RBFKernel"),
        (kernels.MaternKernel(nu=2.5) + kernels.RQKernel(), "RQKernel"),
        (kernels.MaternKernel(nu=2.5, ard_num_dims=2), "`lengthscale`", "(1, 2)"),
        (kernels.MaternKernel(nu=2.5, active_dims=(1,)), "active_dims=[1]"),
        ("matern52", "str"),
    ]
    for kernel, *parts in cases:
        with pytest.raises(DataError) as error:
            from_gpytorch(kernel)
        assert_says(error, "from_gpytorch:", *parts)


def test_without_gpytorch_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpytorch", None)
    with pytest.raises(MissingExtraError) as error:
        from_gpytorch(object())
    assert_says(error, "pip install 'tenfac[bayes]'")
