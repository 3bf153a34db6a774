"""``compensate``: what rounding a weight has lost, given back by a low-rank update."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tenfac.adapters.checks import check_name
from tenfac.adapters.compression.compress import check_layer
from tenfac.adapters.compression.solver import low_rank
from tenfac.adapters.compression.statistics import batches, move_bias, output_moments
from tenfac.adapters.layer import Adapted, Slot, attach
from tenfac.adapters.updates.layout import layout_of
from tenfac.adapters.updates.pieces import DenseFactor, FullCore
from tenfac.adapters.updates.ranks import resolve
from tenfac.adapters.updates.structure import structure_of
from tenfac.adapters.updates.update import Term, Update
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError

_GEOMETRY = ("stride", "padding", "dilation", "groups", "padding_mode", "output_padding", "padding_idx")


@door
def compensate(
    layer: nn.Module,
    quantized: nn.Module,
    rank: int,
    inputs: Tensor | Iterable[Tensor] | None = None,
    *,
    bias_correction: bool = True,
    name: str = "compensation",
) -> nn.Module:
    """Adapt a layer of rounded weight by the best low-rank update back to the original.

    ``W_q + U V`` with ``U V`` the best rank-R answer to ``W - W_q`` in the metric of the inputs (EoRA [1]_).

    Parameters
    ----------
    layer : Linear, Embedding, Conv1d-3d or ConvTranspose1d-3d
        The original; left as it is.
    quantized : layer of the same type and shape
        Its floating-point weight is the rounded one. Adapted in place, as by ``tenfac.tucker_adapter``.
    rank : int
        Of the update.
    inputs : tensor or iterable of tensors, optional
        Inputs of the layer, in batches. Without them the update is the SVD of what was lost.
    bias_correction : bool
        Also move the bias of ``quantized`` (made if there is none) so that the mean output on ``inputs`` is
        the original's.
    name : str
        Of the update.

    Returns
    -------
    module
        ``quantized``.

    Raises
    ------
    ShapeError, TypeError
        If the two layers differ in type, shape or geometry, or the type is not of those above.
    RankError, DataError
        As ``compress``.
    DataError
        If the name is taken or cannot be one, the layer is merged, or a convolution with ``inputs`` has
        groups.

    References
    ----------
    .. [1] S.-Y. Liu et al., EoRA: fine-tuning-free compensation for compressed LLM with eigenspace low-rank
       approximation, 2024. arXiv:2410.21271

    Examples
    --------
    >>> import torch
    >>> layer, rounded = torch.nn.Linear(32, 32), torch.nn.Linear(32, 32)
    >>> rounded.load_state_dict({k: (v * 8).round() / 8 for k, v in layer.state_dict().items()})
    <All keys matched successfully>
    >>> compensate(layer, rounded, rank=8).tenfac
    Adapters(compensation: weight (8, 32), 512 trainable numbers; on)
    """
    where = "compensate"
    _check_pair(layer, quantized, name, where)
    xs = [] if inputs is None else batches(inputs, layer, where)
    layout = layout_of(quantized, "weight")
    if layout.groups > 1 and xs:
        raise DataError(
            f"{where}: the groups of a convolution see different inputs, and one update for all of them is "
            f"not solved in their metrics; got groups={layout.groups}. Leave `inputs` out (plain SVD)."
        )
    structure = structure_of("lora", where)
    ranks = resolve(layout, structure, quantized.weight, rank=rank, where=where)
    centered = bias_correction and bool(xs) and not isinstance(layer, nn.Embedding)
    wide = torch.promote_types(layer.weight.dtype, torch.float32)
    with torch.no_grad():
        lost = layer.weight.detach().to(wide) - quantized.weight.detach().to(wide)
        moment = output_moments(layer, lost, xs, centered)[0] if xs else None
        out, core = low_rank(
            lost.movedim(layout.out, 0), ranks[layout.out] or layout.shape[layout.out], moment=moment
        )
    kind = torch.promote_types(quantized.weight.dtype, torch.float32)
    term = Term(
        FullCore(core.movedim(0, layout.out).to(kind).contiguous()),
        {layout.out: DenseFactor(out.to(kind).contiguous())},
    )
    recipe = {"structure": "lora", "init": "compensation", "scale": 1.0}
    adapters = attach(quantized, (Slot("weight", "weight"),), "auto")
    adapters.named[name] = nn.ModuleDict({"weight": Update([term], layout, recipe)})
    adapters.train(quantized.training)
    adapters.active[name] = 1.0
    if centered:
        if quantized.bias is None:
            zeros = quantized.weight.new_zeros(layout.shape[layout.out])  # one group, or there are no inputs
            quantized.bias = nn.Parameter(zeros, requires_grad=False)
        move_bias(quantized, lambda x: layer(x) - quantized(x), xs)
    return quantized


def _check_pair(layer: nn.Module, quantized: nn.Module, name: str, where: str) -> None:
    check_layer(layer, where)
    check_layer(quantized, where)
    same = isinstance(quantized, type(layer)) or isinstance(layer, type(quantized))
    if not same or layer.weight.shape != quantized.weight.shape:
        raise ShapeError(
            f"{where}: both layers must have one type and shape; got {type(layer).__name__} "
            f"{tuple(layer.weight.shape)} and {type(quantized).__name__} {tuple(quantized.weight.shape)}."
        )
    differ = [key for key in _GEOMETRY if getattr(layer, key, None) != getattr(quantized, key, None)]
    if differ:
        key = differ[0]
        raise ShapeError(
            f"{where}: both layers must compute alike; got {key}={getattr(layer, key)!r} and "
            f"{getattr(quantized, key)!r}."
        )
    check_name(name, where)
    if isinstance(quantized, Adapted) and quantized.tenfac.merged:
        raise DataError(f"{where}: the layer must not be merged; call tenfac.unmerge(model) first.")
    if isinstance(quantized, Adapted) and name in quantized.tenfac.named:
        raise DataError(f"{where}: the layer already has an update named {name!r}; give another `name`.")
