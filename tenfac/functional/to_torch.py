"""``to_torch``: a format as a torch module; torch is imported when it is called."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from tenfac.core.door import door
from tenfac.core.errors import MissingExtraError, ShapeError
from tenfac.core.format import Format
from tenfac.core.interchange import as_format


@door
def to_torch(t: Format, *, dtype: Any = None, device: Any = None, trainable: bool = False) -> Any:
    """Make a torch module of a function: ``module(x, y, ...)``, or ``module(X)`` for points as rows.

    Parameters
    ----------
    t : Tucker, TuckerTrain or CP
        Of any library, real; without a batch. TensorLy's tensors too.
    dtype : torch.dtype, optional
        float32 or float64; that of ``t`` if not given.
    device : torch.device or str, optional
    trainable : bool
        Core and factors are parameters; otherwise they are buffers.

    Returns
    -------
    torch.nn.Module
        Differentiable in the points; ``state_dict``, ``to`` and ``double`` work as for any module, and its
        ``format()`` is the tensor of its arrays.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    ShapeError
        If there is a batch.

    Notes
    -----
    The points are computed with in the dtype of the module. Columns of ``X`` that index discrete modes must
    hold whole numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac import Chebyshev, Tucker
    >>> x_y = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2)
    >>> to_torch(x_y)([0.5, 1.0], 0.25).tolist()
    [0.125, 0.25]
    """
    if find_spec("torch") is None:
        raise MissingExtraError("to_torch needs PyTorch. Install it with: pip install 'tenfac[torch]'.")
    t = as_format(t)
    if not isinstance(t, Format):
        raise TypeError(f"to_torch: needs a Tucker, TuckerTrain or CP; got {type(t).__name__}.")
    if t.batch_shape:
        raise ShapeError(f"to_torch: needs one function; got a batch of shape {t.batch_shape}.")
    from tenfac.functional.torch_module import FunctionModule

    return FunctionModule(t, dtype, device, trainable)
