"""Which weights of a model are meant: by kind, name, expression or type. What cannot be is refused."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from tenfac.adapters.layer import Adapters
from tenfac.adapters.updates.layout import CONVS, TRANSPOSED
from tenfac.core.errors import DataError

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "all-conv": (*CONVS, *TRANSPOSED),
    "all-linear": (nn.Linear, nn.MultiheadAttention),
    "all": (
        *CONVS,
        *TRANSPOSED,
        nn.Linear,
        nn.MultiheadAttention,
        nn.Embedding,
        nn.EmbeddingBag,
        nn.Bilinear,
    ),
}
_OLD_HOOKS = {  # suffix of the parameter that stands in for a weight: who put it there, how to undo it
    "_g": ("weight_norm", "torch.nn.utils.remove_weight_norm(layer)"),
    "_orig": ("pruning or spectral_norm", "torch.nn.utils.prune.remove or remove_spectral_norm"),
}
Pattern = str | type


@dataclass(frozen=True, eq=False)
class Place:
    """A layer of a model, or one of its own parameters, under every name it has."""

    names: tuple[str, ...]
    layer: nn.Module
    parameter: str | None = None

    @property
    def key(self) -> tuple[int, str | None]:
        """What two places of one weight share."""
        plain = self.parameter is None and not isinstance(self.layer, nn.MultiheadAttention)
        return id(self.layer), "weight" if plain else self.parameter


@dataclass(frozen=True, eq=False)
class Target:
    """A layer whose weight, or a parameter that, is to be adapted.

    ``named`` says whether the user named it himself (then what cannot be done is refused), or whether it is
    one of a kind (then it is passed over, and the report says so).
    """

    name: str
    layer: nn.Module
    parameter: str | None
    named: bool

    @property
    def label(self) -> str:
        """The name of the layer, of the parameter if it is not the layer's own weight."""
        name = self.name or "the model itself"
        return name if self.parameter in (None, "weight") else f"{name}.{self.parameter}"

    @property
    def names(self) -> tuple[str, ...]:
        """What a pattern may match."""
        return (self.name, joined(self.name, self.parameter or "weight"))


def places_of(model: nn.Module) -> list[Place]:
    """Every layer of a model and every own parameter of each, adapters left out, in the model's order."""
    inside = {id(part) for each in model.modules() if isinstance(each, Adapters) for part in each.modules()}
    names: dict[int, list[str]] = {}
    layers: dict[int, nn.Module] = {}
    for name, layer in model.named_modules(remove_duplicate=False):
        if id(layer) not in inside:
            names.setdefault(id(layer), []).append(name)
            layers[id(layer)] = layer
    places = []
    for key, layer in layers.items():
        places.append(Place(tuple(names[key]), layer))
        for parameter, value in layer._parameters.items():
            if value is not None:
                places.append(Place(tuple(joined(n, parameter) for n in names[key]), layer, parameter))
    return places


def joined(name: str, part: str) -> str:
    """A dotted name."""
    return f"{name}.{part}" if name else part


def patterns_of(given: Any, option: str, where: str) -> list[Pattern]:
    """Strings and types from whatever the user gave."""
    if isinstance(given, (str, type)):
        return [given]
    patterns = list(given) if isinstance(given, Iterable) else [given]
    wrong = [p for p in patterns if not isinstance(p, (str, type))]
    if wrong or not patterns:
        raise DataError(
            f"{where}: `{option}` must be a name, a regular expression, a type of module, or a list of such; "
            f"got {given!r}. Names are those of model.named_modules()."
        )
    return patterns


