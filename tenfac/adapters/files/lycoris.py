"""Adapters in the files of LyCORIS' LoCon: ``lora_down``, ``lora_mid``, ``lora_up`` and ``alpha``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tenfac.adapters.beside import warn_left_out
from tenfac.adapters.build import slots_of
from tenfac.adapters.files.disk import read_tensors, write_tensors
from tenfac.adapters.files.lora import in_order, lora_matrices, lora_update, misfit
from tenfac.adapters.files.placing import Placement, modules_of, near, place, refuse_place, updates_of
from tenfac.adapters.updates.layout import Layout, layout_of
from tenfac.adapters.updates.update import Update
from tenfac.core.door import door
from tenfac.core.errors import DataError, warn_user

_NAMES = ("lora_up.weight", "lora_down.weight", "lora_mid.weight", "alpha")
# What the arrays of LyCORIS' other methods are called.
_OTHERS = {
    "dora_scale": "a DoRA",
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "oft_": "an OFT",
    "diff": "a full difference",
    "a1": "a GLoRA",
    "on_input": "an IA3",
}


@door
def export_lycoris(
    model: nn.Module, path: str | os.PathLike[str], *, name: str = "default", prefix: str = "lycoris"
) -> None:
    """Write one adapter of a model as a LoCon file that ``lycoris.create_lycoris_from_weights`` reads.

    An update of a convolution is written as ``lora_up``, ``lora_mid`` and ``lora_down``, a Tucker form of
    equal ranks (the smaller is filled with zeros), or without ``lora_mid`` where that takes fewer numbers.

    Parameters
    ----------
    model : Module
        With an adapter of this name, not merged, on Linear, Conv1d, Conv2d and Conv3d layers.
    path : str or path-like
        An existing file is replaced in one step. End it in ``.safetensors``: LyCORIS takes other names for
        pickles.
    name : str
        The adapter.
    prefix : str
        First part of every key, before the module's name with its dots as underscores: ``"lycoris"``, or
        what a reader of Stable Diffusion files expects (``"lora_unet"``).

    Raises
    ------
    DataError
        If a layer is one that LyCORIS cannot hold or computes wrongly: embeddings, attention and its
        output projection, transposed convolutions, padding other than zeros, raw parameters, layers with
        a forward pass of their own; or if two modules have one name in the file. If the model is merged
        or has no adapter of this name.
    MissingExtraError
        If safetensors is not installed.

    Notes
    -----
    Exact up to rounding; ranks of several terms add up, and every scale is in the arrays (``alpha`` is the
    rank). LyCORIS leaves dilation and groups out when its ``bypass_mode`` is switched on; it is off unless
    asked for. What ``also_train`` trained beside the adapter is not written, of which it warns.

    References
    ----------
    .. [1] S.-Y. Yeh et al., Navigating text-to-image customization: from LyCORIS fine-tuning to model
       evaluation, ICLR 2024, arXiv:2309.14859.

    Examples
    --------
    >>> import os, tempfile
    >>> from safetensors import safe_open
    >>> from torch import nn
    >>> from tenfac import tucker_adapter
    >>> model = nn.Sequential(nn.Conv2d(32, 32, 3), nn.ReLU())
    >>> _ = tucker_adapter(model[0], rank=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "locon.safetensors")
    ...     export_lycoris(model, path)
    ...     with safe_open(path, "pt") as file:
    ...         sorted(file.keys())
    ['lycoris_0.alpha', 'lycoris_0.lora_down.weight', 'lycoris_0.lora_mid.weight', 'lycoris_0.lora_up.weight']
    """
    where = "export_lycoris"
    _check_prefix(prefix, where)
    modules = modules_of(model)
    keys = _keys(modules, prefix)
    tensors: dict[str, Tensor] = {}
    for found in updates_of(model, name, where):
        at = found.module or "the layer"
        problem = _misfit(found.layer, found.update.layout, modules)
        if problem:
            raise DataError(
                f"{where}: {at} {problem}. Merge the adapter into the weights, and save the model."
            )
        key = _key(found.module, prefix)
        if len(keys[key]) > 1:
            raise DataError(
                f"{where}: modules must have different names once dots are underscores; {key!r} stands for "
                f"{' and '.join(keys[key])}. Rename one."
            )
        tensors.update({f"{key}.{part}": tensor for part, tensor in _locon(found.update).items()})
    write_tensors(path, tensors, {"format": "pt"}, where)
    warn_left_out(model, name, where)


def _locon(update: Update) -> dict[str, Tensor]:
    """The arrays of one layer, in the form that takes fewer numbers."""
    a, b = lora_matrices(update)
    spatial = (1,) * (a.ndim - 2)
    plain = {"lora_down.weight": a, "lora_up.weight": b.reshape(*b.shape, *spatial)}
    whole = _tucker_form(update)  # never smaller for a kernel of one point, where LyCORIS has no lora_mid
    if sum(map(Tensor.numel, whole.values())) < sum(map(Tensor.numel, plain.values())):
        plain = whole
    alpha = torch.tensor(float(plain["lora_down.weight"].shape[0]))
    return {**plain, "alpha": alpha}


def _tucker_form(update: Update) -> dict[str, Tensor]:
    """Down, mid and up with one rank: the terms' cores on the block diagonal, zeros beside them."""
    ups, downs, cores = [], [], []
    for term in update.terms:
        core, out, into = in_order(term.pieces(update.layout), update.layout)
        eye = [torch.eye(n, dtype=core.dtype, device=core.device) for n in core.shape[:2]]
        cores.append(core)
        ups.append(eye[0] if out is None else out)
        downs.append(eye[1] if into is None else into)
    up, down = torch.cat(ups, dim=1), torch.cat(downs, dim=1)
    rank = max(up.shape[1], down.shape[1])
    mid = cores[0].new_zeros(rank, rank, *cores[0].shape[2:])
    row = column = 0
    for core in cores:
        mid[row : row + core.shape[0], column : column + core.shape[1]] = core
        row, column = row + core.shape[0], column + core.shape[1]
    arrays = {"lora_down.weight": _widened(down, rank).mT, "lora_up.weight": _widened(up, rank)}
    spatial = (1,) * (mid.ndim - 2)
    arrays = {key: array.reshape(*array.shape, *spatial) for key, array in arrays.items()}
    dtype = next(update.parameters()).dtype
    return {key: array.to(dtype) for key, array in {**arrays, "lora_mid.weight": mid}.items()}


