"""Adapters in the files of PEFT's LoRA: ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tenfac.adapters.beside import Beside, find, put, warn_left_out, whole_modules
from tenfac.adapters.build import slots_of
from tenfac.adapters.files.disk import read_tensors, write_bytes, write_tensors
from tenfac.adapters.files.lora import lora_matrices, lora_update, misfit, padded
from tenfac.adapters.files.placing import Placement, modules_of, near, place, refuse_place, unwrap, updates_of
from tenfac.adapters.updates.layout import Layout, layout_of
from tenfac.core.door import door
from tenfac.core.errors import DataError

_PREFIX = "base_model.model."
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"(?:(?P<module>.+)\.)?lora_(?P<table>embedding_)?(?P<side>[AB])(?:\.weight)?")
_INNER = "base_layer.out_proj"  # where PEFT keeps the output projection of an attention it wraps
_TWICE = (
    "is the output projection of an attention, to which PEFT adds the update twice (huggingface/peft#3774)"
)
# Settings that say how to train or where the model is, not what the adapter computes.
_IDLE = {
    *("peft_type", "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode"),
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout", "target_modules"),
    *("exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size"),
    *("runtime_config", "peft_version", "eva_config", "modules_to_save"),
}
_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # the others change the base weights


@door
def export_peft(model: nn.Module, folder: str | os.PathLike[str], *, name: str = "default") -> None:
    """Write one adapter of a model as a LoRA that ``peft.PeftModel.from_pretrained`` reads.

    Every update is written as ``B A``, with ``A[p, i, ...] = sum_q G[p, q, ...] U_in[i, q]`` and ``B =
    U_out``; its scale and kernel factors go into ``A``.

    Parameters
    ----------
    model : Module
        With an adapter of this name, not merged, on layers of PEFT's own kinds: Linear, Conv1d, Conv2d,
        Conv3d, Embedding, and query, key and value of a MultiheadAttention where they have one size.
    folder : str or path-like
        Made if there is none; ``adapter_config.json`` and ``adapter_model.safetensors`` in it are replaced.
    name : str
        The adapter.

    Raises
    ------
    DataError
        If a layer is one that PEFT cannot hold or computes wrongly: grouped or transposed convolutions, a
        dilated kernel, padding other than zeros, the output projection of an attention, raw parameters,
        layers with a forward pass of their own. If the model is merged, has no adapter of this name, or
        is itself the adapted layer.
    MissingExtraError
        If safetensors is not installed.

    Notes
    -----
    Exact up to rounding, and larger: PEFT's ``A`` holds the whole kernel and all inputs for every rank.
    Ranks of several terms add up; a layer whose rank differs is named in ``rank_pattern``. The weight given
    to ``activate`` is not written. Modules that ``also_train`` trained beside the adapter are PEFT's
    ``modules_to_save``; single parameters of adapted layers (biases) cannot be, and it warns.

    References
    ----------
    .. [1] E. J. Hu et al., LoRA: Low-rank adaptation of large language models, ICLR 2022, arXiv:2106.09685.
    .. [2] Hugging Face, PEFT: checkpoint format.
       https://huggingface.co/docs/peft/developer_guides/checkpoint

    Examples
    --------
    >>> import os, tempfile
    >>> from torch import nn
    >>> from tenfac import tucker_adapter
    >>> model = nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU())
    >>> _ = tucker_adapter(model[0], rank=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_peft(model, folder)
    ...     sorted(os.listdir(folder))
    ['adapter_config.json', 'adapter_model.safetensors']
    """
    where = "export_peft"
    targets = _targets(model, name, where)
    tensors: dict[str, Tensor] = {}
    ranks = {}
    for target, parts in targets.items():
        ranks[target] = max(a.shape[0] for a, _, _ in parts.values())
        for inner, (a, b, kind) in parts.items():
            at = ".".join(part for part in (target, inner) if part)
            tensors.update(_named(f"{_PREFIX}{at}", *padded(a, b, ranks[target]), kind))
    if not targets:
        raise DataError(
            f"{where}: the adapter {name!r} must change something that PEFT can hold; it does not."
        )
    beside = whole_modules(unwrap(model), name)
    for at, module in beside.items():
        tensors.update({f"{_PREFIX}{at}.{key}": value for key, value in module.state_dict().items()})
    usual = Counter(ranks.values()).most_common(1)[0][0]
    pattern = {f"^{re.escape(target)}": r for target, r in ranks.items() if r != usual}
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": getattr(getattr(model, "config", None), "_name_or_path", None) or None,
        "inference_mode": True,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": _target_modules(list(targets), modules_of(model)),
        "modules_to_save": list(beside) or None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "init_lora_weights": True,
    }
    os.makedirs(folder, exist_ok=True)
    write_tensors(os.path.join(folder, _WEIGHTS), tensors, {"format": "pt"}, where)
    write_bytes(os.path.join(folder, _CONFIG), (json.dumps(config, indent=2) + "\n").encode())
    warn_left_out(unwrap(model), name, where, beside)


def _targets(model: nn.Module, name: str, where: str) -> dict[str, dict[str, tuple[Tensor, Tensor, str]]]:
    """For every module that PEFT is to wrap: inner name to ``A``, ``B`` and the kind of layer."""
    attention = {id(m.out_proj): at for at, m in modules_of(model).items() if _is_attention(m)}
    targets: dict[str, dict[str, tuple[Tensor, Tensor, str]]] = {}
    heads: dict[str, dict[str, Placement]] = {}
    for found in updates_of(model, name, where):
        layout, owner = found.update.layout, attention.get(id(found.layer))
        if found.module == "" or owner == "":
            raise DataError(
                f"{where}: PEFT wraps modules inside of a model; this one is itself the adapted layer. Put "
                "it into one, such as nn.Sequential(layer), before adapting it."
            )
        if _is_attention(found.layer) and found.slot.parameter == "in_proj_weight":
            heads.setdefault(found.module, {})[found.slot.name] = found
            continue
        problem = _misfit(found.layer, layout)
        if problem:
            raise DataError(
                f"{where}: {found.module} {problem}. Merge the adapter into the weights, and save the model."
            )
        a, b = lora_matrices(found.update)
        if owner is None:
            targets.setdefault(found.module, {})[""] = (a, b, layout.kind)
        elif torch.any(b @ a != 0):
            raise DataError(
                f"{where}: {found.module} {_TWICE}. Merge the adapter into the weights, and save the model."
            )
    for at, slots in heads.items():
        out = modules_of(model)[at].out_proj._parameters["weight"]
        targets[at] = {"": _packed(slots), _INNER: _no_change(out)}
    return targets


def _packed(slots: Mapping[str, Placement]) -> tuple[Tensor, Tensor, str]:
    """Query, key and value as one update of the packed weight: their ``B`` on the diagonal."""
    downs, ups = [], []
    for found in slots.values():
        a, b = lora_matrices(found.update)
        start, stop = found.slot.rows or (0, b.shape[0])
        total = found.layer._parameters["in_proj_weight"].shape[0]
        up = b.new_zeros(total, b.shape[1])
        up[start:stop] = b
        downs.append(a)
        ups.append(up)
    return torch.cat(downs), torch.cat(ups, dim=1), "linear"


def _no_change(weight: Tensor) -> tuple[Tensor, Tensor, str]:
    """An update of rank 1 that is zero: PEFT wants one for every projection of an attention."""
    return weight.new_zeros(1, weight.shape[1]), weight.new_zeros(weight.shape[0], 1), "linear"


def _named(at: str, a: Tensor, b: Tensor, kind: str) -> dict[str, Tensor]:
    if kind == "embedding":
        return {f"{at}.lora_embedding_A": a, f"{at}.lora_embedding_B": b}
    return {f"{at}.lora_A.weight": a, f"{at}.lora_B.weight": b.reshape(*b.shape, *(1,) * (a.ndim - 2))}


def _target_modules(targets: list[str], modules: Iterable[str]) -> list[str] | str:
    """Names, or a regular expression where PEFT would find a name at the end of another module's too."""
    found = [m for m in modules if any(m == t or m.endswith(f".{t}") for t in targets)]
    if sorted(found) == sorted(targets):
        return targets
    return "|".join(re.escape(target) for target in targets)


def _is_attention(layer: nn.Module) -> bool:
    return isinstance(layer, nn.MultiheadAttention)


def _misfit(layer: nn.Module, layout: Layout) -> str | None:
    """Why PEFT's LoRA cannot hold an update of a layer, or would compute another one."""
    if layout.groups > 1:
        return f"has groups={layout.groups}, where PEFT's update is not block-diagonal and cannot be merged"
    spread = zip(getattr(layer, "dilation", ()), getattr(layer, "kernel_size", ()), strict=True)
    if layout.kind == "conv" and any(d > 1 and k > 1 for d, k in spread):
        return f"has dilation={layer.dilation}, which PEFT leaves out of its update"
    if _is_attention(layer):
        return "has query, key and value of different sizes, which PEFT does not know"
    return misfit(layer, layout, "PEFT")


# --- import -----------------------------------------------------------------------------------------------


@door
def import_peft(
    model: nn.Module, folder: str | os.PathLike[str], *, name: str = "default", activate: bool = True
) -> nn.Module:
    """Put a LoRA that PEFT saved on a model, without PEFT, as updates of structure ``"lora"``.

    Parameters
    ----------
    model : Module
        The base model itself (not PEFT's), bare or adapted by tenfac; changed in place.
    folder : str or path-like
        With ``adapter_config.json`` and ``adapter_model.safetensors``.
    name : str
        Name to give the adapter.
    activate : bool
        Whether it acts at once, with weight 1.

    Returns
    -------
    Module
        ``model``.

    Raises
    ------
    DataError
        If the adapter is not a plain LoRA (DoRA and other methods, trained biases, an initialisation that
        changes the base weights), if a setting is unknown to tenfac, if the model lacks a layer or has
        one of another shape, or if PEFT computes another update there than its weights say. If the model
        is merged or has an adapter of this name already.
    FileNotFoundError
        If a file is not there.
    MissingExtraError
        If safetensors is not installed.

    Notes
    -----
    Exact: ``W + alpha / r * B A`` (``alpha / sqrt(r)`` with rsLoRA), per layer as ``rank_pattern`` and
    ``alpha_pattern`` say. PEFT's ``modules_to_save`` are written into the model and train on, as
    ``also_train`` of ``adapt``. Everything is checked before anything is touched. Dropout is not taken over.

    References
    ----------
    .. [1] E. J. Hu et al., LoRA: Low-rank adaptation of large language models, ICLR 2022, arXiv:2106.09685.

    Examples
    --------
    >>> import tempfile
    >>> from torch import nn
    >>> from tenfac import tucker_adapter
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
    >>> _ = tucker_adapter(model[0], rank=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_peft(model, folder)
    ...     import_peft(nn.Sequential(nn.Linear(16, 32), nn.ReLU()), folder)[0].tenfac
    Adapters(default: weight (4, 16), 192 trainable numbers; on)
    """
    where = "import_peft"
    refuse_place(model, name, where)
    folder = os.fspath(folder)
    config = _read_config(os.path.join(folder, _CONFIG), where)
    path = os.path.join(folder, _WEIGHTS)
    if not os.path.exists(path) and os.path.exists(os.path.join(folder, "adapter_model.bin")):
        raise DataError(
            f"{where}: {folder!r} must hold {_WEIGHTS}; it has adapter_model.bin, a pickle, which can run "
            "code. Save it again with PEFT's safe_serialization=True."
        )
    _, tensors = read_tensors(path, where)
    modules = modules_of(model)
    beside = _saved(tensors, config, modules, path, where)
    ignored = {f"{at}.out_proj".removeprefix(".") for at, module in modules.items() if _is_attention(module)}
    plans: list[Placement] = []
    for at, (a, b) in _matrices(tensors, path, where).items():
        if at.endswith(f".{_INNER}"):
            if torch.any(b @ a != 0):
                raise DataError(f"{where}: {at} {_TWICE}: its outputs cannot be kept. Train it with tenfac.")
            continue
        if at in ignored:
            raise DataError(
                f"{where}: {at} is read by its attention, not called, so that PEFT's update of it does "
                "nothing. Train the attention itself."
            )
        if at not in modules:
            raise DataError(
                f"{where}: the model must have every module of {path!r}; there is no {at!r}"
                f"{near(at, modules)}. Load it on the model it was made for."
            )
        plans += _plans(at, modules[at], a, b, _scale(config, at, a.shape[0], where), where)
    place(plans, name, activate, where)
    put(beside, name)
    return model


def _saved(
    tensors: dict[str, Tensor],
    config: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    path: str,
    where: str,
) -> list[tuple[Beside, Tensor]]:
    """Take the arrays of ``modules_to_save`` out, with the places they are for."""
    problems: list[str] = []
    found = []
    for key in list(tensors):
        label = key.removeprefix(_PREFIX)
        if any(f".{name}." in f".{label}" for name in config.get("modules_to_save") or ()):
            found.append(find(label, tensors.pop(key), modules, problems))
    if problems:
        raise DataError(
            f"{where}: {path!r} must fit the model; {'; '.join(problems[:3])}. Load it on the model it was "
            "made for."
        )
    return [pair for pair in found if pair is not None]


def _read_config(path: str, where: str) -> dict[str, Any]:
    """PEFT's settings, refused where they are not those of a plain LoRA."""
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        kind = config["peft_type"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{where}: {path!r} must be an adapter_config.json of PEFT; {error!r}.") from error
    advice = "Merge it with PEFT (merge_and_unload), and use the merged model."
    if kind != "LORA":
        raise DataError(f"{where}: {path!r} must hold a LoRA; its peft_type is {kind}. {advice}")
    if config.get("use_dora"):
        raise DataError(f"{where}: {path!r} must hold a plain LoRA; it is a DoRA (use_dora). {advice}")
    start = config.get("init_lora_weights", True)
    if start not in _STARTS:
        raise DataError(
            f"{where}: {path!r} must belong to the base weights as they are; init_lora_weights={start!r} "
            "changes them. Save it with PEFT's path_initial_model_for_weight_conversion."
        )
    if config.get("fan_in_fan_out"):
        raise DataError(f"{where}: {path!r} is for transposed weights (fan_in_fan_out). {advice}")
    idle = _IDLE | {"init_lora_weights"}
    other = {key: value for key, value in config.items() if value and key not in idle}
    if other.get("bias") == "none":
        del other["bias"]
    if other:
        said = ", ".join(f"{key}={value!r}" for key, value in other.items())
        raise DataError(f"{where}: {path!r} must hold a plain LoRA; it has {said}. {advice}")
    return config


def _matrices(tensors: Mapping[str, Tensor], path: str, where: str) -> dict[str, tuple[Tensor, Tensor]]:
    """``A`` and ``B`` of every module, as the file names it."""
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key.removeprefix(_PREFIX))
        if match is None or not match["module"]:
            raise DataError(
                f"{where}: {path!r} must hold lora_A and lora_B only; it has {key!r}, which a plain LoRA "
                "has not. Merge it with PEFT (merge_and_unload), and use the merged model."
            )
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    if not sides or any(len(pair) < 2 for pair in sides.values()):
        single = [at for at, pair in sides.items() if len(pair) < 2]
        raise DataError(f"{where}: {path!r} must hold lora_A and lora_B; {single or 'it'} lacks one or both.")
    return {at: (pair["A"], pair["B"]) for at, pair in sides.items()}


def _scale(config: Mapping[str, Any], module: str, rank: int, where: str) -> float:
    """The multiplier of one module, by the first setting that fits its name."""
    expected = _by_pattern(config.get("rank_pattern"), module, config.get("r", 8))
    if rank != expected:
        raise DataError(
            f"{where}: {module} must have rank {expected}, as the settings say; its weights have {rank}."
        )
    alpha = _by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, usual: Any) -> Any:
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return usual


