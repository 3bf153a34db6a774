"""``tucker_adapter``: one layer adapted. What is asked is checked whole before the layer is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tenfac.adapters.checks import (
    PATHS,
    check_gradient,
    check_max_norm,
    check_name,
    check_scale,
    check_source,
    check_target,
)
from tenfac.adapters.layer import Adapted, Slot, attach, is_stock
from tenfac.adapters.updates.init import FROM_WEIGHT, INITS, OF_CORE, Start, draw_terms
from tenfac.adapters.updates.layout import Layout, layout_of
from tenfac.adapters.updates.ranks import Ranks, core_shape, count, resolve
from tenfac.adapters.updates.structure import Structure, structure_for, structure_of
from tenfac.adapters.updates.update import Update
from tenfac.core.arrays import generator
from tenfac.core.door import door
from tenfac.core.errors import DataError, check_option, warn_user

ATTENTION = ("q", "k", "v", "out_proj")  # the weights of nn.MultiheadAttention


Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class Plan:
    """One update to be made: where, of what structure and size. Nothing is touched yet.

    ``key`` names the weight in ``data``: ``"weight"``, a raw parameter's name, or ``"q"``, ``"k"``, ``"v"``,
    ``"out_proj"`` of attention.
    """

    layer: nn.Module
    slot: Slot
    layout: Layout
    structure: Structure
    ranks: Ranks
    init: str
    scale: float
    key: str = "weight"
    preset: str | None = None

    @property
    def weight(self) -> Tensor:
        """The weight, or the block of its rows, that is updated."""
        return self.slot.of(self.layer._parameters[self.slot.parameter])

    @property
    def n_parameters(self) -> int:
        """Numbers the update learns."""
        return count(self.layout, self.structure, self.ranks)


@door
def tucker_adapter(
    layer: Layer,
    rank: Any = None,
    *,
    budget: int | None = None,
    energy: float | None = None,
    modes: Iterable[int] | None = None,
    structure: str | Structure = "tucker",
    init: str | None = None,
    scale: float = 1.0,
    path: str = "auto",
    data: Tensor | Mapping[str, Tensor] | None = None,
    parameter: str | None = None,
    name: str = "default",
    dtype: torch.dtype | None = None,
    random_state: Any = 0,
) -> Layer:
    """Adapt one layer in place: ``W + scale * G x_0 U_0 x_1 U_1 ...`` with ``W`` frozen.

    ``G`` is a small core, ``U_n`` a factor ``(I_n, R_n)`` of mode n of the weight as the layer stores it. The
    update starts at zero, so the layer computes what it did.

    Parameters
    ----------
    layer : torch.nn.Module
        Linear, Conv1d to Conv3d, ConvTranspose1d to 3d, Embedding or MultiheadAttention (its q, k, v and
        output weights), with any geometry, groups and padding; or any module, by ``parameter``.
    rank : int or sequence of int or None, optional
        An int is the rank of the output and the input mode; the kernel stays whole. A sequence has one entry
        per storage mode, ``(out, in/groups, *kernel)`` for a convolution; None leaves a mode whole. With none
        of ``rank``, ``budget`` and ``energy``: the largest up to 8 that needs at most half as many numbers as
        the weight.
    budget : int, optional
        The largest update with at most so many learned numbers.
    energy : float, optional
        The smallest ranks at which the HOSVD of the weight keeps this share of its squared norm.
    modes : iterable of int, optional
        Storage modes that get factors, instead of the structure's own.
    structure : str or Structure
        A published method, see ``tenfac.adapters.updates.structure`` for the table: ``"tucker"``,
        ``"flora"``, ``"lora"``, ``"locon"``, ``"lokr"``, ``"pissa"``, ``"svfit"``, ``"loldu"``,
        ``"randlora"``, ``"s2ft"``; or a ``Structure``.
    init : str, optional
        The factors' start; the structure's own if not given. ``"orthonormal"`` (random), ``"weight"`` and
        ``"weight-minor"`` (leading and trailing HOSVD factors of the weight), ``"gradient"`` (of ``data``),
        ``"flora"`` (normal, as FLoRA's code), ``"lora"`` (output factor zero), ``"lu"``; all with zero
        change. ``"principal"`` trains the leading part of the weight itself, and warns.
    scale : float
        Fixed multiplier of the update; nothing is divided by the rank.
    path : {"auto", "factored", "fused"}
        How the layer computes: in factors, with the dense ``W + update``, or whichever costs less.
    data : tensor, or mapping of str to tensor, optional
        For ``init="gradient"``: the gradient of a loss in the weight, of its shape. Attention takes one per
        weight, ``{"q": ..., "k": ..., "v": ..., "out_proj": ...}``.
    parameter : str, optional
        Raw parameter to adapt, of 2 or more modes: the last two are output and input, the first ones a stack
        (of experts) that stays whole.
    name : str
        Of the adapter; one layer can have several.
    dtype : torch.dtype, optional
        Of factors and core: that of the weight, at least float32, if not given.
    random_state : int, numpy Generator or None
        Of what is drawn. The global generators are left as they are.

    Returns
    -------
    torch.nn.Module
        ``layer`` itself, of a subclass of its class, its own parameters frozen, ``layer.weight`` the
        effective weight. The keys of its state dict stay; those of the update begin with
        ``tenfac.named.NAME``.

    Raises
    ------
    RankError
        If a rank exceeds its mode, the update is as large as the weight, or the budget too small.
    DataError
        If the weight is not a dense real floating-point array, or holds NaN where ``init`` reads it; if
        ``data`` does not fit it. If there is no such parameter, structure, init or path, the name is
        taken or cannot be one, or the layer is merged. Nothing has changed then.

    Warns
    -----
    UserWarning
        If ``init="principal"``: it measured worse than a zero update.

    Notes
    -----
    Numbers learned: ``prod(R) + sum I_n R_n`` over modes with factors. Drawing costs a QR of each factor;
    ``"weight"``, ``"gradient"`` and ``"principal"`` cost an eigendecomposition per mode, or a sketch above
    1024 (4096 x 4096 at rank 8: under a second); ``"weight-minor"`` and ``energy`` always the first, about
    half a minute at 4096 on one core. A layer on the meta device gets updates on it: ``to_empty``, then load.

    The update is not divided by the rank or multiplied by an ``alpha`` as in LoRA: there is one ``scale``.

    References
    ----------
    .. [1] C. Si et al., FLoRA: Low-Rank Core Space for N-dimension, 2024, the update
       ``G x_1 A^(1) x_2 ... x_N A^(N)``. arXiv:2405.14739
    .. [2] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       4. doi:10.1137/07070111X

    Examples
    --------
    >>> import torch
    >>> conv = torch.nn.Conv2d(256, 256, 3, padding=1)
    >>> x = torch.ones(1, 256, 5, 5)
    >>> before = conv(x)
    >>> layer = tucker_adapter(conv, rank=8)
    >>> layer is conv, isinstance(conv, torch.nn.Conv2d), bool((conv(x) == before).all())
    (True, True, True)
    >>> sum(p.numel() for p in conv.parameters() if p.requires_grad)
    4672
    >>> conv.tenfac.named["default"]["weight"]
    Update(shape=(256, 256, 3, 3), rank=(8, 8, 3, 3), 4672 trainable numbers)

    One rank per storage mode, and another method:

    >>> conv = tucker_adapter(torch.nn.Conv2d(16, 32, 3), rank=(4, None, 2, 2))
    >>> conv.tenfac.named["default"]["weight"].rank
    (4, 16, 2, 2)
    >>> linear = tucker_adapter(torch.nn.Linear(64, 64), rank=16, structure="svfit")
    >>> sum(p.numel() for p in linear.parameters() if p.requires_grad)
    16
    """
    check_dtype(dtype, "tucker_adapter")
    rng = torch_generator(random_state)
    plans = plan_layer(
        layer,
        rank,
        budget=budget,
        energy=energy,
        modes=modes,
        structure=structure,
        init=init,
        scale=scale,
        parameter=parameter,
    )
    for plan in plans:
        check_place(plan, name, path, data)
        check_data(plan, data)
    for plan, update in zip(plans, _built(plans, data, dtype, rng), strict=True):
        _put(plan, update, name, path)
    return layer


def _built(plans: list[Plan], data: Any, dtype: torch.dtype | None, rng: torch.Generator) -> list[Update]:
    """The updates of all plans, before any is attached: one that fails leaves the layer as it was."""
    updates = []
    for plan in plans:
        updates.append(
            build_update(plan, data, dtype, rng)
        )  # a loop: the warning of "principal" counts frames
    return updates


def plan_layer(
    layer: Layer,
    rank: Any = None,
    *,
    structure: str | Structure,
    init: str | None,
    scale: float,
    **how: Any,
) -> list[Plan]:
    """What adapting a layer would do: one plan per weight."""
    parameter, where = how.pop("parameter", None), how.pop("where", "tucker_adapter")
    structure_of(structure, where)
    check_scale(scale, where)
    preset = structure if isinstance(structure, str) else None
    plans = []
    for owner, slot in slots_of(layer, parameter, where):
        weight = slot.of(owner._parameters[slot.parameter])
        layout = layout_of(owner, slot.parameter, tuple(weight.shape))
        chosen = structure_for(structure, layout, where)
        start = _checked_init(chosen, init, where)
        key = slot.name if owner is layer else "out_proj"
        label = f"{where}: weight {key!r}" if key in ATTENTION else where
        ranks = resolve(layout, chosen, weight, rank=rank, where=label, **how)
        plans.append(Plan(owner, slot, layout, chosen, ranks, start, float(scale), key, preset))
    return plans


def _checked_init(structure: Structure, init: str | None, where: str) -> str:
    init = structure.init if init is None else init
    check_option(init, INITS, where, "init")
    allowed = OF_CORE[structure.core]
    if init not in allowed:
        raise DataError(
            f"{where}: `init` must be one of {', '.join(allowed)} for a structure with a {structure.core} "
            f"core; got {init!r}."
        )
    return init


def slots_of(layer: nn.Module, parameter: str | None, where: str) -> list[tuple[nn.Module, Slot]]:
    """The weights of a layer, each with the module that holds it."""
    if isinstance(layer, nn.MultiheadAttention) and parameter is None:
        slots = [(layer, slot) for slot in _attention_slots(layer)]
        slots.append((layer.out_proj, Slot("weight", "weight")))
    else:
        parameter = "weight" if parameter is None else parameter
        slots = [(layer, Slot(_slot_name(parameter), parameter))]
    for owner, slot in slots:
        check_target(owner, slot.parameter, where)
    return slots


def _slot_name(parameter: str) -> str:
    """A parameter's name, changed where a ModuleDict has an attribute of that name (``"keys"``)."""
    return f"{parameter}_" if hasattr(nn.ModuleDict, str(parameter)) else parameter


def _attention_slots(layer: nn.MultiheadAttention) -> list[Slot]:
    if layer.in_proj_weight is None and not isinstance(layer, Adapted):
        return [Slot(name, f"{name}_proj_weight") for name in "qkv"]
    if layer._parameters.get("in_proj_weight") is None:
        return [Slot(name, f"{name}_proj_weight") for name in "qkv"]
    size = layer.embed_dim
    return [Slot(name, "in_proj_weight", (i * size, (i + 1) * size)) for i, name in enumerate("qkv")]


def check_dtype(dtype: Any, where: str) -> None:
    """Refuse a dtype that factors cannot have."""
    if dtype is not None and dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        raise DataError(f"{where}: `dtype` must be a floating-point torch dtype or None; got {dtype!r}.")


def check_place(plan: Plan, name: str, path: str, data: Any, where: str = "tucker_adapter") -> None:
    """Refuse what cannot be done at this place."""
    layer = plan.layer
    check_name(name, where)
    check_option(path, PATHS, where, "path")
    _check_path(plan, path, where)
    if isinstance(layer, Adapted) and layer.tenfac.merged:
        raise DataError(f"{where}: the layer must not be merged; call tenfac.unmerge(model) first.")
    taken = layer.tenfac.named if isinstance(layer, Adapted) else {}
    if name in taken and plan.slot.name in taken[name]:
        raise DataError(
            f"{where}: an adapter's name must be new to the layer; it already has an update named {name!r}. "
            "Give another `name`, or detach that one first."
        )
    check_max_norm(layer, where)
    if plan.structure.core == "kronecker" and _padding(plan) is not None:
        raise DataError(
            f"{where}: an Embedding with a padding_idx must have a structure that can leave that row "
            'alone; got a Kronecker core. Use structure="tucker", or padding_idx=None.'
        )
    if plan.init == "gradient" and data is None:
        raise DataError(f"{where}: init='gradient' needs `data`, the gradient of the loss in the weight.")
    if plan.init in FROM_WEIGHT:
        check_source(plan.weight, plan.key, plan.init, where)


def check_data(plan: Plan, data: Any, where: str = "tucker_adapter") -> None:
    """Refuse data that holds no gradient of a plan's weight."""
    if plan.init != "gradient":
        return
    if isinstance(data, Mapping):
        if plan.key not in data:
            raise DataError(f"{where}: `data` must have a gradient for {plan.key!r}; got {sorted(data)}.")
    elif plan.key in ATTENTION:
        raise DataError(
            f"{where}: `data` must map each weight of attention (q, k, v, out_proj) to its gradient; got "
            f"{type(data).__name__}."
        )
    check_gradient(gradient_of(plan, data), plan.key, plan.layout.shape, where)


def gradient_of(plan: Plan, data: Any) -> Any:
    """The gradient that is meant for a plan's weight."""
    return data[plan.key] if isinstance(data, Mapping) else data


def _check_path(plan: Plan, path: str, where: str) -> None:
    """Refuse a path that the place does not have."""
    layer, stock = plan.layer, plan.slot.name == "weight" and is_stock(plan.layer)
    if path == "factored" and not stock:
        why = "its forward is not torch's own" if plan.slot.name == "weight" else "it is not a layer's weight"
        raise DataError(
            f"{where}: path='factored' needs a torch layer whose forward pass is known; "
            f"{plan.slot.parameter!r} of {type(layer).__name__} can only be fused: {why}. Use path='auto'."
        )
    if getattr(layer, "sparse", False) and (path == "fused" or not stock):
        raise DataError(
            f"{where}: a {type(layer).__name__} with sparse=True has no fused weight to give a sparse "
            "gradient; use sparse=False, or path='auto' on an Embedding without scale_grad_by_freq."
        )


def install(
    plan: Plan, name: str, path: str, data: Any, dtype: torch.dtype | None, rng: torch.Generator
) -> None:
    """Build the update of a plan and attach it, acting with weight 1."""
    _put(plan, build_update(plan, data, dtype, rng), name, path)


def _put(plan: Plan, update: Update, name: str, path: str) -> None:
    adapters = attach(plan.layer, (plan.slot,), path)
    if name not in adapters.named:
        adapters.named[name] = nn.ModuleDict()
    adapters.named[name][plan.slot.name] = update
    adapters.train(plan.layer.training)
    adapters.active.setdefault(name, 1.0)


def build_update(plan: Plan, data: Any, dtype: torch.dtype | None, rng: torch.Generator) -> Update:
    """The update of a plan, at no change."""
    weight = plan.weight
    dtype = torch.promote_types(weight.dtype, torch.float32) if dtype is None else dtype
    source = weight
    if plan.init == "gradient" and not weight.is_meta:
        source = gradient_of(plan, data).to(weight.device)
    start = Start(
        plan.init, plan.layout, plan.structure, plan.ranks, plan.scale, source, _padding(plan), dtype, rng
    )
    if plan.init == "principal":
        _warn_principal()
    recipe = {
        "structure": asdict(plan.structure) if plan.preset is None else plan.preset,
        "init": plan.init,
        "scale": plan.scale,
        "rank": core_shape(plan.layout, plan.ranks),
    }
    return Update(draw_terms(start), plan.layout, recipe)


def _padding(plan: Plan) -> int | None:
    """Row of an Embedding that stays as it is: of the update it is zero and gets no gradient."""
    return getattr(plan.layer, "padding_idx", None) if plan.layout.kind == "embedding" else None


def _warn_principal() -> None:
    warn_user(
        "init='principal' trains the leading part of the weight itself; it measured 5 to 10 points of "
        "accuracy worse than 'orthonormal' on small convolutional nets.",
        UserWarning,
    )


def torch_generator(random_state: Any) -> torch.Generator:
    """A torch generator on the CPU from an int, a numpy generator or None."""
    rng = torch.Generator()
    rng.manual_seed(int(generator(random_state).integers(2**62)))
    return rng
