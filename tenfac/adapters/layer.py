"""A layer with updates: the same module, of a subclass of its class, with the same keys in its state dict.

``layer.weight`` of an adapted layer *is* the effective weight ``W + sum of updates`` (as with
``torch.nn.utils.parametrize``), so that whoever reads it (another layer's fast path, a decoder) is right. The
frozen weight itself stays in the state dict under its old name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from .cost import choose_path
from .forward import adds_in_place, base_forward, contribution
from .update import Update

_STOCK = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
)
_METHODS = ("forward", "_conv_forward")


class Slot:
    """One update's place: a parameter of a layer, or some of its rows.

    ``name`` tells slots of one layer apart (``"weight"``; ``"q"``, ``"k"`` and ``"v"`` of packed attention).
    """

    def __init__(self, name: str, parameter: str, rows: tuple[int, int] | None = None) -> None:
        self.name, self.parameter, self.rows = name, parameter, rows

    def of(self, weight: Tensor) -> Tensor:
        """The part of the parameter that the slot stands for."""
        return weight if self.rows is None else weight[self.rows[0] : self.rows[1]]


class Adapters(nn.Module):
    """The named updates of one layer, and which of them act.

    Parameters
    ----------
    slots : sequence of Slot
    path : {"auto", "factored", "fused"}
    """

    def __init__(self, slots: tuple[Slot, ...], path: str, was_trainable: Mapping[str, bool]) -> None:
        super().__init__()
        self.slots = slots
        self.path = path
        self.was_trainable = dict(was_trainable)
        self.named = nn.ModuleDict()  # adapter: {slot: Update}
        self.active: dict[str, float] = {}
        self.enabled = True
        self.merged = False

    def updates(self, slot: str) -> Iterator[tuple[Update, float]]:
        """Updates that act on a slot, each with its weight."""
        if self.enabled and not self.merged:
            for name, weight in self.active.items():
                if slot in self.named[name]:
                    yield self.named[name][slot], weight

    def acts(self) -> bool:
        """Whether any update changes the forward pass now."""
        return self.enabled and not self.merged and bool(self.active)

    def effective(self, parameter: str, weight: Tensor) -> Tensor:
        """``W + sum of updates``: added in the updates' precision, rounded once."""
        for slot in self.slots:
            if slot.parameter != parameter:
                continue
            for update, factor in self.updates(slot.name):
                delta = update.delta() * factor if factor != 1.0 else update.delta()
                weight = _added(weight, delta, slot)
        return weight

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing while merged: the file is then the base model's, weights merged."""
        if not self.merged:
            return super().state_dict(*args, **kwargs)
        return kwargs["destination"] if kwargs.get("destination") is not None else {}

    def __repr__(self) -> str:
        parts = []
        for name, updates in self.named.items():
            count = sum(update.n_trainable for update in updates.values())
            ranks = ", ".join(f"{slot} {update.rank}" for slot, update in updates.items())
            parts.append(f"{name}: {ranks}, {count} trainable numbers")
        state = "merged" if self.merged else "on" if self.enabled else "disabled"
        return f"Adapters({'; '.join(parts)}; {state})"


def _added(weight: Tensor, delta: Tensor, slot: Slot) -> Tensor:
    if slot.rows is None:
        return (weight + delta).to(weight.dtype)
    start, stop = slot.rows
    middle = (weight[start:stop] + delta).to(weight.dtype)
    return torch.cat([weight[:start], middle, weight[stop:]])


class Adapted:
    """Mixin of every adapted layer's class; ``tenfac`` holds its ``Adapters``."""

    tenfac: Adapters

    def __reduce_ex__(self, protocol: Any) -> Any:  # copy, deepcopy and pickle: the class is made at run time
        base, parameters = type(self)._made_of
        return _remake, (base, parameters), self.__dict__

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, *rest: Any
    ) -> None:
        errors = rest[-1]
        if self.tenfac.merged:
            errors.append(f"{prefix or 'layer'}: merged weights cannot be loaded over; call unmerge() first.")
            return
        inner = prefix + "tenfac."
        if not any(key.startswith(inner) for key in state_dict):  # a checkpoint of the base model
            state_dict.update(self.tenfac.state_dict(prefix=inner))
        super()._load_from_state_dict(state_dict, prefix, metadata, *rest)  # type: ignore[misc]


class AdaptedStock(Adapted):
    """Mixin of layers whose forward pass is torch's own, so that it can be applied in factors."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output with its updates, by the path of least cost."""
        adapters: Adapters = self.tenfac
        if not adapters.acts():
            _refuse_training_merged(adapters, self)
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        weight = self._parameters["weight"]  # type: ignore[attr-defined]
        active = list(adapters.updates("weight"))
        if not args:
            args = (kwargs.pop("input"),)
        if choose_path(self, args[0], [update for update, _ in active], adapters.path) == "fused":
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        y = base_forward(self, weight, args, kwargs)
        for update, factor in active:
            for pieces in update.pieces(factor, weight.dtype):
                y = adds_in_place(y, contribution(self, update.layout, pieces, args, kwargs))
        return y


