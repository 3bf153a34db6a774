"""What a user sees: the public names, their defaults and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import tenfac
from tests.checks import assert_equal, assert_says

PUBLIC = [
    "CP",
    "Chebyshev",
    "ConvergenceWarning",
    "DataError",
    "Discrete",
    "Electrostatics",
    "FunctionalTucker",
    "GP",
    "GaussianBasis",
    "KroneckerOperator",
    "KroneckerSBL",
    "MissingExtraError",
    "Patches",
    "RankError",
    "Report",
    "ShapeError",
    "ShiftedKronecker",
    "SumOfKronecker",
    "Tucker",
    "activate",
    "adapt",
    "adapter_report",
    "align",
    "chebyshev_from_grid",
    "chebyshev_from_points",
    "chebyshev_tucker",
    "compensate",
    "compose",
    "compress",
    "corcondia",
    "cp",
    "cp_scree",
    "TuckerTrain",
    "TuckerTransformer",
    "cp_complete",
    "datasets",
    "detach",
    "disable",
    "export_lycoris",
    "export_peft",
    "factor_match_score",
    "fold",
    "from_tensorly",
    "from_xarray",
    "gaussian_sum",
    "hooi",
    "import_lycoris",
    "import_peft",
    "khatri_rao",
    "kron_omp",
    "kronecker",
    "kronecker_log_evidence",
    "load",
    "merge",
    "load_adapter",
    "mode_product",
    "multi_mode_product",
    "nearest_kronecker",
    "nuts",
    "plot",
    "pyro_model",
    "randomized_tucker",
    "read_charges",
    "save",
    "save_adapter",
    "split",
    "svi",
    "to_torch",
    "to_xarray",
    "tucker",
    "tucker_adapter",
    "tucker_append",
    "tucker_cross",
    "tucker_complete",
    "tucker_nonnegative",
    "unfold",
    "unmerge",
]
DEFAULTS = {
    "Chebyshev": {"domain": (-1.0, 1.0)},
    "Electrostatics": {"kappa": 0.0, "tol": 1e-06},
    "GP": {"derivative": 0},
    "GaussianBasis": {"tol": 1e-10},
    "from_xarray": {"tol": 1e-10, "discrete": ()},
    "gaussian_sum": {"tol": 1e-10},
    "FunctionalTucker": {
        "inference": "collapsed",
        "rank": "auto",
        "core": "full",
        "kernel": "auto",
        "label_rank": 0,
        "response": "identity",
        "random_state": 0,
        "verbose": 0,
        "likelihood": "gaussian",
        "noise": "auto",
        "terms": "auto",
    },
    "Report": {"history": (), "warnings": ()},
    "TuckerTransformer": {"center": True},
    "chebyshev_from_grid": {"tol": 1e-10},
    "chebyshev_from_points": {"max_iter": 100, "verbose": 0},
    "chebyshev_tucker": {
        "tol": 1e-10,
        "max_evals": 3000000,
        "max_degree": 2048,
        "vectorized": True,
        "random_state": 0,
        "verbose": 0,
    },
    "compensate": {"bias_correction": True, "name": "compensation"},
    "compose": {"tol": 1e-10, "max_evals": 1_000_000, "random_state": 0, "verbose": 0},
    "compress": {"metric": "auto", "bias_correction": True},
    "adapt": {
        "also_train": (),
        "structure": "tucker",
        "scale": 1.0,
        "path": "auto",
        "name": "default",
        "random_state": 0,
    },
    "cp": {"max_iter": 2000, "tol": 1e-07, "nonnegative": False, "random_state": 0, "verbose": 0},
    "cp_complete": {
        "n_init": 10,
        "max_iter": 300,
        "tol": 1e-05,
        "holdout": 0.1,
        "random_state": 0,
        "verbose": 0,
    },
    "cp_scree": {"max_iter": 2000, "tol": 1e-07, "nonnegative": False, "random_state": 0, "verbose": 0},
    "export_lycoris": {"name": "default", "prefix": "lycoris"},
    "export_peft": {"name": "default"},
    "factor_match_score": {"weights": True},
    "hooi": {"max_iter": 100, "tol": 1e-06, "verbose": 0},
    "import_lycoris": {"name": "default", "prefix": "lycoris", "activate": True},
    "import_peft": {"name": "default", "activate": True},
    "detach": {"keep_merged": False},
    "kron_omp": {"normalize": True, "snapshots": False, "verbose": 0},
    "KroneckerSBL": {
        "update": "fixed_point",
        "prune_alpha": 0.05,
        "n_starts": 2,
        "n_hops": 0,
        "values": "full",
        "prior": "kronecker",
        "max_iter": 500,
        "tol": 3e-06,
        "random_state": 0,
        "verbose": 0,
    },
    "kronecker_log_evidence": {"snapshots": False},
    "load_adapter": {"activate": True, "strict_base": True, "also_trained": True},
    "nearest_kronecker": {"terms": 1, "tol": 1e-08, "max_iter": 500, "random_state": 0, "verbose": 0},
    "nuts": {
        "num_samples": 500,
        "warmup": 500,
        "chains": 2,
        "prior": "gp",
        "fixed": False,
        "random_state": 0,
        "verbose": 0,
    },
    "pyro_model": {"prior": "gp", "fixed": False},
    "randomized_tucker": {"oversampling": 8, "power_iterations": 1, "random_state": 0},
    "save_adapter": {"name": "default"},
    "split": {"tol": 1e-10},
    "svi": {
        "max_iter": 3000,
        "guide": "structured",
        "learning_rate": 0.03,
        "num_samples": 1000,
        "prior": "gp",
        "fixed": False,
        "random_state": 0,
        "verbose": 0,
    },
    "to_torch": {"trainable": False},
    "tucker": {"batch": 0},
    "tucker_adapter": {
        "structure": "tucker",
        "scale": 1.0,
        "path": "auto",
        "name": "default",
        "random_state": 0,
    },
    "tucker_complete": {
        "n_init": 10,
        "max_iter": 300,
        "tol": 1e-05,
        "holdout": 0.1,
        "random_state": 0,
        "verbose": 0,
    },
    "tucker_nonnegative": {"max_iter": 1000, "tol": 1e-05, "random_state": 0, "verbose": 0},
    "tucker_cross": {"batch": 100000, "random_state": 0, "verbose": 0},
}
ROOMS = ("datasets", "plot")  # public modules


def names_of(room: str) -> list[str]:
    """Public names of a public module, or the module alone if it says none."""
    try:
        public = getattr(import_module(f"tenfac.{room}"), "__all__", [])
    except ImportError:
        public = []
    return [f"{room}.{name}" for name in public] or [room]


NAMES = [name for name in tenfac.__all__ if name not in ROOMS] + [
    name for room in ROOMS for name in names_of(room)
]


def look_up(name: str) -> Any:
    found: Any = tenfac
    for part in name.split("."):
        found = getattr(found, part)
    return found


def methods_of(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods, properties and class methods that tenfac defines, over all base classes."""
    for name, kind in inspect.getmembers_static(cls):
        member = kind.fget if isinstance(kind, property) else getattr(kind, "__func__", kind)
        home = getattr(member, "__module__", None) or ""
        if not name.startswith("_") and inspect.isfunction(member) and home.startswith("tenfac"):
            yield name, member


