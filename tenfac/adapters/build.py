"""``tucker_adapter``: one layer adapted. What is asked is checked whole before the layer is touched."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.arrays import generator
from ..core.errors import DataError
from .init import INITS, draw_core, draw_factors
from .layer import Adapted, Slot, attach, is_stock
from .layout import Layout, layout_of
from .pieces import DenseFactor, FullCore
from .ranks import Ranks, core_shape, count, resolve
from .structure import Structure, structure_of
from .update import Term, Update

PATHS = ("auto", "factored", "fused")


@dataclass(frozen=True)
class Plan:
    """One update to be made: where, of what structure and size. Nothing is touched yet."""

    layer: nn.Module
    slot: Slot
    layout: Layout
    structure: Structure
    ranks: Ranks
    init: str
    scale: float

    @property
    def weight(self) -> Tensor:
        """The weight, or the block of its rows, that is updated."""
        return self.slot.of(self.layer._parameters[self.slot.parameter])

    @property
    def n_parameters(self) -> int:
        """Numbers the update learns."""
        return count(self.layout, self.structure, self.ranks)


def tucker_adapter(
    layer: nn.Module,
    rank: Any = None,
    *,
    budget: int | None = None,
    energy: float | None = None,
    modes: Iterable[int] | None = None,
    structure: str | Structure = "tucker",
    init: str | None = None,
    scale: float = 1.0,
    path: str = "auto",
    data: Tensor | None = None,
    parameter: str | None = None,
    name: str = "default",
    dtype: torch.dtype | None = None,
    random_state: Any = 0,
) -> nn.Module:
    """Adapt one layer in place: ``W + scale * G x_0 U_0 x_1 U_1 ...`` with ``W`` frozen."""
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
    rng = torch_generator(random_state)
    for plan in plans:
        install(plan, name, path, data, dtype, rng)
    return layer


def plan_layer(
    layer: nn.Module,
    rank: Any = None,
    *,
    structure: str | Structure,
    init: str | None,
    scale: float,
    **how: Any,
) -> list[Plan]:
    """What adapting a layer would do: one plan per weight."""
    parameter, where = how.pop("parameter", None), how.pop("where", "tucker_adapter")
    chosen = structure_of(structure, where)
    init = chosen.init if init is None else init
    if init not in INITS:
        raise ValueError(f"{where}: `init` must be one of {', '.join(INITS)}; got {init!r}.")
    plans = []
    for owner, slot in slots_of(layer, parameter, where):
        weight = slot.of(owner._parameters[slot.parameter])
        layout = layout_of(owner, slot.parameter, tuple(weight.shape))
        ranks = resolve(layout, chosen, weight, rank=rank, where=where, **how)
        plans.append(Plan(owner, slot, layout, chosen, ranks, init, float(scale)))
    return plans


def slots_of(layer: nn.Module, parameter: str | None, where: str) -> list[tuple[nn.Module, Slot]]:
    """The weights of a layer, each with the module that holds it."""
    if isinstance(layer, nn.MultiheadAttention) and parameter is None:
        return [
            *((layer, slot) for slot in _attention_slots(layer)),
            (layer.out_proj, Slot("weight", "weight")),
        ]
    parameter = "weight" if parameter is None else parameter
    weight = layer._parameters.get(parameter)
    if parameter in getattr(layer, "parametrizations", ()) or _is_computed(layer, parameter):
        raise ValueError(
            f"{where}: {parameter!r} of {type(layer).__name__} is computed from other parameters (weight or "
            "spectral norm, pruning), not one itself; undo that first, with torch.nn.utils.parametrize."
            "remove_parametrizations, remove_weight_norm, remove_spectral_norm or prune.remove."
        )
    if isinstance(weight, nn.parameter.UninitializedParameter):
        raise DataError(
            f"{where}: {parameter!r} of {type(layer).__name__} has no shape yet; pass one input through the "
            "layer first."
        )
    if weight is None:
        own = [key for key, value in layer._parameters.items() if value is not None and value.ndim > 1]
        raise ValueError(
            f"{where}: {type(layer).__name__} has no parameter {parameter!r} to adapt. Name one with "
            f"`parameter=`{': ' + ', '.join(own) if own else ', or give a layer that has a weight'}."
        )
    if weight.ndim < 2 or not weight.is_floating_point():
        raise DataError(
            f"{where}: {parameter!r} must be a floating-point weight of 2 or more modes; got shape "
            f"{tuple(weight.shape)}, {weight.dtype}."
        )
    return [(layer, Slot(parameter, parameter))]


def _is_computed(layer: nn.Module, parameter: str) -> bool:
    """Whether a hook of weight norm, spectral norm or pruning makes the parameter, the older way."""
    return any(f"{parameter}_{end}" in layer._parameters for end in ("orig", "g"))


def _attention_slots(layer: nn.MultiheadAttention) -> list[Slot]:
    if layer.in_proj_weight is None:
        return [Slot(name, f"{name}_proj_weight") for name in "qkv"]
    size = layer.embed_dim
    return [Slot(name, "in_proj_weight", (i * size, (i + 1) * size)) for i, name in enumerate("qkv")]


def check_place(plan: Plan, name: str, path: str, data: Any, where: str = "tucker_adapter") -> None:
    """Refuse what cannot be done at this place."""
    layer = plan.layer
    if path not in PATHS:
        raise ValueError(f"{where}: `path` must be one of {', '.join(PATHS)}; got {path!r}.")
    _check_path(plan, path, where)
    if isinstance(layer, Adapted) and layer.tenfac.merged:
        raise ValueError(f"{where}: the layer is merged; call unmerge() before adding an update.")
    named = layer.tenfac.named if isinstance(layer, Adapted) else {}
    if name in named and plan.slot.name in named[name]:
        raise ValueError(
            f"{where}: the layer already has an update named {name!r}; give another `name`, or detach it "
            "first."
        )
    if plan.init == "gradient" and data is None:
        raise ValueError(f"{where}: init='gradient' needs `data`, the gradient of the loss in the weight.")
    if getattr(layer, "max_norm", None) is not None:
        raise ValueError(
            f"{where}: an Embedding with max_norm rewrites its frozen weight; use max_norm=None."
        )


def _check_path(plan: Plan, path: str, where: str) -> None:
    """Refuse a path that the place does not have."""
    layer, stock = plan.layer, plan.slot.name == "weight" and is_stock(plan.layer)
    if path == "factored" and not stock:
        why = "its forward is not torch's own" if plan.slot.name == "weight" else "it is not a layer's weight"
        raise ValueError(
            f"{where}: path='factored' needs a torch layer whose forward pass is known; "
            f"{plan.slot.parameter!r} of {type(layer).__name__} can only be fused: {why}. Use path='auto'."
        )
    if getattr(layer, "sparse", False) and (path == "fused" or not stock):
        raise ValueError(
            f"{where}: a {type(layer).__name__} with sparse=True has no fused weight to give a sparse "
            "gradient; use sparse=False, or path='auto' on an Embedding without scale_grad_by_freq."
        )


def install(
    plan: Plan, name: str, path: str, data: Tensor | None, dtype: torch.dtype | None, rng: torch.Generator
) -> None:
    """Build the update of a plan and attach it, acting with weight 1."""
    update = build_update(plan, data, dtype, rng)
    adapters = attach(plan.layer, (plan.slot,), path)
    if name not in adapters.named:
        adapters.named[name] = nn.ModuleDict()
    adapters.named[name][plan.slot.name] = update
    adapters.active.setdefault(name, 1.0)


def build_update(plan: Plan, data: Tensor | None, dtype: torch.dtype | None, rng: torch.Generator) -> Update:
    """The update of a plan, at no change."""
    weight, layout = plan.weight, plan.layout
    dtype = torch.promote_types(weight.dtype, torch.float32) if dtype is None else dtype
    source = data if plan.init == "gradient" else weight
    factors = draw_factors(plan.init, layout, plan.ranks, source, rng, dtype)
    core = draw_core(plan.init, layout, plan.ranks, factors, weight, rng).to(dtype)
    _clear_padding(plan, factors, core)
    terms = [_term(core, factors, plan.scale)]
    if plan.init == "principal":
        _warn_principal()
        terms.append(_term(core.clone(), {n: f.clone() for n, f in factors.items()}, -plan.scale))
        terms[1].requires_grad_(False)
    recipe = {"init": plan.init, "scale": plan.scale, "rank": core_shape(layout, plan.ranks)}
    return Update(terms, layout, recipe)


def _term(core: Tensor, factors: dict[int, Tensor], scale: float) -> Term:
    return Term(FullCore(core), {n: DenseFactor(factor) for n, factor in factors.items()}, scale)


def _clear_padding(plan: Plan, factors: dict[int, Tensor], core: Tensor) -> None:
    """The padding row of an Embedding stays as it is: the row looked up is zero and gets no gradient."""
    index = getattr(plan.layer, "padding_idx", None)
    if plan.layout.kind == "embedding" and index is not None:
        factors.get(plan.layout.into, core)[index] = 0


def _warn_principal() -> None:
    warnings.warn(
        "init='principal' trains the leading part of the weight itself; it measured 5 to 10 points of "
        "accuracy worse than 'orthonormal' on small convolutional nets.",
        UserWarning,
        stacklevel=5,
    )


def torch_generator(random_state: Any) -> torch.Generator:
    """A torch generator on the CPU from an int, a numpy generator or None."""
    rng = torch.Generator()
    rng.manual_seed(int(generator(random_state).integers(2**62)))
    return rng
