"""The one door to array libraries and to TensorLy: namespace, dtype, device, precision, randomness."""

from __future__ import annotations

import math
import numbers
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import array_api_compat
import numpy as np

from tenfac.core.decomposed import array_instead
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.precision import HALF, astype, double_of, dtype_name
from tenfac.core.tracing import is_traced

_NAMESPACES: dict[type, Any] = {}
_FLOATING = ("float32", "float64", "complex64", "complex128")
_BACKENDS = {"numpy": "numpy", "torch": "pytorch", "jax": "jax"}  # library: its name in TensorLy
_LOADING = threading.Lock()


def namespace_of(*arrays: Any) -> Any:
    """Find the array-API namespace that all arrays share.

    Parameters
    ----------
    *arrays : array
        At least one array of numpy, torch, JAX, or another library of the array API standard.

    Returns
    -------
    module
        Namespace with the functions of the array API standard.

    Raises
    ------
    TypeError
        If something is not an array, is a masked array or matrix, or if the arrays differ in library or
        device.

    Notes
    -----
    Cached by type: a few tens of nanoseconds an array after the first.

    References
    ----------
    .. [1] Consortium for Python Data API Standards, Python array API standard, 2024.12.
       https://data-apis.org/array-api/2024.12

    Examples
    --------
    >>> import numpy as np
    >>> namespace_of(np.ones(3), np.ones((2, 2))).__name__
    'array_api_compat.numpy'
    """
    xp = _namespace_of_one(arrays[0])
    for array in arrays[1:]:
        other = _namespace_of_one(array)
        if other is not xp:
            raise TypeError(
                "arrays: all arrays of a call must come from one library; got "
                f"{library_name(arrays[0])} and {library_name(array)}. Convert one of them first."
            )
    if xp is not _NAMESPACES.get(np.ndarray) and len(arrays) > 1:
        devices = {str(device_of(array)) for array in arrays} - {"None"}  # None: under jit
        if len(devices) > 1:
            raise TypeError(
                "arrays: all arrays of a call must be on one device; got "
                f"{' and '.join(sorted(devices))}. Move one of them first."
            )
    return xp


def _namespace_of_one(array: Any) -> Any:
    kind = type(array)
    xp = _NAMESPACES.get(kind)
    if xp is not None:
        return xp
    if isinstance(array, (np.ma.MaskedArray, np.matrix)):
        raise TypeError(
            f"arrays: a numpy {kind.__name__} would lose its meaning here; got shape {array.shape}. Pass "
            "np.asarray(x) of a matrix; masked arrays are for cp_complete and tucker_complete."
        )
    _refuse_sparse(array)
    if array_api_compat.is_dask_array(array):
        raise TypeError(
            f"arrays: an array of dask is read by tucker(X, rank) and tucker(X, tol=...) only; got shape "
            f"{array.shape}. For anything else pass x.compute()."
        )
    if not array_api_compat.is_array_api_obj(array):
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        raise TypeError(
            f"arrays: expected an array of numpy, torch or JAX; got {name}. {array_instead(array)}"
        )
    return _NAMESPACES.setdefault(kind, array_api_compat.array_namespace(array))


def _refuse_sparse(array: Any) -> None:
    kind = type(array)
    found = kind.__module__.partition(".")[0] in ("scipy", "sparse")
    if found or getattr(array, "is_sparse", False) or getattr(array, "is_sparse_csr", False):
        raise TypeError(
            f"arrays: expected a dense array; got the sparse {kind.__module__}.{kind.__qualname__}. Convert "
            "it, for example with x.toarray(), x.todense() or x.to_dense(), if it fits in memory."
        )


def library_name(array: Any) -> str:
    """Name the library of an array.

    Examples
    --------
    >>> import numpy as np
    >>> library_name(np.ones(3))
    'numpy'
    """
    name = _namespace_of_one(array).__name__.removeprefix("array_api_compat.")
    return name.partition(".")[0]


def device_of(array: Any) -> Any:
    """Device of an array, ``'cpu'`` for numpy; None for a JAX array under ``jit``, ``vmap`` or ``grad``.

    Examples
    --------
    >>> import numpy as np
    >>> device_of(np.ones(3))
    'cpu'
    """
    if isinstance(array, np.ndarray):
        return "cpu"
    return array.device if type(array).__module__ == "torch" else array_api_compat.device(array)


def eps(dtype: Any) -> float:
    """Spacing of floating-point numbers at 1, for a real or complex dtype of any library.

    Raises
    ------
    DataError
        If the dtype is not float32, float64, complex64 or complex128.

    Examples
    --------
    >>> import numpy as np
    >>> eps(np.dtype("complex64")) == 2.0**-23
    True
    """
    name = dtype_name(dtype)
    if name not in _FLOATING:
        raise DataError(f"eps: dtype must be one of {', '.join(_FLOATING)}; got {name}.")
    return float(np.finfo(name).eps)


