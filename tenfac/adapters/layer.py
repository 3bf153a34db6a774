"""A layer with updates: the same module, of a subclass of its class, with the same keys in its state dict.

``layer.weight`` of an adapted layer *is* the effective weight ``W + sum of updates`` (as with
``torch.nn.utils.parametrize``), so that whoever reads it (another layer's fast path, a decoder) is right. The
frozen weight itself stays in the state dict under its old name. While updates act, ``layer.weight`` is made
anew at each reading: writing into it (``layer.weight.data``, ``nn.init``) writes into that copy and changes
nothing. Assigning to it is refused while updates act or are merged, because whoever assigns has mostly read
it first; while they are disabled it is the frozen parameter itself and may be replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, partial, wraps
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tenfac.adapters.updates.forward import factored_forward, is_sound
from tenfac.adapters.updates.path import choose_path
from tenfac.adapters.updates.update import Update
from tenfac.core.errors import DataError

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
_is_exporting = getattr(torch.compiler, "is_exporting", torch.jit.is_tracing)  # from torch 2.7 on


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
                if name in self.named and slot in self.named[name]:
                    yield self.named[name][slot], weight

    def acts(self) -> bool:
        """Whether any update changes the forward pass now."""
        return self.enabled and not self.merged and bool(self.active)

    def effective(self, parameter: str, weight: Tensor) -> Tensor:
        """``W + sum of updates``: added in the updates' precision, rounded once."""
        total = weight
        for slot in self.slots:
            if slot.parameter == parameter:
                for update, factor in self.updates(slot.name):
                    total = _added(total, update, factor, slot)
        return total.to(weight.dtype)

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


def _added(weight: Tensor, update: Update, factor: float, slot: Slot) -> Tensor:
    if slot.rows is None:
        return update.added(weight, factor)
    start, stop = slot.rows
    return torch.cat([weight[:start], update.added(weight[start:stop], factor), weight[stop:]])


