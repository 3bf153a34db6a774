"""Formats and ``tucker`` under jit, vmap, grad, compile and autograd, against the plain call."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import CP, RankError, Tucker, TuckerTrain, mode_product, tucker
from tenfac.core.tracing import is_traced
from tests.checks import assert_below, assert_close, assert_equal, assert_relative, assert_says, to_numpy
from tests.core.test_libraries import draw, smooth
from tests.fresh import in_fresh_python

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")

SHAPE, RANK = (4, 3, 5), (2, 2, 3)
SEEDS = (0, 2)  # of two tensors that are not nearly orthogonal, so that `inner` keeps its digits
FORMATS = ("tucker", "cp", "train")
FORMATS_OF_JAX = (
    "tucker",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("cp", "train")),
)  # JAX takes seconds to compile


def parts(name, *batch, seed=0):
    """numpy arrays of a format: core, cores or weights, then factors."""
    sizes = {"tucker": [RANK], "cp": [(3,)], "train": [(1, 2, 3), (3, 2, 2), (2, 3, 1)]}[name]
    cores = [draw(*batch, *size, seed=seed + n) for n, size in enumerate(sizes)]
    ranks = (3, 3, 3) if name == "cp" else RANK
    return [*cores, *(draw(*batch, i, r, seed=seed) for i, r in zip(SHAPE, ranks, strict=True))]


def format_of(name, arrays):
    arrays = list(arrays)
    return {"tucker": Tucker, "cp": CP, "train": TuckerTrain}[name]._build(arrays[:-3], arrays[-3:])


def everything(t, u, matrix, index):
    """A dict of arrays from every kind of method."""
    return {
        "to_tensor": t.to_tensor(),
        "norm": t.norm(),
        "inner": t.inner(u),
        "at": t.at(index, index, index),
        "+": (2 * t - u / 3).to_tensor(),
        "*": (t * u).to_tensor(),
        "mode": t.mode_product(matrix, 1).to_tensor(),
        "slice": t[1, :, ::-1].to_tensor(),
        "sum": t.sum([0]).to_tensor(),
    }


def plain(name, seed=0):
    args = (
        format_of(name, parts(name)),
        format_of(name, parts(name, seed=SEEDS[1])),
        draw(2, 3),
        np.array([0, 2]),
    )
    return everything(*args)


def assert_all_close(got, want, tol=1e-12):
    assert_equal(sorted(got), sorted(want))
    for key, value in want.items():
        assert_relative(np.atleast_1d(to_numpy(got[key])), np.atleast_1d(value), tol, key)


# --- pytrees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_a_pytree_of_its_arrays_with_static_modes(name):
    t = format_of(name, parts(name))
    leaves, structure = jax.tree_util.tree_flatten(t)
    assert all(a is b for a, b in zip(leaves, t._arrays().values(), strict=True))
    back = jax.tree_util.tree_unflatten(structure, leaves)
    assert_equal((type(back), back.modes, back.info), (type(t), t.modes, None))
    t_leaves, t_structure = torch.utils._pytree.tree_flatten(t)
    assert_equal(len(t_leaves), 6 if name == "train" else 4)
    assert_equal(torch.utils._pytree.tree_unflatten(t_leaves, t_structure).modes, t.modes)


def test_unflattening_takes_placeholders_without_a_check():
    t = format_of("tucker", parts("tucker"))
    names = jax.tree_util.tree_map(lambda leaf: str(leaf.shape), t)
    assert_equal(names.core, "(2, 2, 3)")
    assert_equal(names.factors, ("(4, 2)", "(3, 2)", "(5, 3)"))


def test_formats_of_other_modes_have_other_structures():
    structure = lambda t: jax.tree_util.tree_structure(t)  # noqa: E731
    a, b = (Tucker(np.ones(2), [np.ones((i, 2))]) for i in (3, 4))
    assert structure(a) != structure(b)
    assert_equal(structure(a), structure(2 * a))


def test_a_library_imported_after_tenfac_knows_the_formats_made_from_then_on():
    code = (
        "import numpy as np, sys; from tenfac import Tucker\n"
        "make = lambda: Tucker(np.ones(2), [np.ones((3, 2))])\n"
        "make(); assert 'jax' not in sys.modules; import jax; make()\n"
        "print(len(jax.tree_util.tree_leaves(make())))"
    )
    assert_equal(in_fresh_python(code), "2")


def test_formats_first_made_in_many_threads_are_registered_once():
    code = (
        "import numpy as np, threading, jax; from tenfac import CP; bad = []\n"
        "def work():\n"
        "    try: CP(None, [np.ones((3, 2))])\n"
        "    except Exception as error: bad.append(error)\n"
        "threads = [threading.Thread(target=work) for _ in range(30)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; print(bad)"
    )
    assert_equal(in_fresh_python(code), "[]")


# --- JAX --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS_OF_JAX)
def test_jit_of_every_method_gives_the_plain_numbers(name):
    with jax.enable_x64(True):
        t, u = (format_of(name, map(jax.numpy.asarray, parts(name, seed=s))) for s in SEEDS)
        got = jax.jit(everything)(t, u, jax.numpy.asarray(draw(2, 3)), jax.numpy.asarray([0, 2]))
    assert_all_close(got, plain(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_vmap_of_every_method_gives_the_numbers_of_a_loop(name):
    many = [parts(name, 3, seed=s) for s in SEEDS]
    index, matrix = np.array([0, 2]), draw(2, 3)
    with jax.enable_x64(True):
        t, u = ((jax.numpy.asarray(array) for array in arrays) for arrays in many)
        run = lambda a, b: everything(format_of(name, a), format_of(name, b), matrix_, index_)  # noqa: E731
        matrix_, index_ = jax.numpy.asarray(matrix), jax.numpy.asarray(index)
        got = jax.vmap(run)(list(t), list(u))
    loop = [
        everything(*(format_of(name, [a[k] for a in arrays]) for arrays in many), matrix, index)
        for k in range(3)
    ]
    assert_all_close(got, {key: np.stack([one[key] for one in loop]) for key in loop[0]})


def test_vmap_over_places_gives_the_numbers_of_a_loop():
    t = Tucker(jax.numpy.asarray(draw(2, 2)), [jax.numpy.asarray(draw(n, 2)) for n in (4, 5)])
    i = jax.numpy.asarray([1, 2])
    assert_close(jax.vmap(lambda i: t.at(i, i))(i), t.at(i, i))


@pytest.mark.slow
def test_jit_and_vmap_return_formats():
    X = np.stack([smooth(6), smooth(6) ** 2])
    with jax.enable_x64(True):
        one = jax.jit(lambda X: tucker(X, 2))(jax.numpy.asarray(X[0]))
        many = jax.vmap(lambda X: tucker(X, 2))(jax.numpy.asarray(X))
        first, dense = one.to_tensor(), many.to_tensor()
    assert isinstance(one, Tucker)
    assert_relative(first, tucker(X[0], 2).to_tensor(), 1e-12)
    assert_equal((many.batch_shape, many.shape, many.rank), ((2,), (6, 6, 6), (2, 2, 2)))
    assert_says(repr(many), "batch=(2,)", "shape=(6, 6, 6)", "432 entries")
    assert_relative(dense, np.stack([tucker(x, 2).to_tensor() for x in X]), 1e-12)


def test_the_error_of_a_traced_tucker_is_an_array_of_the_transformation():
    def error(X):
        t = tucker(X, 2)
        assert is_traced(t.info.rel_error)
        assert_says(repr(t.info), "rel_error not known yet")
        return t.info.rel_error

    with jax.enable_x64(True):
        got = jax.jit(error)(jax.numpy.asarray(smooth(6)))
    assert_close(float(got), tucker(smooth(6), 2).info.rel_error, 1e7)


@pytest.mark.slow
def test_the_gradient_of_jax_is_that_of_torch():
    X = draw(4, 3, 5)
    loss = lambda X: ((tucker(X, 2).to_tensor() - X) ** 2).sum()  # noqa: E731
    Y = torch.from_numpy(X).requires_grad_()
    loss(Y).backward()
    with jax.enable_x64(True):
        got = jax.grad(loss)(jax.numpy.asarray(X))
    assert_relative(got, Y.grad.numpy(), 1e-10)


def test_a_tolerance_under_jit_vmap_and_grad_is_refused_with_the_way_out():
    X = jax.numpy.ones((2, 3, 4))
    run = lambda X: tucker(X, tol=0.1).to_tensor().sum()  # noqa: E731
    for call in (jax.jit(run), jax.grad(run), jax.vmap(run)):
        with pytest.raises(RankError) as error:
            call(X)
        assert_says(error, "tucker: tol", "jit", "Give rank")
    with pytest.raises(RankError) as error:
        torch.vmap(run)(torch.ones(2, 3, 4))
    assert_says(error, "Give rank")


def test_an_index_outside_its_mode_under_jit_gives_nan():
    t = CP(None, [jax.numpy.ones((3, 1))] * 2)
    got = jax.jit(lambda i: t.at(i, i))(jax.numpy.asarray([0, 3]))
    assert_equal(np.isnan(np.asarray(got)).tolist(), [False, True])


# --- torch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_torch_vmap_of_every_method_gives_the_numbers_of_a_loop(name):
    many = [[torch.from_numpy(a) for a in parts(name, 3, seed=s)] for s in SEEDS]
    index, matrix = torch.tensor([0, 2]), torch.from_numpy(draw(2, 3))
    run = lambda a, b: everything(format_of(name, a), format_of(name, b), matrix, index)  # noqa: E731
    got = torch.vmap(run)(*many)
    loop = [run(*([a[k] for a in arrays] for arrays in many)) for k in range(3)]
    assert_all_close(got, {key: np.stack([to_numpy(one[key]) for one in loop]) for key in loop[0]})


def test_torch_vmap_of_tucker_gives_a_batch():
    X = np.stack([smooth(6), smooth(6) ** 2])
    many = torch.vmap(lambda X: tucker(X, 2))(torch.from_numpy(X))
    assert_equal((many.batch_shape, many.rank), ((2,), (2, 2, 2)))
    assert_relative(many.to_tensor(), np.stack([tucker(x, 2).to_tensor() for x in X]), 1e-12)


def test_torch_func_grad_is_the_gradient_of_autograd():
    X = torch.from_numpy(draw(4, 3, 5))
    loss = lambda X: (tucker(X, 2).to_tensor() - X).square().sum()  # noqa: E731
    Y = X.clone().requires_grad_()
    loss(Y).backward()
    assert_relative(torch.func.grad(loss)(X), Y.grad, 1e-10)


@pytest.mark.parametrize("name", ["tucker", "cp", pytest.param("train", marks=pytest.mark.slow)])
def test_autograd_passes_through_every_method(name):
    arrays = [torch.from_numpy(a).requires_grad_() for a in parts(name)]
    u, matrix = (
        format_of(name, [torch.from_numpy(a) for a in parts(name, seed=SEEDS[1])]),
        torch.ones(2, 3).double(),
    )

    def run(*arrays):
        return tuple(everything(format_of(name, arrays), u, matrix, torch.tensor([0, 2])).values())

    assert torch.autograd.gradcheck(run, arrays)


def test_autograd_passes_through_a_batch_and_through_rounding():
    X = torch.from_numpy(draw(2, 4, 3, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda X: tucker(X, 2, batch=1).to_tensor(), [X])
    for name in ("tucker", "train"):
        arrays = [torch.from_numpy(a).requires_grad_() for a in parts(name)]
        round_ = lambda *a: format_of(name, a).round(rank=(1, 2, 2)).to_tensor()  # noqa: B023, E731 - called now
        assert torch.autograd.gradcheck(round_, arrays)


# Dynamo says where it breaks the graph or looks through a cache; the numbers are what is tested (2026-11)
dynamo_may_talk = pytest.mark.filterwarnings("ignore:Dynamo")


@pytest.mark.slow
@dynamo_may_talk
@pytest.mark.parametrize("name", FORMATS)
def test_compile_gives_the_plain_numbers(name):
    t, u = ([torch.from_numpy(a) for a in parts(name, seed=s)] for s in SEEDS)
    format_of(name, t)  # finds the namespace of torch before it is traced
    run = torch.compile(
        lambda a, b, m, i: everything(format_of(name, a), format_of(name, b), m, i), backend="eager"
    )
    got = run(t, u, torch.from_numpy(draw(2, 3)), torch.tensor([0, 2]))
    assert_all_close(got, plain(name))


@pytest.mark.slow
@dynamo_may_talk
def test_compile_of_tucker_and_of_a_mode_product():
    X, A = torch.from_numpy(smooth(6)), torch.from_numpy(draw(2, 6))
    tucker(X, 2)  # finds the namespace of torch before it is traced
    dense = torch.compile(lambda X: tucker(X, 2).to_tensor(), backend="eager")(X)
    assert_relative(dense, tucker(smooth(6), 2).to_tensor(), 1e-12)
    got = torch.compile(lambda X, A: mode_product(X, A, 1), backend="eager")(X, A)
    assert_relative(got, mode_product(X, A, 1), 1e-14)
    t = torch.compile(lambda X: tucker(X, 2), backend="eager")(X)
    assert_below(abs(float(t.info.rel_error) / tucker(smooth(6), 2).info.rel_error - 1), 1e-6, "error")