def as_float(array: Any, where: str = "arrays") -> Any:
    """Keep a float or complex array as it is, make integers and booleans float64, half precision float32.

    Parameters
    ----------
    array : array, any shape
    where : str
        Name of the caller, for the message.

    Returns
    -------
    array, same shape
        float32, float64, complex64 or complex128. Integers in JAX without its 64-bit mode become float32,
        the widest it has (see ``double_of``).

    Raises
    ------
    DataError
        If the dtype is none of these: extended precision, objects, text.

    Examples
    --------
    >>> import numpy as np
    >>> as_float(np.arange(3)).dtype, as_float(np.ones(3, dtype="float16")).dtype
    (dtype('float64'), dtype('float32'))
    """
    xp = namespace_of(array)
    if not isinstance(array, np.ndarray):
        _refuse_sparse(array)  # torch has one type for dense and sparse
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))  # as FITS and HDF5 store them
    name = dtype_name(array.dtype)
    if name in _FLOATING:
        return array
    if name in HALF:
        return xp.astype(array, xp.float32)
    try:
        if xp.isdtype(array.dtype, ("bool", "integral")):
            return xp.astype(array, double_of(xp))
    except (TypeError, ValueError):
        pass  # a dtype the namespace does not know is answered below
    raise DataError(
        f"{where}: dtype must be {', '.join(_FLOATING)}, {', '.join(HALF)}, or an integer; got {name}. "
        "Convert the array first, for example to float32 or float64."
    )


def promote(*arrays: Any, where: str = "arrays") -> tuple[Any, ...]:
    """Bring arrays of one library to their common float or complex dtype (see ``as_float``).

    Raises
    ------
    TypeError
        If libraries or devices differ.
    DataError
        If a dtype is not supported (see ``as_float``).

    Examples
    --------
    >>> import numpy as np
    >>> a, b = promote(np.ones(2, dtype="float32"), np.ones(2, dtype="complex64"))
    >>> a.dtype, b.dtype
    (dtype('complex64'), dtype('complex64'))
    """
    xp = namespace_of(*arrays)
    arrays = tuple(as_float(array, where) for array in arrays)
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) == 1:
        return arrays
    common = xp.result_type(*arrays)
    return tuple(astype(array, common, xp) for array in arrays)


def is_array(value: Any) -> bool:
    """Whether a value is an array of a known library (a numpy scalar counts).

    Examples
    --------
    >>> import numpy as np
    >>> is_array(np.ones(2)), is_array([1.0, 1.0])
    (True, False)
    """
    return type(value) in _NAMESPACES or array_api_compat.is_array_api_obj(value)


def points_like(values: Any, array: Any, where: str = "at") -> Any:
    """Bring index values (number, sequence, array of any library) to the library and device of ``array``.

    Parameters
    ----------
    values : int, float, sequence or array
    array : array
        Sets library and device, not the dtype.
    where : str
        Name of the caller, for the message.

    Raises
    ------
    DataError, ShapeError
        If the values are not numbers, or sequences of different lengths.

    Examples
    --------
    >>> import numpy as np
    >>> points_like([0, 2], np.ones(3, dtype="float32")).dtype.kind
    'i'
    """
    xp = namespace_of(array)
    points = values
    if not is_array(values):
        try:
            points = np.asarray(values)
        except ValueError:
            raise ShapeError(
                f"{where}: index values must be a number or an array; got nested sequences of different "
                "lengths. Give every mode its own flat sequence."
            ) from None
        if points.size == 0:
            points = points.astype(np.int64)
    if isinstance(points, np.ndarray) and points.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: index values must be numbers; got dtype {points.dtype}. Map labels to integers first."
        )
    if is_traced(points) and not hasattr(points, "requires_grad"):
        return points  # jax.vmap places no tracers
    device = device_of(array)
    if hasattr(points, "requires_grad") and points.device == device:
        return points  # asarray of torch would ask what becomes of the gradient
    return xp.asarray(points, device=device)


def to_number(scalar: Any) -> float:
    """Read a real 0-d array as a Python float, outside any gradient.

    Examples
    --------
    >>> import numpy as np
    >>> to_number(np.float32(0.5))
    0.5
    """
    detach = getattr(scalar, "detach", None)
    return float(scalar if detach is None else detach())


def to_numpy(array: Any) -> np.ndarray:
    """Read an array of any library as numpy, outside any gradient, on the CPU.

    Examples
    --------
    >>> import numpy as np
    >>> to_numpy(np.ones(2)).shape
    (2,)
    """
    if library_name(array) == "torch":
        return array.detach().cpu().resolve_conj().resolve_neg().numpy()
    return np.asarray(array)


def triangular_factor(matrix: Any) -> Any:
    """Compute ``R`` of ``matrix = Q R`` without forming ``Q`` where the library allows it.

    Parameters
    ----------
    matrix : array, shape (M, K)

    Returns
    -------
    array, shape (min(M, K), K)

    Examples
    --------
    >>> import numpy as np
    >>> triangular_factor(np.ones((5, 2))).shape
    (2, 2)
    """
    xp = namespace_of(matrix)
    if isinstance(matrix, np.ndarray):
        return np.linalg.qr(matrix, mode="r")
    library = library_name(matrix)
    if library == "torch":
        return xp.linalg.qr(matrix, mode="r")[1]
    return xp.linalg.qr(matrix, mode="r") if library == "jax" else xp.linalg.qr(matrix)[1]


