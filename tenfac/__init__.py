"""Structure that factorises over modes: a core and one factor per mode.

Public names are imported when first used (PEP 562), so ``import tenfac`` loads nothing but this file.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_HOME = {
    "CP": "core.cp",
    "ConvergenceWarning": "core.errors",
    "DataError": "core.errors",
    "Discrete": "core.modes.discrete",
    "FunctionalTucker": "bayes.functional_tucker",
    "MissingExtraError": "core.errors",
    "RankError": "core.errors",
    "Report": "core.report",
    "ShapeError": "core.errors",
    "Tucker": "core.tucker",
    "cp_complete": "decompose.completion",
    "fold": "core.ops",
    "from_tensorly": "core.interchange",
    "khatri_rao": "core.ops",
    "kronecker": "core.ops",
    "load": "core.io",
    "mode_product": "core.ops",
    "multi_mode_product": "core.ops",
    "save": "core.io",
    "tucker": "decompose.hosvd",
    "tucker_complete": "decompose.completion",
    "unfold": "core.ops",
}
_MODULES = ("datasets", "plot")

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"tenfac.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"tenfac.{name}")
    else:
        raise AttributeError(f"module 'tenfac' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
