"""One answer from four libraries: numpy, torch, JAX and the strict array API agree to 1e-12."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from tenfac import (
    CP,
    DataError,
    Tucker,
    fold,
    from_tensorly,
    khatri_rao,
    kronecker,
    load,
    mode_product,
    multi_mode_product,
    save,
    tucker,
    unfold,
)
from tenfac.core.arrays import as_float
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
    dtype_name,
    library_of,
    to_numpy,
)
from tests.oracles import format_dense

LIBRARIES = ("torch", "jax", "array_api_strict")
# JAX compiles every operation for every shape; of its cases these are quick, the others are slow tests
QUICK = ("mode_product", "to_tensor", "at", "+", "tucker, rank")


def cases_of(names: Any) -> list[Any]:
    """Every library with every name."""
    return [
        pytest.param(library, name, marks=pytest.mark.slow)
        if library == "jax" and name not in QUICK
        else (library, name)
        for library in LIBRARIES
        for name in names
    ]


def arrays_of(library: str, *values: Any) -> list[Any]:
    """numpy arrays as arrays of a library."""
    if library == "jax":
        import jax.numpy as module
    else:
        module = __import__(library)
    return [module.asarray(np.asarray(value)) for value in values]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Iterator[str]:
    """A library, JAX with its 64-bit mode on for these tests and back afterwards."""
    module = pytest.importorskip(request.param)
    with ExitStack() as stack:
        if request.param == "jax":
            stack.enter_context(module.enable_x64(True))
        yield request.param


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def smooth(n: int = 12) -> np.ndarray:
    x = np.linspace(0, 1, n)
    return 1 / (x[:, None, None] + x[:, None] + x + 0.5)


def tucker_of(convert: Any, seed: int = 0) -> Tucker:
    core, *factors = convert(
        draw(2, 3, 2, seed=seed), draw(4, 2, seed=seed), draw(5, 3, seed=seed), draw(3, 2, seed=seed)
    )
    return Tucker(core, factors)


def cp_of(convert: Any, seed: int = 0) -> CP:
    return CP(convert(draw(3, seed=seed))[0], convert(*(draw(i, 3, seed=seed) for i in (4, 5, 3))))


def align(t: Tucker) -> np.ndarray:
    """What does not depend on the signs of the factors: their projectors, and the tensor."""
    return np.concatenate([to_numpy(f @ f.T).ravel() for f in t.factors] + [to_numpy(t.to_tensor()).ravel()])


OPERATIONS = {
    "unfold": lambda c: unfold(*c(draw(3, 4, 2)), 1),
    "fold": lambda c: fold(*c(draw(4, 6)), 1, (3, 4, 2)),
    "mode_product": lambda c: mode_product(*c(draw(3, 4, 2), draw(5, 4)), 1),
    "multi_mode_product": lambda c: multi_mode_product(
        *c(draw(3, 4, 2)), [*c(draw(2, 3)), None, *c(draw(4, 2))]
    ),
    "khatri_rao": lambda c: khatri_rao(c(draw(3, 2), draw(4, 2))),
    "kronecker": lambda c: kronecker(c(draw(3, 2), draw(4, 3))),
    "integers": lambda c: mode_product(*c(np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3)), 1),
    "tucker, rank": lambda c: tucker(*c(smooth()), 3).to_tensor(),
    "tucker, tol": lambda c: tucker(*c(smooth()), tol=1e-9).to_tensor(),
    "tucker, batch": lambda c: tucker(*c(draw(4, 5, 4, 3)), (2, 3, 2), batch=1).to_tensor(),
    "tucker, complex": lambda c: tucker(*c(draw(5, 4, 3) + 1j * draw(5, 4, 3, seed=1)), 2).to_tensor(),
    "tucker, integers": lambda c: tucker(*c(np.arange(24).reshape(2, 3, 4)), 2).to_tensor(),
    "tucker, zero": lambda c: tucker(*c(np.zeros((3, 4))), 2).to_tensor() + 1,
    "tucker, tiny": lambda c: tucker(*c(smooth() * 1e-200), 3).to_tensor() * 1e200,
}
METHODS = {
    "to_tensor": lambda t, _u, _c: t.to_tensor(),
    "at": lambda t, _u, c: t.at(*c(np.array([0, 3]), np.array([4, 2]), np.array([1, 1]))),
    "at, lists": lambda t, _u, _c: t.at([[0], [3]], [1, 2], 0),
    "at, one": lambda t, _u, _c: t.at(1, 2, 0),
    "norm": lambda t, _u, _c: t.norm(),
    "inner": lambda t, u, _c: t.inner(u),
    "+": lambda t, u, _c: (t + u).to_tensor(),
    "-": lambda t, u, _c: (t - u).to_tensor(),
    "* number": lambda t, _u, _c: (2 * t / 3).to_tensor(),
    "* complex": lambda t, _u, _c: (t * 1j).to_tensor(),
    "* scalar array": lambda t, _u, c: (t * c(np.asarray(3.0))[0]).to_tensor(),
    "* Hadamard": lambda t, u, _c: (t * u).to_tensor(),
    "slice": lambda t, _u, _c: t[1, ::2].to_tensor(),
    "slice back": lambda t, _u, _c: t[..., ::-1].to_tensor(),
    "entry": lambda t, _u, _c: t[1, 2, 0],
    "mode_product": lambda t, _u, c: t.mode_product(*c(draw(6, 5)), 1).to_tensor(),
    "contract": lambda t, _u, c: t.contract({1: c(draw(5))[0]}).to_tensor(),
    "contract all": lambda t, _u, c: t.contract(dict(enumerate(c(draw(4), draw(5), draw(3))))),
    "sum": lambda t, _u, _c: t.sum([0, -1]).to_tensor(),
    "convert": lambda t, _u, _c: (t.to_cp() if isinstance(t, Tucker) else t.to_tucker()).to_tensor(),
    "round": lambda t, _u, _c: (t.to_tucker() if isinstance(t, CP) else t + t).round(rank=2).to_tensor(),
    "round, tol": lambda t, _u, _c: (
        (t.to_tucker() if isinstance(t, CP) else t + t).round(tol=0.3).to_tensor()
    ),
    "unpacked": lambda t, _u, _c: from_tensorly(tuple(t)).to_tensor(),
}


@pytest.mark.parametrize(("library", "name"), cases_of(OPERATIONS), indirect=["library"])
def test_every_operation_gives_the_numbers_of_numpy(library, name):
    got = OPERATIONS[name](lambda *values: arrays_of(library, *values))
    want = OPERATIONS[name](lambda *values: [np.asarray(value) for value in values])
    assert_equal(library_of(got), library)
    assert_equal(dtype_name(got), dtype_name(want))
    assert_relative(got, want, 1e-12)


@pytest.mark.parametrize("make_format", [tucker_of, cp_of])
@pytest.mark.parametrize(("library", "name"), cases_of(METHODS), indirect=["library"])
def test_every_method_gives_the_numbers_of_numpy(library, name, make_format):
    got, want = (
        METHODS[name](make_format(convert), make_format(convert, 1), convert)
        for convert in (
            lambda *values: arrays_of(library, *values),
            lambda *values: [np.asarray(value) for value in values],
        )
    )
    assert_equal(library_of(got), library)
    assert_equal(dtype_name(got), dtype_name(want))
    assert_relative(np.atleast_1d(to_numpy(got)), np.atleast_1d(want), 1e-12)


CHOICES = {"rank 3 4 2": {"rank": (3, 4, 2)}, "tol 1e-3": {"tol": 1e-3}, "tol 1e-11": {"tol": 1e-11}}


@pytest.mark.parametrize(("library", "name"), cases_of(CHOICES), indirect=["library"])
def test_tucker_finds_the_same_subspaces_ranks_and_error(library, name):
    X, kwargs = smooth(), CHOICES[name]
    got, want = tucker(*arrays_of(library, X), **kwargs), tucker(X, **kwargs)
    assert_equal(got.rank, want.rank)
    assert_below(abs(got.info.rel_error / want.info.rel_error - 1), 1e-3, "error against numpy's - 1")
    assert_relative(align(got), align(want), 1e-12 if "rank" in kwargs else 1e-4)


def test_the_repr_names_the_library_and_not_its_cpu(library):
    text = repr(tucker_of(lambda *values: arrays_of(library, *values)))
    assert_says(text, f"{library}.float64, 41 numbers")


def test_a_saved_format_comes_back_in_its_library(library, tmp_path):
    t = tucker_of(lambda *values: arrays_of(library, *values))
    save(t, tmp_path / "t.tenfac")
    back = load(tmp_path / "t.tenfac")
    assert_equal(back.core, t.core)
    assert_equal(back.factors[1], t.factors[1])


def test_two_libraries_in_one_call_are_refused_and_both_named(library):
    convert = lambda *values: arrays_of(library, *values)  # noqa: E731
    numpy_ = lambda *values: [np.asarray(value) for value in values]  # noqa: E731
    for call in (
        lambda: mode_product(draw(3, 4), *convert(draw(2, 4)), 1),
        lambda: Tucker(draw(2, 2), convert(draw(3, 2), draw(4, 2))),
        lambda: tucker_of(convert) + tucker_of(numpy_),
        lambda: tucker_of(convert).inner(tucker_of(numpy_)),
        lambda: cp_of(convert).mode_product(draw(2, 4), 0),
        lambda: khatri_rao([*convert(draw(3, 2)), draw(4, 2)]),
    ):
        with pytest.raises(TypeError) as error:
            call()
        assert_says(error, "numpy", library)


def test_nan_is_counted_and_located_in_every_library(library):
    X = np.ones((2, 3))
    X[1, 2] = np.nan
    with pytest.raises(DataError) as error:
        tucker(*arrays_of(library, X), 1)
    assert_says(error, "1 of 6", "(1, 2)", "NaN")


# --- JAX without its 64-bit mode --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kwargs",
    [{"rank": 2}, *(pytest.param({"tol": t}, marks=pytest.mark.slow) for t in (1e-2, 1e-4))],
    ids=str,
)
def test_jax_without_64_bits_stays_in_float32_and_keeps_what_it_reports(kwargs):
    jax = pytest.importorskip("jax")
    X = jax.numpy.asarray(smooth(8).astype("float32"))
    before = jax.config.jax_enable_x64
    t = tucker(X, **kwargs)
    assert_same_kind(t.core, X)
    dense = np.einsum("pqr,ip,jq,kr->ijk", *(to_numpy(a).astype(float) for a in (t.core, *t.factors)))
    true = np.linalg.norm(dense - to_numpy(X)) / np.linalg.norm(to_numpy(X))
    assert_below(true, kwargs.get("tol", 1), "true error")
    assert_below(abs(t.info.rel_error / true - 1), 0.01, "reported over true error - 1")
    assert_equal(t.rank, tucker(smooth(8), **kwargs).rank)
    assert_equal(jax.config.jax_enable_x64, before)


def test_integers_become_the_widest_float_that_jax_has():
    jax = pytest.importorskip("jax")
    X = jax.numpy.arange(6).reshape(2, 3)
    assert_equal(dtype_name(mode_product(X, X, 1)), "float32")
    with jax.enable_x64(True):
        assert_equal(dtype_name(mode_product(X, X, 1)), "float64")


# --- half precision ---------------------------------------------------------------------------------------


def half_arrays() -> list[Any]:
    found = [np.asarray(smooth(), dtype="float16")]
    torch = pytest.importorskip("torch")
    found += [torch.from_numpy(smooth()).to(dtype) for dtype in (torch.float16, torch.bfloat16)]
    jax = pytest.importorskip("jax")
    return [*found, *(jax.numpy.asarray(smooth(), dtype=dtype) for dtype in ("float16", "bfloat16"))]


every_half = pytest.mark.parametrize(
    "which",
    [0, 1, 2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)],
    ids=["numpy", "torch", "torch-bf16", "jax", "jax-bf16"],
)


def full(array: Any) -> np.ndarray:
    return to_numpy(array.float() if library_of(array) == "torch" else array).astype("float64")


@every_half
def test_half_precision_is_computed_in_float32_and_returned_as_it_came(which):
    X = half_arrays()[which]
    coarse = "bfloat16" in str(X.dtype)
    for kwargs in ({"rank": 4}, {"tol": 0.05 if coarse else 0.005}):
        t = tucker(X, **kwargs)
        assert_same_kind(t.core, X)
        assert_same_kind(t.to_tensor(), X)
        assert_says(t.info.warnings[0], "float32", str(X.dtype).rpartition(".")[2])
        dense = np.einsum("pqr,ip,jq,kr->ijk", full(t.core), *map(full, t.factors))
        true = np.linalg.norm(dense - full(X)) / np.linalg.norm(full(X))
        assert_below(true, kwargs.get("tol", 1e-2), "true error")
        assert_below(abs(t.info.rel_error / true - 1), 0.05, "reported over true error - 1")


@every_half
def test_operations_and_methods_return_half_precision_rounded_once(which):
    X = half_arrays()[which]
    unit = 2.0**-8 if "bfloat16" in str(X.dtype) else 2.0**-11
    t = tucker(X, 4)
    exact = Tucker(full(t.core), [full(f) for f in t.factors])
    A = X[0, :, :]
    rows = {
        "mode_product": (mode_product(X, A, 2), mode_product(full(X), full(A), 2)),
        "khatri_rao": (khatri_rao([A, A]), khatri_rao([full(A), full(A)])),
        "at": (t.at([0, 5], [1, 2], [3, 3]), exact.at([0, 5], [1, 2], [3, 3])),
        "slice": (t[1].to_tensor(), exact[1].to_tensor()),
        "+": ((t + t).to_tensor(), (exact + exact).to_tensor()),
        "scaled": ((t * 0.5).to_tensor(), (exact * 0.5).to_tensor()),
        "mode": (t.mode_product(A, 1).to_tensor(), exact.mode_product(full(A), 1).to_tensor()),
    }
    for name, (got, want) in rows.items():
        assert_same_kind(got, X)
        assert_relative(full(got), want, 8 * unit, name)
    assert_equal(dtype_name(t.norm()), "float32")
    assert_close(float(t.norm()), float(exact.norm()), 1e10)


@pytest.mark.parametrize("name", ["tucker", "train"])
def test_rounding_half_precision_keeps_the_tolerance_with_the_least_rank(name):
    values = np.diag(2.0 ** -np.arange(8.0))
    t = Tucker(values.astype("float16"), [np.eye(8, dtype="float16")] * 2)
    t = t.to_train() if name == "train" else t
    for tol, rank in ((0.3, 2), (0.15, 3), (0.037, 5)):
        small = t.round(tol=tol)
        assert_equal(min(small.rank), rank)
        assert_relative(format_dense(small), values, tol)


@every_half
def test_a_complex_number_times_half_precision_keeps_its_imaginary_part(which):
    X = half_arrays()[which]
    t = CP(None, [X[:, :2, 0], X[:, 1:3, 1]])
    made = t * (1 + 2j)
    assert_equal(str(made.dtype).removeprefix("torch."), "complex64")
    A, B = (to_numpy(as_float(factor)) for factor in t.factors)
    assert_close(to_numpy(made.to_tensor()), (A @ B.T * (1 + 2j)).astype("complex64"))


@every_half
def test_half_precision_is_saved_bit_by_bit(which, tmp_path):
    t = tucker(half_arrays()[which], 2)
    save(t, tmp_path / "half")
    back = load(tmp_path / "half")
    assert_same_kind(back.core, t.core)
    assert_equal(full(back.core), full(t.core))


def test_a_core_that_float16_cannot_hold_is_refused_with_a_remedy():
    X = np.full((100, 100, 10), 1000.0, dtype="float16")
    with pytest.raises(DataError) as error:
        tucker(X, 1)
    assert_says(error, "float16", "3.16e+05", "float32")


def test_a_norm_beyond_float16_is_a_float32():
    t = CP(None, [np.full((300, 1), 60.0, dtype="float16")] * 2)
    assert_above(t.norm(), 1.07e6, "norm")
