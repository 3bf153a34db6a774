"""Names of dtypes, the widest one of a library, and half precision, which is stored but not computed in."""

from __future__ import annotations

from typing import Any

import numpy as np

HALF = ("float16", "bfloat16")  # stored and returned, computed with in float32
_NAMES: dict[np.dtype, str] = {}  # of the dtypes of numpy seen; writing one takes a microsecond


def dtype_name(dtype: Any) -> str:
    """Name a dtype of any library without its prefix.

    Examples
    --------
    >>> import numpy as np
    >>> dtype_name(np.dtype("float32")), dtype_name(np.float64(1).dtype)
    ('float32', 'float64')
    """
    if not isinstance(dtype, np.dtype):
        return str(dtype).rpartition(".")[2].removesuffix("'>")
    name = _NAMES.get(dtype)
    return _NAMES.setdefault(dtype, str(dtype)) if name is None else name


def is_complex(array: Any) -> bool:
    """Whether an array has a complex dtype.

    Examples
    --------
    >>> import numpy as np
    >>> is_complex(np.ones(2)), is_complex(np.ones(2) * 1j)
    (False, True)
    """
    return dtype_name(array.dtype).startswith("complex")


def itemsize(dtype: Any) -> int:
    """Bytes of one number.

    Examples
    --------
    >>> import numpy as np
    >>> itemsize(np.dtype("float32")), itemsize(np.dtype("complex128"))
    (4, 16)
    """
    return int(dtype_name(dtype).lstrip("abcdefghijklmnopqrstuvwxyz")) // 8


def double_of(xp: Any, *, complex_: bool = False) -> Any:
    """Widest float (or complex) dtype of a namespace: float64 (complex128).

    JAX without its 64-bit mode has no such dtype; there it is float32 (complex64), and nothing is switched.

    Examples
    --------
    >>> import numpy as np
    >>> double_of(np)
    <class 'numpy.float64'>
    """
    if xp.__name__.startswith("jax"):
        known = xp.__array_namespace_info__().dtypes(kind="complex floating" if complex_ else "real floating")
        double, single = ("complex128", "complex64") if complex_ else ("float64", "float32")
        return known.get(double, known[single])
    return xp.complex128 if complex_ else xp.float64


def wide(array: Any, xp: Any) -> Any:
    """Bring an array to double precision, real or complex as it is (see ``double_of``).

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.core.arrays import namespace_of
    >>> wide(np.ones(2, dtype="float32"), namespace_of(np.ones(2))).dtype
    dtype('float64')
    """
    return astype(array, double_of(xp, complex_=is_complex(array)), xp)


def astype(array: Any, dtype: Any, xp: Any) -> Any:
    """Convert to a dtype (None: leave as it is), without a copy where it is already that.

    Examples
    --------
    >>> import numpy as np
    >>> astype(np.ones(2), None, np).dtype
    dtype('float64')
    """
    return array if dtype is None or array.dtype == dtype else xp.astype(array, dtype)


def half_of(*arrays: Any) -> Any:
    """Half-precision dtype that a result computed in float32 goes back to; None if an input is wider.

    Examples
    --------
    >>> import numpy as np
    >>> half_of(np.ones(2, dtype="float16")), half_of(np.ones(2), np.ones(2, dtype="float16"))
    (dtype('float16'), None)
    """
    first = arrays[0].dtype
    return first if dtype_name(first) in HALF and all(array.dtype == first for array in arrays) else None
