"""An array that counts: what a product costs is a promise as much as what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_PRODUCTS: list[int] = []


class Counted(np.ndarray):
    """A numpy array whose matrix products, and those of all that is made of it, are counted."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        inputs = tuple(plain(x) for x in inputs)
        if "out" in kwargs:
            kwargs["out"] = tuple(plain(x) for x in kwargs["out"])
        made = getattr(ufunc, method)(*inputs, **kwargs)
        if ufunc is np.matmul:
            _PRODUCTS.append(np.size(made) * inputs[0].shape[-1])
        return counted(made) if isinstance(made, np.ndarray) else made


def plain(array: Any) -> Any:
    """The array without its counter."""
    return array.view(np.ndarray) if isinstance(array, Counted) else array


def counted(array: np.ndarray) -> Counted:
    """The array with a counter."""
    return array.view(Counted)


def multiplications(call: Callable[[], Any]) -> int:
    """Multiplications in the matrix products of counted arrays while something is called."""
    _PRODUCTS.clear()
    call()
    return sum(_PRODUCTS)