def matching(places: list[Place], pattern: Pattern) -> tuple[list[Place], bool]:
    """The places a pattern means, and whether by their names.

    A type means the layers of that type, ``"all-..."`` those of a kind. Another string is a name or the end
    of one, at a dot; if there is no such, a regular expression for the whole name of layers; if there is no
    such layer, of parameters. Numbers alone (``"2"`` in a Sequential) are whole names.
    """
    kinds = KINDS.get(pattern, ()) if isinstance(pattern, str) else (pattern,)
    if kinds:
        return [p for p in places if p.parameter is None and isinstance(p.layer, kinds)], False
    named = [p for p in places if any(ends(name, pattern) for name in p.names)]
    if named:
        return named, True
    try:
        whole = re.compile(str(pattern))  # types have returned
    except re.error:
        return [], False
    found = [p for p in places if any(name and whole.fullmatch(name) for name in p.names)]
    layers = [p for p in found if p.parameter is None]
    return layers or found, False


def ends(name: str, pattern: Any) -> bool:
    """Whether a name is, or ends with, a dotted suffix."""
    if not isinstance(pattern, str) or not pattern:
        return False
    place_in_sequence = pattern.replace(".", "").isdigit()  # "2" is not meant to be "features.2" too
    return name == pattern or (not place_in_sequence and name.endswith("." + pattern))


def matches(target: Target, pattern: Pattern) -> bool:
    """Whether a pattern means a target: its layer by name, regular expression or type, or its parameter."""
    names = tuple(name for name in target.names if name)
    place = Place(names, target.layer)
    return bool(matching([place], pattern)[0])


def covered(places: list[Place], given: Any, option: str, where: str) -> set[tuple[int, str | None]]:
    """Every parameter that patterns mean, as (id of its layer, name); a layer means all that is below it.

    Layers meant whole are there as (id, None) too.
    """
    found: set[tuple[int, str | None]] = set()
    if given is None or (isinstance(given, Sized) and not isinstance(given, (str, type)) and not len(given)):
        return found
    for pattern in patterns_of(given, option, where):
        chosen, _ = matching(places, pattern)
        if not chosen:
            raise no_match(places, pattern, option, where)
        whole = {id(part) for p in chosen if p.parameter is None for part in p.layer.modules()}
        found |= {(key, None) for key in whole}
        found |= {(id(p.layer), p.parameter) for p in chosen if p.parameter is not None}
        found |= {(id(p.layer), p.parameter) for p in places if p.parameter and id(p.layer) in whole}
    return found


def select(
    places: list[Place], targets: Any, excluded: set[tuple[int, str | None]], where: str
) -> list[Target]:
    """The targets in the model's order.

    Raises
    ------
    DataError
        If a pattern matches nothing, everything is excluded, a layer is of a kind that cannot be adapted, or
        a weight is not of floating point or has no two modes.
    """
    chosen: dict[tuple[int, str | None], tuple[Place, bool]] = {}
    for pattern in patterns_of(targets, "targets", where):
        found, named = matching(places, pattern)
        named = named or (isinstance(pattern, type) and issubclass(pattern, nn.RNNBase))  # to be refused
        usable = found if named else [place for place in found if _has_weight(place)]
        if not usable:
            raise no_match(places, pattern, "targets", where)
        for place in usable:
            for part in _parts(place, places):
                if not _is_excluded(part, excluded):
                    _refuse_unfit(part, where)
                    before = chosen.get(part.key, (part, False))
                    chosen[part.key] = (part, named or before[1])
    if not chosen:
        raise DataError(
            f"{where}: `exclude` must leave a target; it leaves none of {targets!r}. Exclude less, or "
            "target more."
        )
    whole = {key[0] for key in chosen if key[1] is None}  # attention blocks: their rows are adapted already
    order = {place.key: n for n, place in reversed(list(enumerate(places)))}
    kept = [key for key in chosen if key[1] is None or key[0] not in whole]
    return [_target(*chosen[key], key) for key in sorted(kept, key=lambda key: order[key])]


def _target(place: Place, named: bool, key: tuple[int, str | None]) -> Target:
    name = place.names[0]
    if place.parameter is not None:
        name = name.removesuffix(place.parameter).removesuffix(".")
    return Target(name, place.layer, key[1], named)


