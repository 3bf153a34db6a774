"""The door to array libraries and TensorLy."""

from __future__ import annotations

import sys
import threading
import warnings

import numpy as np
import pytest

from tenfac.core import arrays as module
from tenfac.core.arrays import (
    as_float,
    device_of,
    dtype_name,
    eps,
    generator,
    is_array,
    namespace_of,
    points_like,
    promote,
    spans,
    tensorly_backend,
    triangular_factor,
)
from tenfac.core.errors import DataError
from tests.checks import assert_close, assert_equal, assert_says, library_of, to_numpy
from tests.fresh import in_fresh_python


def test_namespace_is_that_of_the_array_and_is_cached(make):
    xp = namespace_of(make(2), make(3, 3))
    assert_equal(xp.__name__, f"array_api_compat.{make.library}")
    assert namespace_of(make(2)) is xp


def test_mixed_libraries_are_refused_and_both_named():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError) as error:
        namespace_of(np.ones(2), torch.ones(2))
    assert_says(error, "numpy", "torch")


def test_mixed_devices_are_refused_and_both_named():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError) as error:
        namespace_of(torch.ones(2), torch.ones(2, device="meta"))
    assert_says(error, "cpu", "meta")


@pytest.mark.parametrize("value", [[1.0, 2.0], "text", None, 3.0])
def test_what_is_not_an_array_is_refused_with_a_remedy(value):
    with pytest.raises(TypeError) as error:
        namespace_of(value)
    assert_says(error, type(value).__name__, "numpy.asarray")


def test_only_several_arrays_of_a_library_with_devices_are_asked_for_theirs(make, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "device_of", lambda array: asked.append(array) or "cpu")
    namespace_of(make(2))
    assert_equal(len(asked), 0)
    namespace_of(make(2), make(3))
    assert_equal(len(asked), 0 if make.library == "numpy" else 2)


def test_sparse_arrays_are_refused_with_the_way_to_dense_ones():
    sparse, torch = pytest.importorskip("scipy.sparse"), pytest.importorskip("torch")
    kinds = [
        sparse.coo_array,
        lambda x: torch.tensor(x).to_sparse(),
        lambda x: torch.tensor(x).to_sparse_csr(),
    ]
    for kind in kinds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch: CSR is in beta
            array = kind(np.eye(3))
        with pytest.raises(TypeError) as error:
            as_float(array)
        assert_says(error, "got the sparse", "x.to_dense()")


def test_what_counts_as_an_array_need_not_have_been_seen_before():
    class Fresh(np.ndarray):
        """A kind of array that nobody passed yet."""

    for array in (np.ones(2).view(Fresh), np.float64(1.0)):
        assert_equal(is_array(array), True)
    for other in ([1.0], 1.0, "1", None):
        assert_equal(is_array(other), False)


@pytest.mark.parametrize(
    "values", [0.5, [0.5], [0.5, -1.0], [[2.5], [3.5]], np.float32(0.5), np.array([0.5])]
)
def test_points_are_brought_to_the_library_and_keep_their_values(make, values):
    got = points_like(values, make(3))
    assert_equal(library_of(got), make.library)
    assert_equal(to_numpy(got).tolist(), np.asarray(values).tolist())


def test_no_points_are_integers_and_fit_every_mode(make):
    for values in ([], (), [[]]):
        assert_equal(dtype_name(points_like(values, make(3)).dtype), "int64")


def test_points_of_torch_keep_their_gradient_and_follow_the_device():
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.5, 1.5], requires_grad=True)
    assert points_like(x, torch.ones(3)) is x
    assert_equal(points_like(x.detach(), torch.ones(3, device="meta")).device.type, "meta")
    assert_equal(points_like(x.detach(), np.ones(3)), np.array([0.5, 1.5], dtype="float32"))


@pytest.mark.parametrize("library", ["numpy", "torch", "jax.numpy", "array_api_strict"])
def test_the_triangular_factor_has_the_gram_matrix_of_the_whole(library):
    for shape in [(3, 7)] if library == "jax.numpy" else [(7, 3), (3, 3), (3, 7)]:
        X = np.random.default_rng(0).standard_normal(shape).astype("float32")
        R = np.asarray(triangular_factor(pytest.importorskip(library).asarray(X)))
        assert_equal(R.shape, (min(shape), shape[1]))
        assert_equal(np.tril(R, -1), np.zeros_like(R))
        assert_close(R.T @ R, X.T @ X)


def test_under_jit_an_array_has_no_device():
    jax, seen = pytest.importorskip("jax"), []
    x = jax.numpy.ones(2)
    jax.jit(lambda x: seen.append(device_of(x)) or x)(x)
    assert_equal(seen, [None])
    assert_equal(device_of(x), x.device)


def test_masked_arrays_are_refused_because_the_mask_would_be_lost():
    with pytest.raises(TypeError) as error:
        namespace_of(np.ma.masked_array([1.0, 2.0], mask=[True, False]))
    assert_says(error, "MaskedArray", "cp_complete")


@pytest.mark.parametrize("dtype", ["int64", "int8", "bool", "uint8"])
def test_integers_become_float64(dtype):
    assert_equal(as_float(np.ones(3, dtype=dtype)), np.ones(3))


def test_float_arrays_are_returned_as_they_are(make):
    array = make(3)
    assert as_float(array) is array


@pytest.mark.parametrize("dtype", ["longdouble", "O"])
def test_dtypes_without_linear_algebra_are_refused_by_name(dtype):
    with pytest.raises(DataError) as error:
        as_float(np.ones(3).astype(dtype), "tucker")
    assert_says(error, "tucker:", np.dtype(dtype).name)


