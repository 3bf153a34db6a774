"""What stands for a decomposed tensor and is no format: TensorLy's objects, tuples of a core and factors."""

from __future__ import annotations

from typing import Any


def is_tensorly(value: Any) -> bool:
    """Whether a value is a decomposed tensor of TensorLy, not a plain tuple; TensorLy is not imported.

    Examples
    --------
    >>> is_tensorly((None, []))
    False
    """
    kind = type(value)
    return kind.__module__.startswith("tensorly.") and kind.__name__.endswith("Tensor")


def is_pair(value: Any) -> bool:
    """Whether a value is a tuple ``(core, factors)`` or ``(weights, factors)``; weights may be None.

    Examples
    --------
    >>> import numpy as np
    >>> is_pair((np.ones((1, 1)), [np.ones((3, 1)), np.ones((4, 1))])), is_pair((1.0, 2.0))
    (True, False)
    """
    if not isinstance(value, tuple) or len(value) != 2 or not isinstance(value[1], (tuple, list)):
        return False
    first, factors = value
    return (
        bool(factors)
        and all(_is_like_array(f) and f.ndim > 1 for f in factors)
        and (first is None or _is_like_array(first))
    )


def _is_like_array(value: Any) -> bool:
    """Whether a value looks like an array; that it is one is checked where it is used."""
    return hasattr(value, "ndim") and hasattr(value, "dtype")


def array_instead(value: Any) -> str:
    """What to pass in the place of something that is no array.

    Examples
    --------
    >>> array_instead([1.0])
    'Convert it with numpy.asarray(x).'
    """
    if callable(getattr(value, "to_tensor", None)):
        return "Pass x.to_tensor(); x.round(...) makes a format smaller (TensorLy: from_tensorly(x))."
    if is_pair(value):
        return "Pass from_tensorly(x).to_tensor(): it is a core, or weights, and factors."
    if hasattr(value, "__array__") or isinstance(value, (list, tuple)):
        return "Convert it with numpy.asarray(x)."
    return "Load or make the array first, as with numpy.asarray or numpy.load."
