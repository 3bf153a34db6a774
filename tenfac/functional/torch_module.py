"""A format as a torch module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tenfac.core.arrays import to_numpy
from tenfac.core.errors import DataError, ShapeError


class FunctionModule(nn.Module):
    """Values of a format at points, differentiable; made by ``to_torch``.

    Parameters
    ----------
    t : Format
    dtype : torch.dtype or None
    device : torch.device, str or None
    trainable : bool
    """

    def __init__(self, t: Any, dtype: Any, device: Any, trainable: bool) -> None:
        super().__init__()
        if dtype not in (None, torch.float32, torch.float64):
            raise DataError(
                f"to_torch: `dtype` must be torch.float32, torch.float64 or None; got {dtype!r}. Others do "
                "not keep the digits of a function."
            )
        self.kind, self.modes, self.static = type(t), t.modes, t._static
        self.names = [name.replace("s.", "_") for name in t._arrays()]  # factors.0 is factor_0
        for name, array in zip(self.names, t._arrays().values(), strict=True):
            tensor = torch.tensor(to_numpy(array), device=device)
            tensor = tensor if dtype is None else tensor.to(dtype)
            if trainable:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    def format(self) -> Any:
        """The format of the arrays as they are now, gradient included."""
        return self.kind._unflatten([getattr(self, name) for name in self.names], self.static)

    def forward(self, *indices: Any) -> torch.Tensor:
        """Values at points: one argument per mode, or one tensor ``(..., D)``, which gives ``(...)``."""
        if len(indices) == 1 and (len(self.modes) > 1 or _is_column(indices[0])):
            return self.format().at(*self._split(torch.as_tensor(indices[0])))
        return self.format().at(*indices)

    def _split(self, points: torch.Tensor) -> list[torch.Tensor]:
        if points.ndim == 0 or points.shape[-1] != len(self.modes):
            raise ShapeError(
                f"to_torch: points must have shape (..., {len(self.modes)}), a column per mode; got "
                f"{tuple(points.shape)}."
            )
        columns = []
        for mode, column in zip(self.modes, points.unbind(-1), strict=True):
            whole = mode.domain is None and torch.equal(column, column.round())
            columns.append(column.long() if whole else column)
        return columns

    def extra_repr(self) -> str:
        """The format in one line."""
        return repr(self.format())


def _is_column(points: Any) -> bool:
    """Whether points of a function of one variable are rows ``(..., 1)``, like ``(..., D)`` of several."""
    shape: Any = getattr(points, "shape", ())
    return len(shape) > 1 and shape[-1] == 1