def test_promotion_finds_the_common_dtype(make):
    a, b = promote(make(2), make.complex(2))
    assert_equal(dtype_name(a.dtype), dtype_name(make.complex(2).dtype))
    assert_equal(a.dtype, b.dtype)


def test_eps_is_the_spacing_at_one(make):
    assert_equal(eps(make(1).dtype), make.eps)
    assert_equal(eps(make.complex(1).dtype), make.eps)


def test_generator_leaves_the_global_one_alone_and_repeats():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is what is watched
    first, second = generator(3).standard_normal(4), generator(3).standard_normal(4)
    generator(None).standard_normal(4)
    assert_equal(first, second)
    assert_equal(np.random.get_state()[1], before)  # noqa: NPY002
    rng = np.random.default_rng(0)
    assert generator(rng) is rng


@pytest.mark.parametrize(
    ("state", "kind"), [(1.5, TypeError), (True, TypeError), ("a", TypeError), (-1, ValueError)]
)
def test_generator_refuses_other_random_states(state, kind):
    with pytest.raises(kind) as error:
        generator(state)
    assert_says(error, "random_state")


def test_the_tensorly_door_leaves_the_backend_of_every_thread_as_found(make):
    import tensorly as tl

    seen, wanted = [], {"numpy": "numpy", "torch": "pytorch"}[make.library]
    array, matrix = make(2, 3, 4), make(5, 3)
    fresh = threading.Thread(target=lambda: seen.append(tl.get_backend()))
    before = tl.get_backend()
    with tensorly_backend(array) as door:
        assert_equal(tl.get_backend(), wanted)
        product = door.tenalg.mode_dot(array, matrix, 1)
        fresh.start()
        fresh.join()
    assert_equal(library_of(product), make.library)
    assert_equal(tl.get_backend(), before)
    assert_equal(seen, ["numpy"])


def test_a_thread_that_never_chose_a_backend_still_follows_the_default_after_the_door():
    pytest.importorskip("torch")
    import tensorly as tl

    seen, before = [], tl.get_backend()

    def work():
        with tensorly_backend(np.ones(2)):
            seen.append(tl.get_backend())
        seen.append(tl.get_backend())

    try:
        tl.set_backend("pytorch")
        for target in (work, lambda: seen.append(tl.get_backend())):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    finally:
        tl.set_backend(before)
    assert_equal(seen, ["numpy", "pytorch", "pytorch"])


def test_the_tensorly_door_is_thread_safe():
    torch = pytest.importorskip("torch")
    failures = []

    def work(array):
        for _ in range(100):
            with tensorly_backend(array) as tl, tensorly_backend(array):
                if type(tl.tensor([1.0])) is not type(array):
                    failures.append(type(array))

    threads = [threading.Thread(target=work, args=(a,)) for a in (np.ones(2), torch.ones(2)) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_equal(failures, [])


def test_the_first_door_for_jax_leaves_its_64_bit_switch_alone(monkeypatch):
    jax = pytest.importorskip("jax")
    from tensorly.backend import BackendManager
    from tensorly.backend.core import Backend

    before = jax.config.jax_enable_x64
    monkeypatch.delitem(sys.modules, "tensorly.backend.jax_backend", raising=False)
    monkeypatch.delitem(Backend._available_backends, "jax", raising=False)
    monkeypatch.delitem(BackendManager._loaded_backends, "jax", raising=False)
    try:
        for _ in range(2):
            with tensorly_backend(jax.numpy.ones(2)) as tl:
                assert_equal((tl.get_backend(), jax.config.jax_enable_x64), ("jax", before))
            assert_equal(jax.config.jax_enable_x64, before)
    finally:
        jax.config.update("jax_enable_x64", before)


def test_decomposing_numpy_arrays_imports_no_heavy_library():
    code = (
        "import sys, numpy as np, tenfac; t = tenfac.tucker(np.ones((3, 4)), 1); "
        "(t + t).round(tol=0.1).at(0, 0); "
        "print([m for m in ('torch', 'tensorly', 'sklearn', 'pandas', 'scipy', 'jax') if m in sys.modules])"
    )
    assert_equal(in_fresh_python(code), "[]")


def test_numbers_of_a_gradient_graph_are_read_without_warning():
    torch = pytest.importorskip("torch")
    from tenfac.core.arrays import to_number, to_numpy

    assert_equal(to_number(torch.tensor(2.0, requires_grad=True)), 2.0)
    assert_close(to_numpy(torch.ones(2, requires_grad=True)), np.ones(2, dtype="float32"))


def test_arrays_of_the_other_byte_order_are_converted():
    X = np.arange(6.0).reshape(2, 3)
    got = as_float(X.astype(">f8"))
    assert_equal(got, X)
    assert got.dtype.isnative


def test_dask_is_refused_by_name_with_a_remedy():
    dask = pytest.importorskip("dask.array")
    with pytest.raises(TypeError) as error:
        namespace_of(dask.ones((2, 3)))
    assert_says(error, "dask", "(2, 3)", "compute()")


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_spans_cover_a_range_once_without_empty_ones(step):
    for size in range(1, 8):
        found = [range(size)[span] for span in spans(size, step)]
        assert_equal([n for part in found for n in part], list(range(size)))
        assert_equal([len(part) for part in found[:-1]], [step] * (len(found) - 1))
        assert_equal(len(found[-1]) > 0, True)
    assert_equal(list(spans(0, step)), [slice(0, 0)])
