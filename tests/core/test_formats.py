"""What every format promises, on Tucker, trains and CP alike, against the dense tensor."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfac import CP, GP, Chebyshev, DataError, Discrete, Report, ShapeError, Tucker, TuckerTrain
from tenfac.core.arrays import namespace_of, points_like
from tests.checks import assert_close, assert_equal, assert_says, dtype_name, library_of
from tests.oracles import format_dense

SHAPE, RANK = (4, 5, 3), (2, 3, 2)
BONDS = (2, 3, 2, 2)


@dataclass(frozen=True)
class Case:
    """One format: how to make it, and its dense oracle."""

    name: str

    def create(self, make, seed=0, shape=SHAPE, rank=RANK, draw="__call__"):
        draw = getattr(make, draw)
        if self.name == "tucker":
            factors = [draw(i, r, seed=seed + n) for n, (i, r) in enumerate(zip(shape, rank, strict=True))]
            return Tucker(draw(*rank, seed=seed), factors)
        if self.name == "train":
            factors = [draw(i, r, seed=seed + n) for n, (i, r) in enumerate(zip(shape, rank, strict=True))]
            bonds = [1, *BONDS[: len(shape) - 1], 1]
            sizes = zip(bonds[:-1], rank, bonds[1:], strict=True)
            return TuckerTrain([draw(*size, seed=seed + n) for n, size in enumerate(sizes)], factors)
        factors = [draw(i, 3, seed=seed + n) for n, i in enumerate(shape)]
        return CP(draw(3, seed=seed), factors)

    def dense(self, t):
        return format_dense(t)

    def scaled(self, t, scale):
        """What joins the factors, multiplied by a number."""
        first = next(iter(t))
        return [first[0] * scale, *first[1:]] if self.name == "train" else first * scale


NAMES = ["tucker", "cp", "train"]


@pytest.fixture(params=NAMES)
def case(request):
    return Case(request.param)


@dataclass(frozen=True)
class Line:
    """A continuous mode for these tests: coefficients of 1, x, x^2, ... on an interval."""

    size: int
    domain: tuple[float, float] = (-1.0, 1.0)

    def rows(self, factor: Any, x: Any, *, xp: Any = None) -> Any:
        xp = namespace_of(factor)
        x = xp.astype(points_like(x, factor), factor.dtype)
        return xp.stack([x**k for k in range(self.size)], axis=-1) @ factor

    def spec(self):
        return {"type": "Line", "size": self.size}, {}

    @classmethod
    def from_spec(cls, header, _arrays):
        return cls(header["size"])


def test_the_dense_tensor_equals_the_oracle(make, case):
    t = case.create(make)
    assert_close(t.to_tensor(), case.dense(t), like=t.factors[0])


def test_the_dense_tensor_of_one_to_five_modes_equals_the_oracle(make, case):
    for d in range(1, 6):
        t = case.create(make, shape=(3, 1, 4, 2, 3)[:d], rank=(2, 2, 1, 3, 1)[:d])
        assert_close(t.to_tensor(), case.dense(t), like=t.factors[0])


def test_facts_about_a_format(make, case):
    t = case.create(make)
    assert_equal(t.shape, SHAPE)
    assert_equal(t.coef_shape, SHAPE)
    assert_equal(t.ndim, 3)
    assert_equal(t.modes, (Discrete(4), Discrete(5), Discrete(3)))
    assert_equal(t.is_functional, False)
    assert_equal(t.rank, 3 if case.name == "cp" else RANK)
    joints = {"tucker": 12 + 8 + 15 + 6, "cp": 3 + 12 + 15 + 9, "train": 4 + 18 + 6 + 8 + 15 + 6}
    assert_equal(t.n_params, joints[case.name])
    assert_equal(dtype_name(t.factors[0]), make.dtype)
    assert_equal(t.dtype, t.factors[0].dtype)
    assert_equal(str(t.device), "cpu")
    assert t.info is None


def test_the_repr_is_one_line_with_shape_rank_dtype_and_size(make, case):
    text = repr(case.create(make))
    assert_says(text, "shape=(4, 5, 3)", f"{make.library}.{make.dtype}", "60 entries", "rank=")
    assert "\n" not in text


def test_the_repr_names_a_device_that_is_not_the_cpu_and_what_a_mode_has():
    torch = pytest.importorskip("torch")
    for device, said in (("meta", "torch.float32 on meta, "), ("cpu", "torch.float32, ")):
        assert_says(repr(CP(None, [torch.ones(3, 2, device=device)])), said)
    text = repr(CP(None, [np.ones((3, 2))] * 2, [Chebyshev(3), Discrete(3)]))
    assert_says(text, "domain=[-1, 1] x -, degree=(2, -), rank=2, numpy.float64, ")
    assert "knots" not in text
    mode = GP("matern12", [0.0, 1.0], lengthscale=1.0)
    assert_says(repr(CP(None, [np.ones((mode.size, 2))], [mode])), "domain=[0, 1], knots=(2), rank=2")


def test_at_equals_the_entries_of_the_dense_tensor(make, case):
    t = case.create(make)
    i, j, k = [0, 3, 1, 1], [4, 0, 2, 2], [2, 1, 0, 0]
    scale = float(np.abs(case.dense(t)).max())
    want = case.dense(t)[i, j, k]
    assert_close(t.at(i, j, k), want, like=t.factors[0], scale=scale)
    assert_close(t.at(make.index(i), np.array(j), k), want, like=t.factors[0], scale=scale)


def test_at_broadcasts_and_gives_a_scalar_for_scalars(make, case):
    t = case.create(make)
    scale = float(np.abs(case.dense(t)).max())
    i, j = np.array([[0], [3]]), np.array([1, 2, 4])
    assert_close(t.at(i, j, 1), case.dense(t)[i, j, 1], like=t.factors[0], scale=scale)
    assert_close(t.at(3, 4, 2), case.dense(t)[3, 4, 2], like=t.factors[0], scale=scale)
    assert_equal(tuple(t.at([], [], []).shape), (0,))


def test_at_refuses_wrong_indices_with_a_remedy(make, case):
    t = case.create(make)
    with pytest.raises(ShapeError) as error:
        t.at(np.zeros((5, 3), dtype=int))
    assert_says(error, "3", "1", "t.at(*X.T)")
    with pytest.raises(DataError) as error:
        t.at(4, 0, 0)
    assert_says(error, "mode 0", "0 to 3", "4")
    with pytest.raises(DataError) as error:
        t.at([0, 1], 0, [2, -1])
    assert_says(error, "mode 2", "-1", "Negative")
    with pytest.raises(ShapeError) as error:
        t.at([[0], [1, 2]], 0, 0)
    assert_says(error, "at:", "different lengths")
    with pytest.raises(ShapeError) as error:
        t.at([0, 1], [0, 1, 2], 0)
    assert_says(error, "(2,)", "(3,)")


def test_norm_and_inner_equal_those_of_the_dense_tensors(make, case):
    a, b = case.create(make), case.create(make, seed=7)
    A, B = case.dense(a), case.dense(b)
    assert_close(a.norm(), np.linalg.norm(A), like=a.factors[0])
    assert_close(a.inner(b), np.sum(A * B), like=a.factors[0], scale=np.linalg.norm(A) * np.linalg.norm(B))


def test_complex_formats_follow_the_conjugate_convention_of_vdot(make, case):
    a, b = (case.create(make, seed=s, draw="complex") for s in (0, 7))
    A, B = case.dense(a), case.dense(b)
    scale = np.linalg.norm(A) * np.linalg.norm(B)
    assert_close(a.to_tensor(), A, like=a.factors[0])
    assert_close(a.inner(b), np.vdot(A, B), like=a.factors[0], scale=scale)
    assert_close(float(a.norm()), np.linalg.norm(A), 1e11 if make.dtype == "float32" else 100)


def test_addition_subtraction_and_scaling_equal_those_of_the_dense_tensors(make, case):
    a, b = case.create(make), case.create(make, seed=7)
    A, B, like = case.dense(a), case.dense(b), a.factors[0]
    assert_close((a + b).to_tensor(), A + B, like=like)
    assert_close((a - b).to_tensor(), A - B, like=like)
    assert_close((2 * a * np.float64(0.5) / 4).to_tensor(), A / 4, like=like)
    assert_close((np.float64(3) * a).to_tensor(), 3 * A, like=like)
    assert_close((-a).to_tensor(), -A, like=like)
    assert_equal((a + b).rank, 6 if case.name == "cp" else (4, 6, 4))


def test_a_scalar_array_of_the_library_scales_and_a_complex_number_makes_complex(make, case):
    a = case.create(make)
    assert_close((a * make.asarray(2.0)).to_tensor(), 2 * case.dense(a), like=a.factors[0])
    assert_close((a * 1j).to_tensor(), 1j * case.dense(a), like=make.complex(1))


@pytest.mark.parametrize(
    "index",
    [
        np.s_[1],
        np.s_[-1],
        np.s_[:, 2],
        np.s_[1:3],
        np.s_[::2, ::-1],
        np.s_[3:0:-2, ..., 1],
        np.s_[..., 0],
        np.s_[1, :, 2],
        np.s_[...],
        np.s_[1, 2, 0],
        np.s_[-1, -1, -1],
        np.s_[1:1],
        np.s_[-100:100, 1:],
        (np.int64(2), slice(None), np.uint8(1)),
    ],
    ids=str,
)
def test_slices_follow_numpy(make, case, index):
    t = case.create(make)
    want, got = case.dense(t)[index], t[index]
    scale = float(np.abs(case.dense(t)).max())
    got = got if np.ndim(want) == 0 else got.to_tensor()
    assert_close(got, want, like=t.factors[0], scale=scale)


@pytest.mark.parametrize(
    "index",
    [4, -5, (0, 0, 0, 0), [0, 1], True, 1.0, None, (Ellipsis, Ellipsis), "a", np.s_[::0], np.s_[:, 1.5:]],
    ids=str,
)
def test_other_indices_are_refused(make, case, index):
    with pytest.raises(IndexError) as error:
        case.create(make)[index]
    assert_says(error, "t[...]")


def test_algebra_drops_the_report_and_slices_keep_modes(make, case):
    t = case.create(make)
    t = type(t)(next(iter(t)), t.factors, info=Report(True, "made"))
    assert_says(repr(t.info), "made")
    for other in (t + t, t * 2, t[0], -t):
        assert other.info is None
    assert_equal(t[1:3, :, 0].modes, (Discrete(2), Discrete(5)))


def test_a_format_is_no_array_and_says_what_to_write(make, case):
    t = case.create(make)
    with pytest.raises(TypeError) as error:
        np.asarray(t)
    assert_says(error, "to_tensor()", "at(")
    assert not hasattr(t, "__len__")
    with pytest.raises(TypeError, match="unsupported operand"):
        t + 1
    with pytest.raises(TypeError, match=r"inner: needs a (Tucker|TuckerTrain|CP)"):
        t.inner(np.ones(3))


def test_a_format_is_frozen_and_hashable(make, case):
    t = case.create(make)
    with pytest.raises(AttributeError):
        t.factors = ()
    assert_equal(len({t, t}), 1)


def test_pickle_and_copy_keep_every_number(make, case):
    t = case.create(make)
    for twin in (pickle.loads(pickle.dumps(t)), copy.deepcopy(t)):  # noqa: S301 - our own bytes
        assert_equal(twin.modes, t.modes)
        for a, b in zip(twin.factors, t.factors, strict=True):
            assert_equal(a, b)


def test_the_byte_guard_names_the_size_and_the_way_out(make, case):
    t = case.create(make)
    size = 60 * (4 if make.dtype == "float32" else 8)
    assert_equal(tuple(t.to_tensor(max_bytes=size).shape), SHAPE)
    with pytest.raises(DataError) as error:
        t.to_tensor(max_bytes=size - 1)
    assert_says(error, str(size), "(4, 5, 3)", "t.at(")
    with pytest.raises(TypeError) as error:
        t.to_tensor(max_bytes="1GB")
    assert_says(error, "to_tensor", "max_bytes", "'1GB'", "1e9")


def test_formats_with_other_modes_cannot_be_added(make, case):
    a, b = case.create(make), case.create(make, shape=(4, 5, 4))
    for operation in (lambda: a + b, lambda: a.inner(b)):
        with pytest.raises(ShapeError) as error:
            operation()
        assert_says(error, "(4, 5, 3)", "(4, 5, 4)")


def test_mixed_precision_and_integers_are_brought_to_one_dtype(case):
    floats = [np.ones((3, 2), dtype="float32"), np.ones((4, 2), dtype="int64")]
    ends = [np.ones((1, 2, 1), dtype="float32")] * 2
    core = np.ones((2, 2), dtype="float32")
    joints = {"tucker": (Tucker, core), "cp": (CP, None), "train": (TuckerTrain, ends)}
    kind, first = joints[case.name]
    t = kind(first, floats)
    assert_equal({factor.dtype for factor in t.factors}, {np.dtype("float64")})
    assert_equal(t.to_tensor().dtype, np.dtype("float64"))


@pytest.mark.parametrize("parts", [{"factors": None}, {"factors": [np.ones((3, 2))], "modes": 3}])
@pytest.mark.parametrize("cls", [Tucker, CP, TuckerTrain])
def test_what_is_no_sequence_of_factors_or_modes_is_named(cls, parts):
    with pytest.raises(TypeError) as error:
        cls(np.ones(2), **parts)
    assert_says(error, f"{cls.__name__}: ", "must be a sequence", "one entry per mode")


def test_continuous_modes_are_evaluated_at_points_and_have_no_shape(make, case):
    t = case.create(make)
    t = type(t)(next(iter(t)), t.factors, (Line(4), Discrete(5), Line(3)))
    assert_equal(t.shape, (None, 5, None))
    assert_equal(t.is_functional, True)
    x, j, z = np.array([-0.5, 0.25]), np.array([0, 4]), np.array([1.0, 0.5])
    powers = lambda v, k: v[:, None] ** np.arange(k)  # noqa: E731
    dense = case.dense(t)
    want = np.einsum("na,nac,nc->n", powers(x, 4), np.moveaxis(dense[:, j], 1, 0), powers(z, 3))
    assert_close(t.at(x, j, z), want, like=t.factors[0], factor=1000)
    assert_equal(t[:, 2].modes, (Line(4), Line(3)))
    for operation in (t.to_tensor, t.to_tensorly):
        with pytest.raises(ShapeError) as error:
            operation()
        assert_says(error, "None", "t.at(")
    with pytest.raises(IndexError) as error:
        t[0]
    assert_says(error, "continuous")
    assert_says(repr(t), "shape=(None, 5, None)")


def test_gradients_reach_every_array(case):
    torch = pytest.importorskip("torch")
    from tests.conftest import Make

    t = case.create(Make("torch", "float64"))
    leaves = [a.clone().requires_grad_() for a in t._arrays().values()]

    def run(*arrays):
        u = type(t)._build(arrays[:-3], arrays[-3:])
        return u.at([0, 3], [1, 2], [2, 0]), (u + 2 * u).to_tensor(), u.inner(u), u[1, :, 2].to_tensor()

    assert torch.autograd.gradcheck(run, leaves)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4),
    st.integers(0, 99),
    st.sampled_from(NAMES),
)
def test_at_equals_to_tensor_and_permuting_modes_commutes(sizes, seed, name):
    from tests.conftest import Make

    shape, rank = zip(*sizes, strict=True)
    t = Case(name).create(Make("numpy", "float64"), seed, shape, rank)
    dense = t.to_tensor()
    scale = float(np.abs(dense).max())
    index = np.unravel_index(np.arange(dense.size), shape)
    assert_close(t.at(*index), dense.reshape(-1), scale=scale)
    order = np.random.default_rng(seed).permutation(len(shape))
    if name == "train":  # its modes stand in a row
        order = order * 0 + np.arange(len(shape))[::-1]
        first = [core.transpose(2, 1, 0) for core in reversed(t.cores)]
    else:
        first = t.core.transpose(order) if name == "tucker" else t.weights
    permuted = type(t)(first, [t.factors[n] for n in order])
    assert_close(permuted.to_tensor(), dense.transpose(order), scale=scale)


@given(st.floats(1e-3, 1e3), st.integers(0, 2), st.sampled_from(NAMES))
def test_scale_moves_freely_between_core_and_factors(scale, mode, name):
    from tests.conftest import Make

    t = Case(name).create(Make("numpy", "float64"))
    factors = [f * scale if n == mode else f for n, f in enumerate(t.factors)]
    moved = type(t)(Case(name).scaled(t, 1 / scale), factors)
    assert_close(moved.to_tensor(), t.to_tensor())
    assert_equal(library_of(moved._cores[0]), "numpy")
