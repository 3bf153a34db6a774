"""From TensorLy's objects and tuples to formats; the way back is ``to_tensorly`` of each format."""

from __future__ import annotations

from typing import Any

from .arrays import device_of, namespace_of
from .cp import CP
from .door import door
from .errors import ShapeError
from .train import TuckerTrain
from .tucker import Tucker


@door
def from_tensorly(tensor: Any) -> Tucker | CP | TuckerTrain:
    """Convert a TensorLy tensor or tuple to a format, sharing its arrays.

    Parameters
    ----------
    tensor : tensorly.TuckerTensor, tensorly.CPTensor, tensorly.TTTensor or tuple
        A tuple is ``(core, factors)`` or ``(weights, factors)``: with weights of None or one axis it is CP.

    Returns
    -------
    Tucker, CP or TuckerTrain

    Raises
    ------
    ShapeError
        If it is none of these, or its arrays do not fit each other.

    Notes
    -----
    No numbers are copied, except that integers become float64. A TTTensor gets unit matrices as factors, or
    as cores where a mode is longer than the bonds around it need. TensorLy need
    not be installed for tuples.

    References
    ----------
    .. [1] J. Kossaifi, Y. Panagakis, A. Anandkumar and M. Pantic, TensorLy: Tensor Learning in Python, JMLR
       20 (2019). https://jmlr.org/papers/v20/18-277.html

    Examples
    --------
    >>> import numpy as np
    >>> from_tensorly((np.ones((2, 2)), [np.ones((3, 2)), np.ones((4, 2))]))
    Tucker(shape=(3, 4), rank=(2, 2), numpy.float64, 18 numbers for 12 entries)
    """
    if isinstance(tensor, (Tucker, CP, TuckerTrain)):
        return tensor
    kind = type(tensor).__name__
    if kind == "TTTensor":
        return _train(list(tensor))
    kinds: dict[str, type[Tucker] | type[CP]] = {"TuckerTensor": Tucker, "CPTensor": CP}
    known = kinds.get(kind)
    if known is None and not isinstance(tensor, (tuple, list)):
        raise ShapeError(
            "from_tensorly: needs a TuckerTensor, a CPTensor or a tuple (core or weights, factors); got "
            f"{kind}."
        )
    parts = tuple(tensor)
    if len(parts) != 2 or not isinstance(parts[1], (tuple, list)):
        raise ShapeError(
            "from_tensorly: a tuple must be (core, factors) or (weights, factors) with a list of factors; "
            f"got {len(parts)} entries of types {[type(part).__name__ for part in parts]}."
        )
    first, factors = parts
    if known is None:
        if first is not None and not hasattr(first, "ndim"):
            raise ShapeError(
                "from_tensorly: the first entry of a tuple must be a core or weights, an array or None; got "
                f"{type(first).__name__}. Convert it with numpy.asarray(x)."
            )
        known = CP if first is None or (first.ndim == 1 and len(factors) > 1) else Tucker
    return known(first, tuple(factors))


def is_tensorly(value: Any) -> bool:
    """Whether a value is a decomposed tensor of TensorLy, not a plain tuple; TensorLy is not imported.

    Examples
    --------
    >>> is_tensorly((None, []))
    False
    """
    kind = type(value)
    return kind.__module__.startswith("tensorly.") and kind.__name__.endswith("Tensor")


def _train(wholes: list[Any]) -> TuckerTrain:
    """Cores and factors of a plain tensor train ``(S_{n-1}, I_n, S_n)``."""
    xp = namespace_of(*wholes)
    cores, factors = [], []
    for whole in wholes:
        left, size, right = whole.shape
        slim = size > left * right
        unit = xp.eye(left * right if slim else size, dtype=whole.dtype, device=device_of(whole))
        flat = xp.reshape(xp.moveaxis(whole, 1, 0), (size, left * right))
        cores.append(xp.moveaxis(xp.reshape(unit, (left * right, left, right)), 0, 1) if slim else whole)
        factors.append(flat if slim else unit)
    return TuckerTrain(cores, factors)