def _plans(at: str, layer: nn.Module, a: Tensor, b: Tensor, scale: float, where: str) -> list[Placement]:
    """The updates of one module: one, or those of query, key and value."""
    rank, packed = a.shape[0], _is_attention(layer) and layer._parameters["in_proj_weight"] is not None
    owners = [(owner, slot) for owner, slot in slots_of(layer, None, where) if owner is layer]
    plans = []
    for owner, slot in owners:
        weight = slot.of(owner._parameters[slot.parameter])
        layout = layout_of(owner, slot.parameter, tuple(weight.shape))
        problem = None if packed else _misfit(owner, layout)
        if problem:
            raise DataError(f"{where}: {at} {problem}: its outputs cannot be kept. Train it with tenfac.")
        rows = slot.of(b)
        kernel = tuple(n for m, n in enumerate(layout.shape) if m not in (layout.out, layout.into))
        want = ((rank, layout.shape[layout.into], *kernel), (layout.shape[layout.out], rank))
        got = (tuple(a.shape), tuple(rows.shape[:2]))
        if got != want or rows.numel() != math.prod(want[1]):
            raise DataError(
                f"{where}: {at} must have lora_A of shape {want[0]} and lora_B of shape {want[1]}; the file "
                f"has {got[0]} and {tuple(rows.shape)}. Load it on the model it was made for."
            )
        wide = torch.promote_types(weight.dtype, torch.promote_types(a.dtype, torch.float32))
        update = lora_update(a, rows.reshape(want[1]), scale, layout, dtype=wide)
        plans.append(Placement(at, owner, slot, update))
    return plans
