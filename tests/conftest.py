"""Fixtures every room shares. Others may add theirs below the first section."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

# The arrays of tests are small: a second thread of a linear-algebra library doubles the time they take.
# Libraries loaded already are told here; those that come later, and processes that tests start, read the
# environment.
threadpool_limits(limits=1)
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Tests compile many small programs and run each once: what XLA's optimizer takes is never earned back.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# A look for dead cycles passes over every object of the large libraries: a tenth of the time of all tests
# when it is done as often as usual. What is loaded by the end of the collection stays loaded.
gc.set_threshold(50_000, 20, 50)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("quick")


# --- arrays of every library -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Make:
    """Draws the same standard normal numbers as numpy or torch, float32 or float64.

    ``make(3, 4)`` is a (3, 4) array; ``make(3, 4, seed=1)`` other numbers; ``make.asarray(x)`` converts
    values to this library and dtype; ``make.index([0, 2])`` is an int64 array of this library.
    """

    library: str
    dtype: str

    def __call__(self, *shape: int, seed: int = 0) -> Any:
        return self.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape))

    def asarray(self, values: Any) -> Any:
        values = np.asarray(values)
        complex_of = {"float32": "complex64", "float64": "complex128"}
        dtype = complex_of[self.dtype] if np.iscomplexobj(values) else self.dtype
        return self._convert(np.array(values, dtype=dtype))

    def index(self, values: Any) -> Any:
        return self._convert(np.array(values, dtype=np.int64))

    def complex(self, *shape: int, seed: int = 0) -> Any:
        real, imag = np.random.default_rng([seed, *shape, 1]).standard_normal((2, *shape))
        return self.asarray(real + 1j * imag)

    @property
    def eps(self) -> float:
        return float(np.finfo(self.dtype).eps)

    def _convert(self, values: np.ndarray) -> Any:
        if self.library == "numpy":
            return values
        import torch

        return torch.from_numpy(values)


@pytest.fixture(
    scope="session",
    params=[(lib, dtype) for lib in ("numpy", "torch") for dtype in ("float64", "float32")],
    ids="-".join,
)
def make(request: pytest.FixtureRequest) -> Make:
    """Array maker, one test run per library and dtype (see ``Make``)."""
    library, dtype = request.param
    if library == "torch":
        pytest.importorskip("torch")
    return Make(library, dtype)
