"""Updates as plain data: what a file says of every core and factor, and the update made again from it.

A piece is described by the arguments of its constructor that it keeps under their names: those that are
arrays go to the file's arrays, the others to its header. So a new class of ``pieces.py`` needs nothing here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tenfac.adapters.updates import pieces
from tenfac.adapters.updates.layout import Layout
from tenfac.adapters.updates.update import Term, Update
from tenfac.core.errors import DataError

KINDS: dict[str, type[nn.Module]] = {
    name: kind
    for name, kind in vars(pieces).items()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == pieces.__name__
}


def describe_update(update: Update, key: str) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The terms of an update as JSON data, and its arrays by key (``key`` is ``<module>.<slot>``)."""
    terms: list[dict[str, Any]] = []
    arrays: dict[str, Tensor] = {}
    for number, term in enumerate(update.terms):
        at = key if len(update.terms) == 1 else f"{key}.{number}"
        core, found = describe_piece(term.core, f"{at}.core")
        arrays.update(found)
        factors = {}
        for mode, factor in term.factors.items():
            factors[mode], found = describe_piece(factor, f"{at}.factors.{mode}")
            arrays.update(found)
        terms.append({"scale": term.scale, "core": core, "factors": factors})
    return terms, arrays


def describe_piece(piece: nn.Module, key: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One core or factor: its kind, its fields, and where its arrays are."""
    kind = type(piece).__name__
    if KINDS.get(kind) is not type(piece):
        raise DataError(
            f"save_adapter: cores and factors must be classes of tenfac.adapters.updates.pieces; {key} is a "
            f"{kind}. Merge it into the weight and save the model instead."
        )
    own = {**piece._parameters, **piece._buffers}
    names = [name for name in _arguments(type(piece)) if name in own]
    keys = {name: key if len(names) == 1 else f"{key}.{name}" for name in names}
    kept = [name for name in _arguments(type(piece)) if name not in own and hasattr(piece, name)]
    spec = {
        "kind": kind,
        "arrays": keys,
        "learned": [name for name in names if own[name].requires_grad],
        "fields": {name: _field(getattr(piece, name)) for name in kept},
    }
    return spec, {keys[name]: own[name].detach() for name in names}


def build_update(
    entry: Mapping[str, Any], arrays: Mapping[str, Tensor], layout: Layout, dtype: torch.dtype | None
) -> Update:
    """The update that a header's entry describes; floating-point arrays in ``dtype`` if it is given.

    Raises
    ------
    DataError, KeyError, TypeError
        If the entry does not describe an update of this layout.
    """
    terms = []
    for spec in entry["terms"]:
        factors = {int(n): build_piece(factor, arrays, dtype) for n, factor in spec["factors"].items()}
        terms.append(Term(build_piece(spec["core"], arrays, dtype), factors, spec["scale"]))
    update = Update(terms, layout, entry["recipe"])
    for problem in _misfits(update, layout):
        raise DataError(f"load_adapter: the file is damaged: {problem}. Copy or save it again.")
    return update


def build_piece(
    spec: Mapping[str, Any], arrays: Mapping[str, Tensor], dtype: torch.dtype | None
) -> nn.Module:
    """One core or factor from its description."""
    if spec["kind"] not in KINDS:
        raise DataError(
            f"load_adapter: the file holds a {spec['kind']!r}, which this tenfac does not know. Update it: "
            "pip install -U tenfac."
        )
    values = {name: _cast(arrays[key], dtype) for name, key in spec["arrays"].items()}
    fields = {name: _unfield(value, dtype) for name, value in spec["fields"].items()}
    piece = KINDS[spec["kind"]](**values, **fields)
    for name, parameter in piece.named_parameters(recurse=False):
        parameter.requires_grad_(name in spec["learned"])
    return piece


def _arguments(kind: type) -> list[str]:
    return list(inspect.signature(kind).parameters)


def _field(value: Any) -> Any:
    return {"dtype": str(value).removeprefix("torch.")} if isinstance(value, torch.dtype) else value


def _unfield(value: Any, dtype: torch.dtype | None) -> Any:
    if not isinstance(value, dict):
        return value
    return getattr(torch, value["dtype"]) if dtype is None else dtype


def _cast(array: Tensor, dtype: torch.dtype | None) -> Tensor:
    return array.clone() if dtype is None or not array.is_floating_point() else array.to(dtype, copy=True)


def _misfits(update: Update, layout: Layout) -> Iterator[str]:
    """What does not fit together in an update that was read."""
    with torch.no_grad():
        for term in update.terms:
            core = tuple(term.core.value().shape)
            if len(core) != len(layout.shape):
                yield f"a core has shape {core}, for a weight of shape {layout.shape}"
                continue
            for n, (size, rank) in enumerate(zip(layout.shape, core, strict=True)):
                factor = term.factors[str(n)].value() if str(n) in term.factors else None
                want = (size, rank if factor is not None else size)
                got = (size, rank) if factor is None else tuple(factor.shape)
                if got != want:
                    yield f"{layout.mode_name(n)} has a factor of shape {got} where {want} is needed"
