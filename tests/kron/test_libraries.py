"""Gradients, JAX, the strict array API, and conversions to SciPy and linear_operator."""

from __future__ import annotations

import builtins
from unittest import mock

import numpy as np
import pytest

from tenfac import DataError, KroneckerOperator, MissingExtraError, nearest_kronecker
from tests.checks import assert_below, assert_close, assert_equal, assert_same_kind, assert_says, to_numpy
from tests.oracles import kron_all

rng = np.random.default_rng(0)  # small: finite differences in every entry, and JAX compiles every shape
A, B = rng.standard_normal((3, 3)), rng.standard_normal((2, 2))
X, Y = rng.standard_normal((6, 2)), rng.standard_normal(6)


def symmetric(matrix):
    return matrix @ matrix.T


def calls(K_of):
    """Every differentiable function of two factors and an operand, by name."""
    return {
        "product": lambda A, B, x: K_of(A, B) @ x,
        "solve": lambda A, B, x: K_of(A, B).solve(x),
        "slogdet": lambda A, B, x: K_of(A, B).slogdet().logabsdet + 0 * x.sum(),
        "diagonal": lambda A, B, x: K_of(A, B).diag() + 0 * x.sum(),
        "norm": lambda A, B, x: K_of(A, B).norm() + 0 * x.sum(),
        "shifted solve": lambda A, B, x: K_of(symmetric(A), symmetric(B)).shifted(0.3).solve(x),
        "shifted logdet": lambda A, B, x: (
            K_of(symmetric(A), symmetric(B)).shifted(0.3).logdet() + 0 * x.sum()
        ),
        "square root": lambda A, B, x: K_of(symmetric(A), symmetric(B)).shifted(0.3).sqrt_matvec(x),
        "two-term solve": lambda A, B, x: two_terms(K_of, A, B).solve(x),
        "two-term logdet": lambda A, B, x: two_terms(K_of, A, B).logdet() + 0 * x.sum(),
    }


def two_terms(K_of, A, B):
    shift_a, shift_b = (m.diagonal().max() ** 2 + 1.0 for m in (A, B))
    return K_of(symmetric(A), symmetric(B)) + K_of(
        symmetric(A.T) + eye(A, shift_a), symmetric(B.T) + eye(B, shift_b)
    )


def eye(like, scale):
    return (
        scale * (0 * like + np.eye(like.shape[0])) if isinstance(like, np.ndarray) else scale * eye_of(like)
    )


def eye_of(like):
    import torch

    return torch.eye(like.shape[0], dtype=like.dtype)


NAMES = list(calls(KroneckerOperator))


# --- gradients of torch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    torch = pytest.importorskip("torch")
    arrays = [torch.from_numpy(a.copy()).requires_grad_() for a in (A, B, Y)]
    assert torch.autograd.gradcheck(calls(KroneckerOperator)[name], arrays)


@pytest.mark.parametrize("name", ["shifted solve", "shifted logdet", "two-term solve"])
def test_second_derivatives_are_those_of_finite_differences(name):
    torch = pytest.importorskip("torch")
    arrays = [torch.from_numpy(a.copy()).requires_grad_() for a in (A[:2, :2], B, Y[:4])]
    assert torch.autograd.gradgradcheck(calls(KroneckerOperator)[name], arrays)


def test_gradients_reach_the_shift_with_and_without_factors():
    torch = pytest.importorskip("torch")
    shift = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    a, b = (torch.from_numpy(symmetric(m)) for m in (A, B))
    y = torch.from_numpy(Y)
    for a_used in (a, a.clone().requires_grad_()):
        K = KroneckerOperator(a_used, b)
        assert torch.autograd.gradcheck(lambda s, K=K: K.shifted(s).solve(y), [shift])
        assert torch.autograd.gradcheck(
            lambda s, K=K: K.shifted(s).inv_quad(y) + K.shifted(s).logdet(), [shift]
        )


def test_only_a_gradient_that_is_asked_for_costs_more_than_the_solve():
    torch = pytest.importorskip("torch")
    a, b, y = (torch.from_numpy(m.copy()) for m in (symmetric(A), symmetric(B), Y))
    asked = a.clone().requires_grad_()
    for factor, grad, wanted in ((a, True, False), (asked, False, False), (asked, True, True)):
        S = KroneckerOperator(factor, b).shifted(0.3)
        with (
            torch.set_grad_enabled(grad),
            mock.patch.object(type(S), "_times", side_effect=S._times) as count,
        ):
            x = S.solve(y)
        assert_equal(count.called, wanted)
        assert_close(S @ x, y, factor=1e4, like=x)