def generator(random_state: int | np.random.Generator | None) -> np.random.Generator:
    """Make a numpy generator from a ``random_state``; the global generator is never touched.

    Parameters
    ----------
    random_state : int, numpy Generator or None
        An integer seeds a new generator, a generator is used as it is, None draws fresh entropy.

    Raises
    ------
    TypeError, DataError
        If it is something else, or a negative integer.

    Examples
    --------
    >>> generator(0).integers(10, size=3)
    array([8, 6, 5])
    """
    if isinstance(random_state, np.random.Generator):
        return random_state
    if random_state is None:
        return np.random.default_rng()
    if not isinstance(random_state, numbers.Integral) or isinstance(random_state, (bool, np.bool_)):
        raise TypeError(
            "arrays: `random_state` must be an int, a numpy.random.Generator or None; got "
            f"{type(random_state).__name__}. Write random_state=0 for repeatable numbers."
        )
    if random_state < 0:
        raise DataError(f"arrays: `random_state` must be 0 or more; got {random_state}.")
    return np.random.default_rng(int(random_state))


def seed_of(random_state: int | np.random.Generator | None) -> int | None:
    """The seed that a report keeps: ``random_state`` if it is an integer, else None.

    Examples
    --------
    >>> seed_of(np.int64(4)), seed_of(np.random.default_rng(4))
    (4, None)
    """
    return int(random_state) if isinstance(random_state, numbers.Integral) else None


def spans(size: int, step: int) -> Iterator[slice]:
    """Slices of at most ``step`` that cover ``range(size)``; an empty one for size 0.

    Examples
    --------
    >>> list(spans(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    for start in range(0, max(size, 1), step):
        yield slice(start, min(start + step, size))


def byte_guard(shape: Sequence[int], itemsize: int, max_bytes: float | None, where: str, remedy: str) -> None:
    """Refuse to form an array larger than ``max_bytes``.

    Raises
    ------
    DataError
        With the size in the message.
    TypeError
        If ``max_bytes`` is not a number.

    Examples
    --------
    >>> byte_guard((10, 10), 8, 800, "to_tensor", "Use at.")
    """
    if not isinstance(max_bytes, (numbers.Real, type(None))):
        raise TypeError(f"{where}: max_bytes must be a number of bytes, such as 1e9; got {max_bytes!r}.")
    needed = math.prod(shape) * itemsize
    if max_bytes is not None and needed > max_bytes:
        raise DataError(
            f"{where}: the dense array of shape {tuple(shape)} needs {needed:,} bytes; allowed by max_bytes "
            f"are {int(max_bytes):,}. {remedy}"
        )


@contextmanager
def tensorly_backend(array: Any) -> Iterator[Any]:
    """Enter TensorLy with the backend that fits ``array``, for the calling thread only, and restore it.

    TensorLy's own ``backend_context`` writes the default of all threads when it is left; this one never does.

    Parameters
    ----------
    array : array
        numpy, torch or JAX.

    Yields
    ------
    module
        ``tensorly``.

    Raises
    ------
    TypeError
        If TensorLy has no backend for the library.

    Notes
    -----
    TensorLy's JAX backend switches JAX to 64 bits for the whole process when it is first loaded; the switch
    is put back.

    Examples
    --------
    >>> import numpy as np
    >>> with tensorly_backend(np.ones(2)) as tl:
    ...     tl.get_backend()
    'numpy'
    """
    import tensorly

    library = library_name(array)
    if library not in _BACKENDS:
        raise TypeError(
            f"tensorly_backend: TensorLy must have a backend for the arrays; got {library}. Convert them to "
            "numpy, torch or JAX first."
        )
    manager: Any = type(sys.modules["tensorly.backend"])
    if library == "jax":
        _load_jax_backend()
    local = manager._THREAD_LOCAL_DATA.__dict__
    before = local.get("backend")
    manager.set_backend(_BACKENDS[library], local_threadsafe=True)
    try:
        yield tensorly
    finally:
        if before is None:
            local.pop("backend", None)
        else:
            local["backend"] = before


def _load_jax_backend() -> None:
    """Import TensorLy's JAX backend and put JAX's 64-bit switch back to where it was."""
    with _LOADING:
        if "tensorly.backend.jax_backend" not in sys.modules:
            thread = threading.Thread(target=_import_jax_backend)  # it sees the process's own switch
            thread.start()
            thread.join()


def _import_jax_backend() -> None:
    import jax

    before = jax.config.jax_enable_x64
    try:
        import_module("tensorly.backend.jax_backend")
    finally:
        jax.config.update("jax_enable_x64", before)