def sections(docstring: str) -> dict[str, str]:
    """Title and text of each underlined section."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def unannotated(function: Any) -> list[str]:
    """Parameters without annotation, and ``return`` if that one is missing."""
    signature = inspect.signature(function)
    missing = [
        p.name
        for p in signature.parameters.values()
        if p.annotation is p.empty and p.name not in ("self", "cls")
    ]
    return missing + ["return"] * (signature.return_annotation is signature.empty)


def gaps_of_function(function: Any) -> list[str]:
    """What the docstring and the annotations of a public function lack."""
    text = inspect.getdoc(function) or ""
    found = sections(text)
    gaps = [] if text else ["docstring"]
    gaps += [f"annotation of {name}" for name in unannotated(function)]
    described = found.get("Parameters", "") + found.get("Other Parameters", "")
    parameters = inspect.signature(function).parameters
    gaps += [
        f"parameter {name}" for name in parameters if not re.search(rf"^\W*.*\b{name}\b.*:", described, re.M)
    ]
    returns = inspect.signature(function).return_annotation
    if returns not in (None, "None", type(None)) and not {"Returns", "Yields"} & set(found):
        gaps.append("section Returns")
    if ">>>" not in found.get("Examples", ""):
        gaps.append("section Examples")
    return gaps


def gaps_of_class(cls: type) -> list[str]:
    text = cls.__dict__.get("__doc__") or ""
    if issubclass(cls, (Exception, Warning)):
        return [] if text else ["docstring"]
    found = sections(inspect.cleandoc(text))
    gaps = [] if ">>>" in found.get("Examples", "") else ["section Examples"]
    if inspect.signature(cls).parameters and "Parameters" not in found:
        gaps.append("section Parameters")
    for name, member in methods_of(cls):
        gaps += [] if inspect.getdoc(member) else [f"docstring of {name}"]
        gaps += [f"annotation of {part} in {name}" for part in unannotated(member)]
    return gaps


# --- names and docstrings ---------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert_equal(sorted(tenfac.__all__), sorted(PUBLIC))
    assert set(PUBLIC) <= set(dir(tenfac))


def test_no_public_name_is_hidden_by_a_room_of_the_same_name() -> None:
    # importing a room sets an attribute of tenfac: a function and a room of one name exclude each other
    rooms = {path.parent.name for path in Path(tenfac.__file__).parent.glob("*/__init__.py")}
    assert_equal(sorted(rooms & set(PUBLIC)), sorted(ROOMS))


def defaults_of(found: Any) -> dict[str, Any]:
    """Parameters with a default other than None."""
    plain = inspect.isfunction(found) or (inspect.isclass(found) and not issubclass(found, Exception))
    parameters = inspect.signature(found).parameters.values() if plain else ()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.default is not None}


def test_the_defaults_are_these() -> None:
    found = {name: defaults_of(look_up(name)) for name in PUBLIC}
    assert_equal({name: values for name, values in found.items() if values != DEFAULTS.get(name, {})}, {})
    assert_equal(sorted(set(DEFAULTS) - set(PUBLIC)), [])


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError) as error:
        _ = tenfac.tuckr
    assert_says(error, "'tuckr'")


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented_and_annotated(name: str) -> None:
    found = look_up(name)
    if inspect.isclass(found):
        assert_equal(gaps_of_class(found), [])
    elif callable(found):
        assert_equal(gaps_of_function(found), [])
    else:
        assert found.__doc__


def test_gaps_in_documentation_are_found() -> None:
    def bare(x, *, log=True):
        return x

    class Bare:
        def __init__(self, rank: int) -> None: ...

        def fit(self, X):
            return X

    Bare.fit.__module__ = "tenfac.bayes"
    for gap in ("docstring", "annotation of log", "annotation of return", "parameter x", "section Examples"):
        assert gap in gaps_of_function(bare)
    for gap in ("section Parameters", "section Examples", "docstring of fit", "annotation of X in fit"):
        assert gap in gaps_of_class(Bare)