def _refuse_training_merged(adapters: Adapters, layer: nn.Module) -> None:
    if adapters.merged and layer.training and torch.is_grad_enabled():
        raise RuntimeError(
            "adapted layer: a merged layer cannot be trained, its updates no longer act; it is in training "
            "mode with gradients on. Call tenfac.unmerge(model) to train, or model.eval() to predict."
        )


def is_stock(layer: nn.Module) -> bool:
    """Whether the layer computes exactly what torch's class of its kind does."""
    for base in _STOCK:
        if isinstance(layer, base):
            same = all(getattr(type(layer), m, None) is getattr(base, m, None) for m in _METHODS)
            return same and "forward" not in vars(layer)
    return False


@cache
def _adapted_class(base: type[nn.Module], parameters: tuple[str, ...], stock: bool) -> type[nn.Module]:
    members: dict[str, Any] = {name: property(partial(_effective, name=name)) for name in parameters}
    members["_made_of"] = (base, parameters)
    members["__doc__"] = f"``{base.__name__}`` with updates."
    members["__module__"] = base.__module__
    return type(f"Adapted{base.__name__}", (AdaptedStock if stock else Adapted, base), members)


def _effective(layer: nn.Module, name: str) -> Tensor:
    return layer.tenfac.effective(name, layer._parameters[name])


def _remake(base: type[nn.Module], parameters: tuple[str, ...]) -> nn.Module:
    plain = base.__new__(base)
    plain.__class__ = _adapted_class(base, parameters, is_stock(plain))
    return plain


def attach(layer: nn.Module, slots: tuple[Slot, ...], path: str) -> Adapters:
    """Make a layer one of its adapted class, its parameters frozen; its ``Adapters``, still empty."""
    if isinstance(layer, Adapted):
        adapters = layer.tenfac
        known = {slot.name for slot in adapters.slots}
        adapters.slots += tuple(slot for slot in slots if slot.name not in known)
        base = type(layer)._made_of[0]
    else:
        own = dict(layer.named_parameters(recurse=False))
        adapters = Adapters(slots, path, {name: p.requires_grad for name, p in own.items()})
        adapters.train(layer.training)
        layer.add_module("tenfac", adapters)
        base = type(layer)
        for parameter in own.values():
            parameter.requires_grad_(False)
    stock = is_stock(layer) if base is type(layer) else issubclass(type(layer), AdaptedStock)
    layer.__class__ = _adapted_class(base, tuple(_parameters_of(adapters)), stock)
    return adapters


def detach(layer: nn.Module) -> nn.Module:
    """Take every update off a layer: class, keys and ``requires_grad`` as they were."""
    if not isinstance(layer, Adapted):
        return layer
    adapters = layer.tenfac
    if adapters.merged:
        unmerge_layer(layer)
    base, _ = type(layer)._made_of
    del layer.tenfac
    layer.__class__ = base
    for name, trainable in adapters.was_trainable.items():
        layer._parameters[name].requires_grad_(trainable)
    return layer


@torch.no_grad()
def merge_layer(layer: nn.Module) -> None:
    """Add what acts to the weights, the originals kept."""
    adapters: Adapters = layer.tenfac
    if not adapters.acts():
        return
    new = {name: _merged(adapters, name, layer._parameters[name]) for name in _parameters_of(adapters)}
    for name, value in new.items():
        adapters.register_buffer(
            f"original_{name}", layer._parameters[name].detach().clone(), persistent=False
        )
        layer._parameters[name].copy_(value)
    adapters.merged = True


@torch.no_grad()
def unmerge_layer(layer: nn.Module) -> None:
    """Put the kept originals back, every bit."""
    adapters: Adapters = layer.tenfac
    if not adapters.merged:
        return
    for name in _parameters_of(adapters):
        layer._parameters[name].copy_(getattr(adapters, f"original_{name}"))
        delattr(adapters, f"original_{name}")
    adapters.merged = False


def _parameters_of(adapters: Adapters) -> list[str]:
    return sorted({slot.parameter for slot in adapters.slots})


def _merged(adapters: Adapters, name: str, weight: Tensor) -> Tensor:
    wide = torch.promote_types(weight.dtype, torch.float32)
    return adapters.effective(name, weight.to(wide)).to(weight.dtype)


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every adapted layer of a model with its name, the model itself among them."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Adapted))