def test_repeated_eigenvalues_do_not_spoil_the_gradients_of_solve_and_logdet():
    torch = pytest.importorskip("torch")
    scales = torch.tensor([1.5, 0.5], dtype=torch.float64, requires_grad=True)
    y = torch.from_numpy(Y)

    def log_density(scales):
        K = KroneckerOperator(
            scales[0] * torch.eye(3, dtype=torch.float64), scales[1] * torch.ones(2, 2).double()
        )
        S = K.shifted(0.1)
        return S.inv_quad(y) + S.logdet()

    assert torch.autograd.gradcheck(log_density, [scales])


def test_complex_gradients_of_product_and_shifted_solve():
    torch = pytest.importorskip("torch")
    a, b = (
        torch.complex(torch.from_numpy(m), torch.from_numpy(m[::-1].copy())).requires_grad_() for m in (A, B)
    )
    y = torch.from_numpy(Y + 1j * Y[::-1]).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b, y: KroneckerOperator(a, b) @ y, [a, b, y])

    def solve(a, b, y):
        return KroneckerOperator(a @ a.mH, b @ b.mH).shifted(0.5).solve(y)

    assert torch.autograd.gradcheck(solve, [a, b, y])


def test_torch_vmap_and_func_grad():
    torch = pytest.importorskip("torch")
    K = KroneckerOperator(torch.from_numpy(A), torch.from_numpy(B))
    x = torch.from_numpy(X.T.copy())
    assert_close(torch.vmap(lambda v: K @ v)(x), K.matvec(x))
    got = torch.func.grad(lambda a: (KroneckerOperator(a, K.factors[1]) @ x[0]).sum())(K.factors[0])
    want = torch.autograd.functional.jacobian(
        lambda a: (KroneckerOperator(a, K.factors[1]) @ x[0]).sum(), K.factors[0]
    )
    assert_close(got, want)


def test_the_nearest_product_carries_no_gradient():
    torch = pytest.importorskip("torch")
    M = torch.from_numpy(np.kron(A, B)).requires_grad_()
    assert_equal(nearest_kronecker(M, ((3, 3), (2, 2))).factors[0].requires_grad, False)


# --- JAX --------------------------------------------------------------------------------------------------


@pytest.fixture
def jnp():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield jax.numpy


def test_jax_arrays_give_the_numbers_of_numpy(jnp):
    a, b, x = map(jnp.asarray, (A, B, X))
    K, N = KroneckerOperator(a, b), KroneckerOperator(A, B)
    assert_close(K @ x, N @ X, like=a)
    assert_close(K.solve(x), N.solve(X), like=a, factor=1000)
    assert_close((x.T @ K), X.T @ kron_all([A, B]), like=a)
    assert_says(repr(K), "jax.float64", "shape=(6, 6)")


def test_jax_float32_stays_float32():
    jax = pytest.importorskip("jax")
    a, x = jax.numpy.asarray(A), jax.numpy.asarray(X[:3])
    assert_equal(str((KroneckerOperator(a) @ x).dtype), "float32")
    assert_equal(str(KroneckerOperator(a).solve(x).dtype), "float32")


@pytest.mark.parametrize("name", ["product", "shifted solve"])
def test_jit_vmap_and_grad_of_jax(jnp, name):
    import jax

    call = calls(KroneckerOperator)[name]
    a, b, x = jnp.asarray(A), jnp.asarray(B), jnp.asarray(X.T)
    want = [call(A, B, v) for v in X.T]
    many = jax.jit(jax.vmap(call, (None, None, 0)))
    assert_close(many(a, b, x), np.stack(want), like=a, factor=1e5)
    step = 1e-6
    got = jax.jit(jax.grad(lambda a: call(a, b, x[0]).sum()))(a)
    up, down = A.copy(), A.copy()
    up[0, 1] += step
    down[0, 1] -= step
    slope = (call(up, B, X[:, 0]).sum() - call(down, B, X[:, 0]).sum()) / (2 * step)
    assert_below(abs(float(got[0, 1]) - slope) / abs(slope), 1e-5, "relative difference of the slope")


def test_a_singular_jax_factor_is_refused_outside_jit(jnp):
    with pytest.raises(DataError) as error:
        KroneckerOperator(jnp.eye(2), jnp.ones((2, 2))).solve(jnp.ones(4))
    assert_says(error, "factors[1]")


@pytest.mark.slow
def test_nearest_of_jax_arrays(jnp):
    M = jnp.asarray(np.kron(A, B))
    K = nearest_kronecker(M, ((3, 3), (2, 2)))
    assert_close(K.to_dense(), M)


# --- the strict array API ---------------------------------------------------------------------------------


