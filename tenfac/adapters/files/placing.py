"""What every adapter file shares: the updates of a model, and updates that were read put on its layers."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfac.adapters.beside import noted
from tenfac.adapters.checks import check_max_norm, check_name
from tenfac.adapters.layer import Adapted, Adapters, Slot, adapted_layers, attach
from tenfac.adapters.updates.update import Update
from tenfac.core.errors import DataError


@dataclass(frozen=True)
class Placement:
    """An update and its place in a model, where it is or is to be."""

    module: str
    layer: nn.Module
    slot: Slot
    update: Update
    path: str = "auto"


def trained_beside(model: nn.Module, name: str, where: str) -> dict[str, Tensor]:
    """What was trained beside an adapter, by name."""
    found = {label: beside.value for label, beside in noted(unwrap(model), name)}
    for label, value in found.items():
        if value.is_meta:
            raise DataError(
                f"{where}: {label!r} must have numbers; it is on the meta device. Load them first."
            )
    return found


def updates_of(model: nn.Module, name: str, where: str) -> list[Placement]:
    """Every update of one adapter of a model; refused where it is merged, or there is none."""
    layers = list(adapted_layers(unwrap(model)))
    for module, layer in layers:
        if layer.tenfac.merged:
            raise DataError(f"{where}: {module or 'the layer'} is merged; call unmerge(model) first.")
    found = [
        Placement(module, layer, slot, layer.tenfac.named[name][slot.name], layer.tenfac.path)
        for module, layer in layers
        for slot in layer.tenfac.slots
        if name in layer.tenfac.named and slot.name in layer.tenfac.named[name]
    ]
    if not found:
        names = sorted({key for _, layer in layers for key in layer.tenfac.named})
        has = f"it has {', '.join(map(repr, names))}" if names else "it has none; adapt it first"
        raise DataError(f"{where}: the model must have an adapter named {name!r}; {has}.")
    if any(p.is_meta for one in found for p in one.update.parameters()):
        raise DataError(f"{where}: the adapter must have numbers; it is on the meta device. Load them first.")
    return found


def refuse_place(model: nn.Module, name: Any, where: str) -> None:
    """Refuse to put an adapter on a model that is merged or has one of this name."""
    check_name(name, where)
    for module, layer in adapted_layers(unwrap(model)):
        at = module or "the layer"
        if layer.tenfac.merged:
            raise DataError(f"{where}: {at} is merged; call unmerge(model) first.")
        if name in layer.tenfac.named:
            raise DataError(
                f"{where}: {at} already has an adapter named {name!r}; give another `name`, or detach it "
                "first."
            )


def place(plans: Iterable[Placement], name: str, activate: bool, where: str) -> None:
    """Put updates on their layers, after every one was found to be possible."""
    plans = list(plans)
    for plan in plans:
        check_max_norm(plan.layer, f"{where}: {plan.module or 'the layer'}")
    for plan in plans:
        weight = plan.layer._parameters[plan.slot.parameter]
        adapters: Adapters = attach(plan.layer, (plan.slot,), plan.path)
        if name not in adapters.named:
            adapters.named[name] = nn.ModuleDict()
        adapters.named[name][plan.slot.name] = plan.update.to("cpu" if weight.is_meta else weight.device)
        adapters.train(plan.layer.training)
        if activate:
            adapters.active.setdefault(name, 1.0)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside of ``torch.compile`` and of data-parallel wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif "_orig_mod" in model._modules:
            model = model._modules["_orig_mod"]
        else:
            return model


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """The model's own modules by name, tenfac's left out; a shared one under each of its names."""
    named = unwrap(model).named_modules(remove_duplicate=False)
    return {name: module for name, module in named if "tenfac" not in name.split(".")}


def near(module: str, modules: Mapping[str, nn.Module]) -> str:
    """Names like the one not found, for a message."""
    close = difflib.get_close_matches(module, modules, n=3)
    return f" (near: {', '.join(close)})" if close else ""


def layer_type(layer: nn.Module) -> str:
    """The class of torch that a layer is, or its own where it is none."""
    own = type(layer)._made_of[0] if isinstance(layer, Adapted) else type(layer)
    torch_own = (kind for kind in own.__mro__ if kind.__module__.startswith("torch.nn.modules."))
    kind = next(torch_own, nn.Module)
    return (own if kind is nn.Module else kind).__name__


def fingerprint(weight: Tensor) -> str:
    """SHA-256 of a weight's raw bytes, in C order."""
    raw = weight.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(raw).hexdigest()
