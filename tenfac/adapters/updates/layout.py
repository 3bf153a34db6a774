"""What the modes of a layer's weight are: which is output, which is input, which are kernel or stack."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True)
class Layout:
    """The storage modes of one weight.

    Parameters
    ----------
    kind : {"linear", "conv", "conv_transpose", "embedding", "parameter"}
    shape : tuple of int
        Sizes of the storage modes, as the layer keeps them.
    out, into : int
        Storage mode that makes outputs, and the one that takes inputs.
    names : tuple of str
        One per mode, for messages and reports.
    groups : int
        Groups of a convolution.

    Examples
    --------
    >>> from torch import nn
    >>> layout_of(nn.Conv2d(8, 16, 3, groups=2), "weight").names
    ('out_channels', 'in_channels/groups', 'kernel height', 'kernel width')
    """

    kind: str
    shape: tuple[int, ...]
    out: int
    into: int
    names: tuple[str, ...]
    groups: int = 1

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def rest(self) -> tuple[int, ...]:
        """Modes that are neither output nor input: the kernel of a convolution, the stack of a parameter."""
        return tuple(n for n in range(len(self.shape)) if n not in (self.out, self.into))

    def role(self, mode: int) -> str:
        """``"out"``, ``"into"`` or ``"rest"``."""
        return {self.out: "out", self.into: "into"}.get(mode, "rest")

    def mode_name(self, mode: int) -> str:
        """A mode as messages name it."""
        return f"mode {mode} ({self.names[mode]})"


def layout_of(layer: nn.Module, parameter: str, shape: tuple[int, ...] | None = None) -> Layout:
    """The layout of ``layer.parameter``, or of a block of its rows when its ``shape`` is given."""
    shape = tuple(layer._parameters[parameter].shape) if shape is None else shape
    if parameter == "weight":
        if isinstance(layer, nn.Linear):
            return Layout("linear", shape, 0, 1, ("out_features", "in_features"))
        if isinstance(layer, nn.Embedding):
            return Layout("embedding", shape, 1, 0, ("num_embeddings", "embedding_dim"))
        if isinstance(layer, (*CONVS, *TRANSPOSED)):
            return _convolution(layer, shape)
        if isinstance(layer, nn.EmbeddingBag):
            return Layout("parameter", shape, 1, 0, ("num_embeddings", "embedding_dim"))
        if isinstance(layer, nn.Bilinear):
            return Layout("parameter", shape, 0, 2, ("out_features", "in1_features", "in2_features"))
    names = tuple(f"axis {n}" for n in range(len(shape)))
    if isinstance(layer, nn.MultiheadAttention) and len(shape) == 2:
        names = ("out_features", "in_features")
    return Layout("parameter", shape, len(shape) - 2, len(shape) - 1, names)


def _convolution(layer: nn.Module, shape: tuple[int, ...]) -> Layout:
    kernel = tuple(f"kernel {axis}" for axis in _AXES[len(shape) - 2])
    if isinstance(layer, TRANSPOSED):
        names = ("in_channels", "out_channels/groups", *kernel)
        return Layout("conv_transpose", shape, 1, 0, names, layer.groups)
    return Layout("conv", shape, 0, 1, ("out_channels", "in_channels/groups", *kernel), layer.groups)