def _widened(matrix: Tensor, rank: int) -> Tensor:
    return torch.cat([matrix, matrix.new_zeros(matrix.shape[0], rank - matrix.shape[1])], dim=1)


def _key(module: str, prefix: str) -> str:
    """How LyCORIS names a module."""
    return f"{prefix}_{module}".replace(".", "_")


def _keys(modules: Mapping[str, nn.Module], prefix: str) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for module in modules:
        keys.setdefault(_key(module, prefix), []).append(module)
    return keys


def _check_prefix(prefix: Any, where: str) -> None:
    if not isinstance(prefix, str) or not prefix or "." in prefix:
        raise DataError(f"{where}: `prefix` must be a string without dots, not empty; got {prefix!r}.")


def _misfit(layer: nn.Module, layout: Layout, modules: Mapping[str, nn.Module]) -> str | None:
    """Why a LoCon cannot hold an update of a layer, or would compute another one."""
    attention = [module for module in modules.values() if isinstance(module, nn.MultiheadAttention)]
    if layer in attention or any(module.out_proj is layer for module in attention):
        return "belongs to a MultiheadAttention, which reads its weights, so that a LoCon does nothing there"
    if layout.kind == "embedding":
        return "is an Embedding, which LyCORIS does not know"
    return misfit(layer, layout, "LyCORIS")


# --- import -----------------------------------------------------------------------------------------------


