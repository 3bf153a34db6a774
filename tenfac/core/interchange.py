"""From TensorLy's objects and tuples to formats; the way back is ``to_tensorly`` of each format."""

from __future__ import annotations

from typing import Any

from tenfac.core.arrays import device_of, namespace_of
from tenfac.core.cp import CP
from tenfac.core.decomposed import is_pair, is_tensorly
from tenfac.core.door import door
from tenfac.core.errors import ShapeError
from tenfac.core.format import Format
from tenfac.core.train import TuckerTrain
from tenfac.core.tucker import Tucker


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
    TypeError
        If it is none of these.
    ShapeError
        If its arrays do not fit each other.

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
        raise TypeError(
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


def as_format(value: Any) -> Any:
    """A format for what stands for one: a tensor of TensorLy, or a tuple ``(core, factors)``.

    The one door: whoever takes a format reads it by this, and then checks what it needs.

    Returns
    -------
    Tucker, CP, TuckerTrain, or ``value`` as it is

    Examples
    --------
    >>> import numpy as np
    >>> as_format((None, [np.ones((3, 1)), np.ones((4, 1))]))
    CP(shape=(3, 4), rank=1, numpy.float64, 8 numbers for 12 entries)
    >>> as_format((2.0, 3.0)), as_format("Tucker")
    ((2.0, 3.0), 'Tucker')
    """
    return from_tensorly(value) if is_tensorly(value) or is_pair(value) else value


def refuse_decomposed(value: Any, where: str, name: str = "X") -> None:
    """Say what to give in the place of a decomposed tensor, where numbers are needed.

    Raises
    ------
    TypeError
        If the value is a format, a tensor of TensorLy or a tuple ``(core, factors)``.

    Examples
    --------
    >>> refuse_decomposed([[1.0, 2.0]], "cp")
    """
    if isinstance(value, Format):
        remedy = (
            "Evaluate it at points with t.at or t.on_grid" if value.is_functional else "Pass t.to_tensor()"
        )
    elif is_tensorly(value) or is_pair(value):
        remedy = "Pass tenfac.from_tensorly(t).to_tensor()"
    else:
        return
    raise TypeError(
        f"{where}: `{name}` must be an array; got a decomposed tensor, {type(value).__name__}. {remedy}."
    )


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