def test_the_strict_array_api_gives_the_numbers_of_numpy():
    xp = pytest.importorskip("array_api_strict")
    a, b, x = map(xp.asarray, (A, B, X))
    K, N = KroneckerOperator(a, b), KroneckerOperator(A, B)
    assert_close(to_numpy(K @ x), N @ X)
    assert_close(to_numpy(K.solve(x)), N.solve(X), factor=1000)
    assert_close(float(K.slogdet().logabsdet), float(N.slogdet().logabsdet))
    S, T = (KroneckerOperator(f @ f.T, g @ g.T) for f, g in ((a, b), (A, B)))
    assert_close(to_numpy(S.shifted(0.3).solve(x)), T.shifted(0.3).solve(X), factor=1e4)
    assert_close(to_numpy((S + S).solve(x[:, 0])), (T + T).solve(X[:, 0]), factor=1e4)
    near = nearest_kronecker(xp.asarray(np.kron(A, B)), ((3, 3), (2, 2)))
    assert_close(to_numpy(near.to_dense()), np.kron(A, B))


# --- SciPy and linear_operator ----------------------------------------------------------------------------


def test_scipy_solvers_take_the_operator(make):
    from scipy.sparse.linalg import cg, lsqr

    factors = [make.asarray(symmetric(A) + 3 * np.eye(3)), make.asarray(symmetric(B) + 3 * np.eye(2))]
    y = to_numpy(make(6))
    for matrix in (KroneckerOperator(*factors), KroneckerOperator(*factors).shifted(1.0)):
        got, failed = cg(matrix.to_scipy(), y, rtol=1e-6)
        want = np.linalg.solve(to_numpy(matrix.to_dense()), y)
        assert_equal(failed, 0)
        assert_below(np.linalg.norm(got - want), 1e-4 * np.linalg.norm(want), "error")
    tall = KroneckerOperator(make(4, 2), make(3, 2))
    want = np.linalg.lstsq(kron_all(tall.factors), to_numpy(make(12)).astype(float))[0]
    assert_below(np.linalg.norm(lsqr(tall.to_scipy(), to_numpy(make(12)))[0] - want), 1e-3, "error")


def test_the_scipy_operator_and_its_adjoint_equal_the_dense_matrix(make):
    factors = [make.complex(2, 3), make.complex(4, 2)]
    for K in (
        KroneckerOperator(*factors),
        KroneckerOperator(*factors) * 2 + KroneckerOperator(make.complex(8, 6)),
    ):
        operator, dense = K.to_scipy(), to_numpy(K.to_dense())
        x, y = to_numpy(make.complex(6, 2)), to_numpy(make.complex(8, 2))
        assert_close(operator @ x, dense @ x)
        assert_close(operator @ x[:, 0], dense @ x[:, 0])
        assert_close(operator.H @ y, dense.conj().T @ y)
        assert_close(operator.rmatvec(y[:, 0]), dense.conj().T @ y[:, 0])


def test_linear_operator_gets_the_same_matrix():
    torch = pytest.importorskip("torch")
    pytest.importorskip("linear_operator")
    factors = [torch.from_numpy(A), torch.from_numpy(B)]
    K = KroneckerOperator(*factors)
    theirs = K.to_linear_operator()
    assert_close(theirs.to_dense(), K.to_dense())
    assert_close(theirs @ torch.from_numpy(X), K @ torch.from_numpy(X))


def test_conversion_to_linear_operator_needs_torch_tensors_and_the_library():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError) as error:
        KroneckerOperator(A).to_linear_operator()
    assert_says(error, "numpy", "torch.asarray")
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("linear_operator"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    with mock.patch.object(builtins, "__import__", without), pytest.raises(MissingExtraError) as error:
        KroneckerOperator(torch.eye(2)).to_linear_operator()
    assert_says(error, "pip install", "tenfac[bayes]")


def test_results_stay_torch_tensors_of_their_dtype():
    torch = pytest.importorskip("torch")
    K = KroneckerOperator(torch.eye(2), torch.eye(3))
    for got in (
        K @ torch.ones(6),
        K.solve(torch.ones(6)),
        K.shifted(1).solve(torch.ones(6)),
        torch.ones(6) @ K,
    ):
        assert_same_kind(got, torch.ones(1))


def test_torch_factors_and_operands_of_two_precisions_meet_in_the_wider():
    torch = pytest.importorskip("torch")
    A = np.arange(4.0).reshape(2, 2) + np.eye(2)
    x = torch.arange(4, dtype=torch.float64)
    got = KroneckerOperator(torch.tensor(A, dtype=torch.float32), torch.eye(2)) @ x
    assert_equal(str(got.dtype), "torch.float64")
    assert_close(got, torch.tensor(np.kron(A, np.eye(2)) @ x.numpy()))