def _parts(place: Place, places: list[Place]) -> Iterator[Place]:
    """A layer itself; of attention, also the layer of its output projection."""
    yield place
    if isinstance(place.layer, nn.MultiheadAttention) and place.parameter is None:
        yield next(p for p in places if p.layer is place.layer.out_proj and p.parameter is None)


def _is_excluded(place: Place, excluded: set[tuple[int, str | None]]) -> bool:
    return (id(place.layer), None) in excluded or place.key in excluded


def _has_weight(place: Place) -> bool:
    """Whether there is a weight to adapt, or to say something about; containers and norms are passed over."""
    if isinstance(place.layer, nn.MultiheadAttention) and place.parameter is None:
        return True
    key = str(place.key[1])
    value = _own(place.layer, key)
    if value is None:
        return bool(_stand_in(place.layer, key))
    return value.ndim > 1


def _own(layer: nn.Module, key: str) -> Tensor | None:
    return dict(layer._parameters.items()).get(key)  # not `_parameters.get`: scripted modules have none


# --- refusals ---------------------------------------------------------------------------------------------


def _refuse_unfit(place: Place, where: str) -> None:
    key = str(place.key[1]) if place.key[1] is not None else "in_proj_weight"
    found = _unfit(place, key)
    if found:
        name = place.names[0] or "the model itself"
        raise DataError(
            f"{where}: a target must be a layer whose weight can be adapted; {name!r} is {found[0]}. "
            f"{found[1]}, or leave it out with exclude=[{place.names[0]!r}]."
        )


def _unfit(place: Place, key: str) -> tuple[str, str] | None:
    """What is wrong with a layer, and what to do; None if nothing is."""
    layer = place.layer
    kind, value = type(layer).__name__, _own(layer, key)
    stand_in = _stand_in(layer, key)
    if stand_in:
        return f"a {kind} whose weight is computed by {stand_in[0]}", f"Remove that first: {stand_in[1]}"
    if isinstance(layer, torch.jit.ScriptModule):
        return f"a scripted {kind}", "Adapt the model before torch.jit.script"
    if isinstance(layer, nn.MultiheadAttention) and key == "in_proj_weight":
        return None
    if value is None:
        if isinstance(layer, nn.RNNBase):
            return f"a {kind}, which keeps its weights outside of its parameters", "Use RNN cells"
        return f"a {kind} without a weight of its own", _inner(place)
    if value.ndim < 2:
        return f"a weight of shape {tuple(value.shape)}, where 2 or more modes are needed", "Name another"
    if not value.is_floating_point():
        return f"a weight of {value.dtype}, not of floating point", "Dequantize it first"
    return None


def _stand_in(layer: nn.Module, key: str) -> tuple[str, str] | None:
    """Who computes a weight that is no parameter of the layer, and how to undo it."""
    attention = isinstance(layer, nn.MultiheadAttention)
    if is_parametrized(layer):
        hit = [name for name in layer.parametrizations if name == key or attention]
        if hit:
            by = ", ".join(type(p).__name__.lstrip("_") for p in layer.parametrizations[hit[0]])
            undo = f"torch.nn.utils.parametrize.remove_parametrizations(layer, {hit[0]!r})"
            return f"the parametrization {by}", undo
    for suffix, (who, undo) in _OLD_HOOKS.items():
        if f"{key}{suffix}" in layer._parameters:
            return who, undo
    return None


def _inner(place: Place) -> str:
    """What to name in the place of a layer without weight."""
    prefix, layer = place.names[0], place.layer
    own = [name for name, value in layer._parameters.items() if value is not None and value.ndim > 1]
    inner = [name for name, part in layer.named_modules() if name and "weight" in part._parameters]
    kind = "its parameters" if own else "the layers in it"
    names = [repr(joined(prefix, name)) for name in (own or inner)[:4]]
    return f"Name {kind}, as in {', '.join(names)}" if names else "Name a layer that has one"