@door
def import_lycoris(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    name: str = "default",
    prefix: str = "lycoris",
    activate: bool = True,
) -> nn.Module:
    """Put a LoCon or LoRA file of LyCORIS or kohya on a model, without LyCORIS.

    Parameters
    ----------
    model : Module
        The base model, bare or adapted by tenfac; changed in place.
    path : str or path-like
        A safetensors file with ``lora_up``, ``lora_down``, perhaps ``lora_mid``, and ``alpha``.
    name : str
        Name to give the adapter.
    prefix : str
        First part of the keys that belong to this model: ``"lycoris"``, ``"lora_unet"``, ``"lora_te"``.
        Keys of other prefixes are left out, with a warning.
    activate : bool
        Whether it acts at once, with weight 1.

    Returns
    -------
    Module
        ``model``.

    Raises
    ------
    DataError
        If the file holds anything but LoCon (DoRA, LoHa, LoKr and others are named), nothing of this
        prefix, or if the model lacks a module or has one of another shape. If the model is merged or has
        an adapter of this name already.
    MissingExtraError
        If safetensors is not installed.

    Notes
    -----
    Exact: ``W + alpha / r * mid x_0 up x_1 down``, the structure ``"tucker"``, or ``"lora"`` without
    ``lora_mid``. Without ``alpha``, or where it is 0, the multiplier is 1, as in LyCORIS. Everything is
    checked before anything is touched.

    References
    ----------
    .. [1] S.-Y. Yeh et al., Navigating text-to-image customization: from LyCORIS fine-tuning to model
       evaluation, ICLR 2024, arXiv:2309.14859.

    Examples
    --------
    >>> import os, tempfile
    >>> from torch import nn
    >>> from tenfac import tucker_adapter
    >>> model = nn.Sequential(nn.Conv2d(32, 32, 3), nn.ReLU())
    >>> _ = tucker_adapter(model[0], rank=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "locon.safetensors")
    ...     export_lycoris(model, path)
    ...     import_lycoris(nn.Sequential(nn.Conv2d(32, 32, 3), nn.ReLU()), path)[0].tenfac
    Adapters(default: weight (4, 4, 3, 3), 400 trainable numbers; on)
    """
    where = "import_lycoris"
    _check_prefix(prefix, where)
    refuse_place(model, name, where)
    path = os.fspath(path)
    modules = modules_of(model)
    keys = _keys(modules, prefix)
    plans = []
    for key, parts in _entries(path, prefix, where).items():
        if len(keys.get(key, ())) != 1:
            several = " and ".join(keys.get(key, ()))
            what = f"it stands for {several}" if several else f"there is none{near(key, keys)}"
            raise DataError(
                f"{where}: {key!r} of {path!r} must name one module of the model; {what}. Load it on the "
                "model it was made for."
            )
        module = keys[key][0]
        plans.append(_plan(module, modules[module], parts, modules, where))
    place(plans, name, activate, where)
    return model


def _entries(path: str, prefix: str, where: str) -> dict[str, dict[str, Tensor]]:
    """The arrays of every key of a prefix."""
    _, tensors = read_tensors(path, where)
    entries: dict[str, dict[str, Tensor]] = {}
    left_out = set()
    for name, tensor in tensors.items():
        key, _, part = name.partition(".")
        if not key.startswith(f"{prefix}_"):
            left_out.add(key)
            continue
        if part not in _NAMES:
            kind = next((kind for start, kind in _OTHERS.items() if part.startswith(start)), "no LoCon")
            raise DataError(
                f"{where}: {path!r} must hold a LoCon (lora_up, lora_down); {name!r} is of {kind}. Merge it "
                "with LyCORIS, and use the merged model."
            )
        entries.setdefault(key, {})[part] = tensor
    some = ", ".join(sorted(left_out)[:3])
    if not entries:
        raise DataError(
            f"{where}: {path!r} must have keys that start with {prefix + '_'!r}; it has {some or 'none'}. "
            "Give the `prefix` they have."
        )
    if left_out:
        warn_user(
            f"{where}: {len(left_out)} entries of {path!r} do not start with {prefix + '_'!r} and are left "
            f"out ({some}).",
            UserWarning,
        )
    return entries


def _plan(
    module: str,
    layer: nn.Module,
    parts: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    where: str,
) -> Placement:
    if "weight" not in layer._parameters or layer._parameters["weight"] is None:
        raise DataError(f"{where}: {module} must be a layer with a weight; it is a {type(layer).__name__}.")
    ((_, slot),) = slots_of(layer, "weight", where)
    layout = layout_of(layer, "weight")
    problem = _misfit(layer, layout, modules)
    if problem:
        raise DataError(f"{where}: {module} {problem}: its outputs cannot be kept. Train it with tenfac.")
    down, up, mid = (parts.get(f"lora_{side}.weight") for side in ("down", "up", "mid"))
    out, into, *kernel = layout.shape
    rank = 0 if down is None else down.shape[0]
    point = (1,) * len(kernel)
    if mid is None:
        want = {"down": (rank, into, *kernel), "up": (out, rank, *point)}
    else:
        want = {"down": (rank, into, *point), "up": (out, rank, *point), "mid": (rank, rank, *kernel)}
    got = {side: tuple(t.shape) for side, t in (("down", down), ("up", up), ("mid", mid)) if t is not None}
    if got != want or down is None or up is None:
        raise DataError(
            f"{where}: {module or 'the layer'} must have arrays of shapes {want}; the file has {got}. Load "
            "it on the model it was made for."
        )
    alpha = float(parts.get("alpha", 0.0)) or float(rank)
    dtype = torch.promote_types(
        layer.get_parameter("weight").dtype, torch.promote_types(down.dtype, torch.float32)
    )
    core, factor = (down, None) if mid is None else (mid, down.reshape(rank, into).mT)
    update = lora_update(core, up.reshape(out, rank), alpha / rank, layout, into=factor, dtype=dtype)
    return Placement(module, layer, slot, update)
