"""What trains beside an adapter (a new head, biases): noted on its layers, so that files can carry it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tenfac.adapters.layer import Adapted
from tenfac.core.errors import warn_user

NOTE = "tenfac_trained"  # attribute of a layer: {adapter: names of its parameters and buffers}


class Beside(NamedTuple):
    """A parameter or buffer of a layer that belongs to an adapter, though it is the model's own."""

    layer: nn.Module
    key: str

    @property
    def value(self) -> Any:
        """The tensor, or None if the layer has none of that name."""
        own = {**self.layer._parameters, **self.layer._buffers}
        return own.get(self.key)


def note(found: Iterable[Beside], name: str) -> None:
    """Note what trains beside the adapter ``name``."""
    for layer, key in found:
        notes = dict(vars(layer).get(NOTE, {}))
        if key not in notes.get(name, ()):
            notes[name] = (*notes.get(name, ()), key)
        setattr(layer, NOTE, notes)


def forget(model: nn.Module, name: str | None) -> None:
    """Take the notes of one adapter, or all, off the layers of a model."""
    for layer in model.modules():
        notes = dict(vars(layer).get(NOTE, {}))
        notes.pop(name, None)
        if name is None or not notes:
            vars(layer).pop(NOTE, None)
        else:
            setattr(layer, NOTE, notes)


def noted(model: nn.Module, name: str | None = None) -> Iterator[tuple[str, Beside]]:
    """What trains beside one adapter, or any, with its name in the state dict."""
    for module, layer in model.named_modules():
        notes = vars(layer).get(NOTE, {})
        keys = dict.fromkeys(k for own, found in notes.items() if name in (None, own) for k in found)
        for key in keys:
            if Beside(layer, key).value is not None:
                yield f"{module}.{key}" if module else key, Beside(layer, key)


def whole_modules(model: nn.Module, name: str) -> dict[str, nn.Module]:
    """The outermost modules without adapters that hold what trained beside one, by name."""
    owners = {label.rpartition(".")[0]: beside.layer for label, beside in noted(model, name)}
    return {
        at: layer
        for at, layer in owners.items()
        if at and not any(isinstance(part, Adapted) for part in layer.modules())
        if not any(at.startswith(f"{other}.") for other in owners)
    }


def warn_left_out(model: nn.Module, name: str, where: str, held: Iterable[str] = ()) -> None:
    """Warn that a file of another library's format does not hold all that trained beside an adapter."""
    inside = tuple(f"{at}." for at in held)
    labels = [label for label, _ in noted(model, name) if not label.startswith(inside)]
    if labels:
        some = ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "")
        warn_user(
            f"{where}: what was trained beside the adapter is not in the file ({some}). Save it yourself, or "
            "use tenfac.save_adapter, which writes it too.",
            UserWarning,
        )


def still_trained(model: nn.Module) -> list[Beside]:
    """What was noted for adapters before and trains on."""
    return [b for _, b in noted(model) if b.value.requires_grad or b.key in b.layer._buffers]


def find(
    label: str, value: Tensor, modules: Mapping[str, nn.Module], problems: list[str]
) -> tuple[Beside, Tensor] | None:
    """Where a value from a file is to be put, or None and what is wrong with it."""
    module, _, key = label.rpartition(".")
    here = Beside(modules[module], key) if module in modules else None
    own = None if here is None else here.value
    problem = None
    if here is None or own is None:
        problem = f"there is no parameter or buffer {label!r}, which was trained beside the adapter"
    elif own.shape != value.shape:
        problem = f"{label!r} has shape {tuple(own.shape)}, where the file has {tuple(value.shape)}"
    elif own.is_meta:
        problem = f"{label!r} must have numbers to be replaced, it is on the meta device"
    elif _is_adapted(here):
        problem = f"{label!r} has an adapter, where the file has it trained itself"
    elif vars(here.layer).get(NOTE) and _is_noted(here) and not torch.equal(own.cpu(), value.to(own.dtype)):
        problem = (
            f"{label!r} was trained beside another adapter, and cannot be both (load_adapter(..., "
            "also_trained=False) keeps the model's own)"
        )
    if problem:
        problems.append(problem)
        return None
    return here, value  # type: ignore[return-value]


@torch.no_grad()
def put(found: Iterable[tuple[Beside, Tensor]], name: str) -> None:
    """Write values from a file into the model, to be trained on."""
    for here, value in found:
        here.value.copy_(value)
        if here.key in here.layer._parameters:
            here.layer._parameters[here.key].requires_grad_(True)
        note([here], name)


def _is_adapted(here: Beside) -> bool:
    layer = here.layer
    return isinstance(layer, Adapted) and any(slot.parameter == here.key for slot in layer.tenfac.slots)


def _is_noted(here: Beside) -> bool:
    notes: dict[str, Any] = vars(here.layer)[NOTE]
    return any(here.key in keys for keys in notes.values())