def no_match(places: list[Place], pattern: Pattern, option: str, where: str) -> DataError:
    """The error for a pattern that means nothing, with names near it."""
    if isinstance(pattern, type) or pattern in KINDS:
        kinds = sorted(
            {type(p.layer).__name__ for p in places if p.parameter is None and p.layer._parameters}
        )
        shown = getattr(pattern, "__name__", pattern)
        return DataError(
            f"{where}: `{option}` must match layers of the model; got {shown!r}, of which it has none. Its "
            f"layers are of the types {', '.join(kinds)}."
        )
    usable = [p for p in places if _has_weight(p) or option != "targets"]
    names = list(dict.fromkeys(name for p in usable for name in p.names if name))
    near = nearest(pattern, [*names, *KINDS] if option == "targets" else names)
    hint = f"Did you mean {near}?" if near else f"The model has {', '.join(map(repr, names[:8]))}."
    return DataError(
        f"{where}: `{option}` must match layers or parameters of the model; got {pattern!r}, which matches "
        f"none by name, end of a name or as a regular expression. {hint}"
    )


def nearest(wanted: str, names: Iterable[str]) -> str:
    """Up to three names, or ends of names, near the wanted one, as an error shows them; ``""`` if none is."""
    names = list(names)
    tails = {".".join(name.split(".")[-n:]) for name in names for n in (1, 2, 3)}
    near = difflib.get_close_matches(str(wanted), [*names, *sorted(tails - set(names))], n=3, cutoff=0.6)
    return ", ".join(repr(name) for name in near)


# --- tied weights -----------------------------------------------------------------------------------------


def refuse_tied(places: list[Place], wanted: Iterable[tuple[nn.Module, str]], where: str) -> None:
    """Refuse weights that another layer uses too: the same parameter, or overlapping memory.

    Raises
    ------
    DataError
        With the names of both.
    """
    pair = tied_pair(places, wanted)
    if pair is not None:
        raise _tied(*pair, where)


def tied_pair(places: list[Place], wanted: Iterable[tuple[nn.Module, str]]) -> tuple[Place, Place] | None:
    """A wanted weight and another place that uses it, if there are such."""
    keys = {(id(layer), parameter) for layer, parameter in wanted}
    memory: dict[Any, list[Place]] = {}
    for place in places:
        if place.parameter is not None:
            memory.setdefault(_storage(_value(place)), []).append(place)
    for group in memory.values():
        mine = [p for p in group if (id(p.layer), p.parameter) in keys]
        for one in mine:
            for other in group:
                if other is not one and _overlap(_value(one), _value(other)):
                    return one, other
    return None


def _tied(one: Place, other: Place, where: str) -> DataError:
    first, second = one.names[0], other.names[0]
    layers = [name.rpartition(".")[0] or name for name in (first, second)]
    return DataError(
        f"{where}: a weight that is adapted must be used by one layer; {first!r} and {second!r} are one "
        f"tensor (tied weights). Leave them out with exclude={layers!r}, or untie them first: give one "
        "layer a copy, layer.weight = nn.Parameter(layer.weight.detach().clone())."
    )


def _value(place: Place) -> Tensor:
    return place.layer._parameters[place.parameter]


def _storage(value: Tensor) -> Any:
    """Where a parameter's memory is; without memory (meta) the parameter itself."""
    if value.is_meta:
        return id(value)
    try:
        return value.untyped_storage().data_ptr() or id(value)
    except (NotImplementedError, RuntimeError):
        return id(value)


def _overlap(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    (a, b), (c, d) = _span(one), _span(other)
    return a < d and c < b


def _span(value: Tensor) -> tuple[int, int]:
    """First byte, and the one after the last, within the storage."""
    if not value.numel():
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    start = value.storage_offset()
    return start * value.itemsize, (start + last + 1) * value.itemsize