class Adapted:
    """Mixin of every adapted layer's class; ``tenfac`` holds its ``Adapters``."""

    tenfac: Adapters
    _made_of: ClassVar[tuple[type[nn.Module], tuple[str, ...], bool]]  # the arguments of _adapted_class
    _parameters: dict[str, Any]

    def __reduce_ex__(self, protocol: Any) -> Any:  # copy, deepcopy and pickle: the class is made at run time
        parts: Any = super().__reduce_ex__(max(protocol, 2))
        _, _, state, *rest = parts
        return _remake, type(self)._made_of, state, *rest

    def __delattr__(self, name: str) -> None:
        if name in type(self)._made_of[1]:
            raise DataError(
                f"{type(self).__name__}: {name!r} has updates and cannot be removed or parametrized; apply "
                "weight or spectral norm to a layer without updates, or detach them first."
            )
        super().__delattr__(name)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Refuse a new weight while updates act on the old one; assignment comes here too."""
        adapters = self.tenfac
        if name in type(self)._made_of[1] and (adapters.merged or adapters.acts()):
            state, remedy = ("are merged", "unmerge") if adapters.merged else ("act", "disable")
            raise DataError(
                f"{type(self).__name__}: {name!r} cannot be replaced while its updates {state}: they are in "
                f"what was read and would count twice; {remedy} or detach them first."
            )
        super().register_parameter(name, param)  # type: ignore[misc]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, *rest: Any
    ) -> None:
        errors = rest[-1]
        if self.tenfac.merged:
            errors.append(f"{prefix or 'layer'}: merged weights cannot be loaded over; call unmerge() first.")
            return
        inner = prefix + "tenfac."
        if not any(key.startswith(inner) for key in state_dict):  # a checkpoint of the base model
            state_dict.update(self.tenfac.state_dict(prefix=inner, keep_vars=True))
        enabled, self.tenfac.enabled = self.tenfac.enabled, False  # assign=True assigns the frozen weight
        try:
            super()._load_from_state_dict(state_dict, prefix, metadata, *rest)  # type: ignore[misc]
        finally:
            self.tenfac.enabled = enabled


class AdaptedStock(Adapted):
    """Mixin of layers whose forward pass is torch's own, so that it can be applied in factors."""

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output with its updates, by the path of least cost."""
        adapters: Adapters = self.tenfac
        if not adapters.acts():
            _refuse_training_merged(self)
            return super().forward(input, *args, **kwargs)  # type: ignore[misc]
        _refuse_split(self)
        weight = self._parameters["weight"]
        active = list(adapters.updates("weight"))
        path = "factored" if adapters.path == "auto" and _recorded() else adapters.path
        if not is_sound(self, input, args, kwargs) or (
            choose_path(self, input, [update for update, _ in active], path) == "fused"
        ):
            return super().forward(input, *args, **kwargs)  # type: ignore[misc]
        terms = [pieces for update, factor in active for pieces in update.pieces(factor, weight.dtype)]
        return factored_forward(self, active[0][0].layout, weight, terms, (input, *args), kwargs)


def _recorded() -> bool:
    """Whether this call is recorded for inputs of other sizes, so that none may decide the path."""
    return torch.jit.is_tracing() or _is_exporting()


def _refuse_training_merged(layer: nn.Module) -> None:
    if layer.tenfac.merged and layer.training and torch.is_grad_enabled():
        raise DataError(
            "adapted layer: a merged layer cannot be trained, its updates no longer act; it is in training "
            "mode with gradients on. Call tenfac.unmerge(model) to train, or model.eval() to predict."
        )


def _is_split(weight: Tensor | None) -> bool:
    """Whether a weight is a part of one that several processes hold (DTensor)."""
    return hasattr(weight, "placements")


def _refuse_split(layer: nn.Module) -> None:
    for name in type(layer)._made_of[1] if layer.tenfac.acts() else ():
        if _is_split(layer._parameters.get(name)):
            raise DataError(
                f"{type(layer).__name__}: the forward pass needs whole weights; {name!r} is split over "
                "processes (tensor parallel). Use fully_shard or DistributedDataParallel, or merge first."
            )


def is_stock(layer: nn.Module) -> bool:
    """Whether the layer computes exactly what torch's class of its kind does, so that factors can stand in.

    Scaling gradients by the count of each index is defined on the whole table only.
    """
    if isinstance(layer, Adapted):
        return isinstance(layer, AdaptedStock)
    if (
        not isinstance(layer, nn.Module)
        or "forward" in vars(layer)
        or getattr(layer, "scale_grad_by_freq", False)
    ):
        return False
    for base in _STOCK:
        if isinstance(layer, base):
            return all(getattr(type(layer), m, None) is getattr(base, m, None) for m in _METHODS)
    return False


@cache
def _adapted_class(base: Any, parameters: tuple[str, ...], stock: bool) -> type[nn.Module]:
    members: dict[str, Any] = {
        name: property(partial(_effective, name=name), partial(_refuse_setting, name=name))
        for name in parameters
    }
    members["_made_of"] = (base, parameters, stock)
    members["__doc__"] = f"``{base.__name__}`` with updates."
    members["__module__"] = base.__module__
    if not stock:
        members["forward"] = _guarded(base)
    return type(f"Adapted{base.__name__}", (AdaptedStock if stock else Adapted, base), members)


def _guarded(base: type[nn.Module]) -> Any:
    """The class's own forward, signature kept, but no training while merged."""

    @wraps(base.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        _refuse_training_merged(self)
        _refuse_split(self)
        return base.forward(self, *args, **kwargs)

    return forward


def _effective(layer: nn.Module, name: str) -> Tensor:
    if name not in layer._parameters:
        raise DataError(
            f"{type(layer).__name__}: {name!r} was taken out of the layer while it has updates; detach them "
            "first."
        )
    weight = layer._parameters[name]
    if _is_split(weight):  # fully_shard asks for the parameter that it splits; the forward pass sees it whole
        return weight
    return layer.tenfac.effective(name, weight)


def _refuse_setting(layer: nn.Module, value: Any, name: str) -> None:
    raise DataError(
        f"{type(layer).__name__}: {name!r} has updates and cannot be set to a {type(value).__name__} that is "
        "no parameter (as torch.nn.utils.weight_norm does); detach the updates first."
    )


def _remake(base: type[nn.Module], parameters: tuple[str, ...], stock: bool) -> nn.Module:
    make: Any = base
    plain = make.__new__(make)
    plain.__class__ = _adapted_class(make, parameters, stock)
    return plain


def attach(layer: nn.Module, slots: tuple[Slot, ...], path: str) -> Adapters:
    """Make a layer one of its adapted class, its parameters frozen; its ``Adapters``, still empty."""
    if isinstance(layer, Adapted):
        adapters = layer.tenfac
        known = {slot.name for slot in adapters.slots}
        adapters.slots += tuple(slot for slot in slots if slot.name not in known)
        base: Any = type(layer)._made_of[0]
        adapters.path = adapters.path if path == "auto" else path
    else:
        own = dict(layer.named_parameters(recurse=False))
        adapters = Adapters(slots, path, {name: p.requires_grad for name, p in own.items()})
        layer.add_module("tenfac", adapters)
        base = type(layer)
        for parameter in own.values():
            parameter.requires_grad_(False)
    layer.__class__ = _adapted_class(base, tuple(_parameters_of(adapters)), is_stock(layer))
    return adapters


def detach(layer: nn.Module, keep_merged: bool = False) -> nn.Module:
    """Take every update off a layer: class, keys and ``requires_grad`` as they were, and the weights too.

    With ``keep_merged`` merged weights stay, and the originals are let go.
    """
    if not isinstance(layer, Adapted):
        return layer
    adapters = layer.tenfac
    if adapters.merged and not keep_merged:
        unmerge_layer(layer)
    base = type(layer)._made_of[0]
    del layer.tenfac
    layer.__class__ = base
    for name, trainable in adapters.was_trainable.items():
        layer._parameters[name].requires_grad_(trainable)
    return layer


@torch.no_grad()
def merge_layer(layer: nn.Module) -> None:
    """Add what acts, nothing perhaps, to the weights, the originals kept."""
    adapters: Adapters = layer.tenfac
    if adapters.merged or not adapters.enabled:
        return
    new = {name: _merged(adapters, name, layer._parameters[name]) for name in _parameters_of(adapters)}
    kept = {name: layer._parameters[name].detach().clone() for name in new}
    for name, value in new.items():
        adapters.register_buffer(f"original_{name}", kept[name], persistent=False)
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
    kind = weight.device.type if torch.amp.is_autocast_available(weight.device.type) else "cpu"
    with torch.autocast(kind, enabled=False):
        return adapters.effective(name, weight.to(wide)).to(weight.dtype)


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every adapted layer of a model with its name, the model itself among them."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Adapted))
