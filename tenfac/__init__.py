"""Structure that factorises over modes: a core and one factor per mode.

Public names are imported when first used (PEP 562), so ``import tenfac`` loads nothing but this file.
"""

import sys
from importlib import import_module
from types import FrameType
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "CP": "core.cp",
    "ConvergenceWarning": "core.errors",
    "DataError": "core.errors",
    "Chebyshev": "core.modes.chebyshev",
    "Discrete": "core.modes.discrete",
    "Electrostatics": "functional.charges.electrostatics",
    "FunctionalTucker": "bayes.functional_tucker",
    "GP": "core.modes.gp",
    "GaussianBasis": "functional.charges.gaussian_basis",
    "KroneckerOperator": "kron.operator",
    "KroneckerSBL": "bayes.sparse.kronecker_sbl",
    "MissingExtraError": "core.errors",
    "Patches": "functional.patches",
    "RankError": "core.errors",
    "Report": "core.report",
    "ShapeError": "core.errors",
    "ShiftedKronecker": "kron.shifted",
    "SumOfKronecker": "kron.sums",
    "Tucker": "core.tucker",
    "activate": "adapters.merging",
    "adapt": "adapters.model",
    "adapter_report": "adapters.report",
    "align": "decompose.cp.align",
    "chebyshev_from_grid": "functional.from_grid",
    "chebyshev_from_points": "functional.points.from_points",
    "chebyshev_tucker": "functional.build",
    "compensate": "adapters.compression.compensate",
    "compose": "functional.algebra",
    "compress": "adapters.compression.compress",
    "corcondia": "decompose.cp.rank",
    "cp": "decompose.cp.als",
    "cp_scree": "decompose.cp.rank",
    "detach": "adapters.merging",
    "disable": "adapters.merging",
    "export_lycoris": "adapters.files.lycoris",
    "export_peft": "adapters.files.peft",
    "factor_match_score": "decompose.cp.align",
    "TuckerTrain": "core.train",
    "TuckerTransformer": "decompose.transformer",
    "cp_complete": "decompose.completion.complete",
    "fold": "core.ops",
    "from_tensorly": "core.interchange",
    "from_xarray": "functional.labeled",
    "gaussian_sum": "functional.charges.gaussian_sum",
    "hooi": "decompose.hooi",
    "import_lycoris": "adapters.files.lycoris",
    "import_peft": "adapters.files.peft",
    "khatri_rao": "core.ops",
    "kron_omp": "bayes.sparse.omp",
    "kronecker": "core.ops",
    "kronecker_log_evidence": "bayes.sparse.evidence",
    "load": "core.io",
    "merge": "adapters.merging",
    "load_adapter": "adapters.files.own",
    "mode_product": "core.ops",
    "multi_mode_product": "core.ops",
    "nearest_kronecker": "kron.nearest",
    "nuts": "bayes.pyro.model",
    "pyro_model": "bayes.pyro.model",
    "randomized_tucker": "decompose.randomized",
    "read_charges": "functional.charges.files",
    "save": "core.io",
    "save_adapter": "adapters.files.own",
    "split": "functional.patches",
    "svi": "bayes.pyro.model",
    "to_torch": "functional.to_torch",
    "to_xarray": "functional.labeled",
    "tucker": "decompose.hosvd",
    "tucker_adapter": "adapters.build",
    "tucker_append": "decompose.append",
    "tucker_cross": "decompose.cross",
    "tucker_complete": "decompose.completion.complete",
    "tucker_nonnegative": "decompose.tucker_nonnegative",
    "unfold": "core.ops",
    "unmerge": "adapters.merging",
}
_MODULES = ("datasets", "plot")

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"tenfac.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"tenfac.{name}")
    elif _is_imported_from(sys._getframe(1)):  # which would say no more than that there is none
        raise ImportError(f"cannot import name {name!r} from 'tenfac'.{_hint(name)}", name=name)
    else:
        raise AttributeError(f"module 'tenfac' has no attribute {name!r}.{_hint(name)}")
    globals()[name] = value
    return value


def _is_imported_from(frame: FrameType) -> bool:
    """Whether a frame stands at ``from tenfac import name``."""
    from opcode import opname

    return frame.f_lasti >= 0 and opname[frame.f_code.co_code[frame.f_lasti]] == "IMPORT_FROM"


def _hint(name: str) -> str:
    if name.startswith("_"):
        return ""
    from tenfac.core.errors import nearest_name

    return nearest_name(name, sorted(__all__, key=lambda known: known[0] != name[0]))


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
