"""No state: fresh threads that use numpy, torch, JAX and TensorLy at once never see each other."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tenfac import CP, Tucker, from_tensorly, mode_product, tucker
from tenfac.core.arrays import tensorly_backend
from tests.checks import assert_equal, assert_says, library_of, to_numpy
from tests.core.test_libraries import draw, smooth

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

X, A = smooth(6).astype("float32"), draw(3, 6).astype("float32")
CONVERT = {"numpy": np.asarray, "torch": torch.from_numpy, "jax": jax.numpy.asarray}


def core_calls(library):
    """Results of core functions and of the door, as numpy, with their libraries."""
    convert = CONVERT[library]
    x, a = convert(X), convert(A)
    product = mode_product(x, a, 1)
    t = Tucker(product, [a, convert(np.eye(3, dtype="float32")), a])
    c = CP(None, [a.T, a.T])
    with tensorly_backend(x) as tl, tensorly_backend(x):
        dot = tl.tenalg.mode_dot(x, a, 1)
    back = from_tensorly(c.to_tensorly()).to_tensor()
    found = [product, t.at([0, 2], [1, 2], [2, 0]), (t + t)[1].to_tensor(), c.norm(), dot, back]
    found += [tucker(x, 2).to_tensor()] if library != "jax" else []
    return [library_of(array) for array in found], [to_numpy(array) for array in found]


def failures_of(count, libraries):
    """Run the calls in as many fresh threads, while two others switch TensorLy's backend for themselves."""
    wanted = {library: core_calls(library)[1] for library in libraries}
    failures, stop = [], threading.Event()

    def work(library):
        try:
            libraries, arrays = core_calls(library)
            if set(libraries) != {library}:
                failures.append((library, libraries))
            for got, want in zip(arrays, wanted[library], strict=True):
                if np.abs(got - want).max() > 1e-5 * np.abs(want).max():
                    failures.append((library, "other numbers"))
        except Exception as error:  # noqa: BLE001 - every failure counts
            failures.append((library, repr(error)))

    def user(array):
        while not stop.is_set():
            with tensorly_backend(array) as tl, tensorly_backend(np.ones(2)):
                tl.tensor([1.0])
            time.sleep(0.001)

    users = [threading.Thread(target=user, args=(array,)) for array in (torch.ones(2), jax.numpy.ones(2))]
    for thread in users:
        thread.start()
    for start in range(0, count, 8):  # eight at once, each in a thread that never ran before
        picked = [libraries[k % len(libraries)] for k in range(start, start + 8)]
        threads = [threading.Thread(target=work, args=(library,)) for library in picked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stop.set()
    for thread in users:
        thread.join()
    return failures


def test_calls_from_fresh_threads_never_see_the_library_of_another():
    assert_equal(failures_of(200, ["numpy", "torch"]), [])


@pytest.mark.slow
def test_a_thousand_calls_from_fresh_threads_never_fail():
    assert_equal(failures_of(1000, ["numpy", "torch", "jax"]), [])


def test_a_pool_of_threads_gives_the_numbers_of_one():
    arrays = [smooth(8) * k for k in range(1, 17)]
    with ThreadPoolExecutor(4) as pool:
        many = list(pool.map(lambda x: tucker(x, 3).core, arrays))
    for core, x in zip(many, arrays, strict=True):
        assert_equal(core, tucker(x, 3).core)


def test_the_door_leaves_the_64_bit_switch_of_jax_alone():
    before = jax.config.jax_enable_x64
    with tensorly_backend(jax.numpy.ones(2)) as tl:
        assert_equal(tl.get_backend(), "jax")
        assert_equal(library_of(tl.tensor([1.0])), "jax")
    assert_equal(jax.config.jax_enable_x64, before)


def test_a_library_that_tensorly_does_not_know_is_refused_by_name():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError) as error, tensorly_backend(strict.ones(2)):
        pass
    assert_says(error, "array_api_strict", "numpy, torch or JAX")
