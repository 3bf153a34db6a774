"""What an import loads, and what is said where an extra is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

import tenfac
from tests.checks import assert_equal, assert_says
from tests.fresh import in_fresh_python
from tests.test_public import NAMES

ADAPTERS = sorted(name for name, home in tenfac._HOME.items() if home.startswith("adapters."))
OPTIONAL = (
    "dask",
    "gpytorch",
    "jax",
    "linear_operator",
    "matplotlib",
    "pandas",
    "PIL",
    "pyro",
    "torch",
    "xarray",
)


def loaded_by(code: str) -> set[str]:
    """Top-level modules outside the standard library that code loads in a new interpreter."""
    listing = (
        "import sys\n"
        "before = set(sys.modules)\n"
        f"{code}\n"
        "after = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(after - set(sys.stdlib_module_names)))"
    )
    return set(in_fresh_python(listing).split())


def test_import_tenfac_loads_nothing_but_the_standard_library() -> None:
    assert loaded_by("import tenfac\ndir(tenfac)") == {"tenfac"}


def test_tucker_on_numpy_loads_no_heavy_library() -> None:
    loaded = loaded_by("import numpy, tenfac\ntenfac.tucker(numpy.ones((3, 4, 5)), rank=1)")
    assert "numpy" in loaded
    assert loaded.isdisjoint({"torch", "sklearn", "pandas", "matplotlib", "jax", "xarray"})


def test_datasets_load_only_the_library_they_come_from() -> None:
    assert loaded_by("import tenfac.datasets").isdisjoint({"tensorly", "sklearn", "scipy", "pandas", "torch"})


# --- missing extras ---------------------------------------------------------------------------------------

MISSING = {
    "bayes": ("pyro", "tenfac.nuts(tenfac.FunctionalTucker(), [[0.0], [1.0]], [0.0, 1.0])"),
    "table": ("pandas", "tenfac.datasets.load_il2().to_frame()"),
    "plot": ("PIL", "tenfac.datasets.load_sample_image('china')"),
    "torch": ("torch", "tenfac.to_torch(None)"),
    "xarray": ("xarray", "tenfac.to_xarray(None)"),
}


def missed(call: str) -> str:
    """Code that makes a call and prints the MissingExtraError it raises."""
    return f"import tenfac\ntry:\n    {call}\nexcept tenfac.MissingExtraError as error:\n    print(error)"


def test_a_missing_extra_is_named_with_its_command() -> None:
    calls = "\n".join(missed(call) for _, call in MISSING.values())
    said = in_fresh_python(calls, blocked=tuple(library for library, _ in MISSING.values())).splitlines()
    for line, extra in zip(said, MISSING, strict=True):
        assert_says(line, f"pip install 'tenfac[{extra}]'")


def test_a_file_of_torch_arrays_without_torch_names_the_extra(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = str(tmp_path / "x.tenfac")
    tenfac.save(tenfac.tucker(torch.ones(3, 4), rank=1), path)
    code = missed(f"tenfac.load({path!r})")
    assert_says(in_fresh_python(code, blocked=("torch",)), "pip install 'tenfac[torch]'")


def test_every_plot_without_matplotlib_names_the_extra() -> None:
    plots = [name.partition(".")[2] for name in NAMES if name.startswith("plot.")]
    code = (
        "import inspect, tenfac\n"
        f"for name in {plots}:\n"
        "    try:\n"
        "        plot = getattr(tenfac.plot, name)\n"
        "        needed = [p for p in inspect.signature(plot).parameters.values() if p.default is p.empty]\n"
        "        plot(*(object() for p in needed if p.kind is not p.KEYWORD_ONLY))\n"
        "    except tenfac.MissingExtraError as error:\n"
        "        print(name, error)"
    )
    lines = in_fresh_python(code, blocked=("matplotlib",)).splitlines()
    assert_equal([line.split()[0] for line in lines], plots)
    for line in lines:
        assert_says(line, "pip install 'tenfac[plot]'")


def test_a_blocked_library_is_not_found() -> None:
    code = "import importlib.util as u; print(u.find_spec('pandas'), u.find_spec('numpy') is not None)"
    assert_equal(in_fresh_python(code, blocked=("pandas",)), "None True")


def test_adapters_without_torch_name_the_extra() -> None:
    code = "\n".join(missed(f"tenfac.{name}") for name in ADAPTERS)
    said = in_fresh_python(code, blocked=("torch",)).splitlines()
    assert_equal(len(said), len(ADAPTERS))
    for line in said:
        assert_says(line, "pip install 'tenfac[adapters]'")


def test_everything_but_plots_and_adapters_can_be_imported_without_any_extra() -> None:
    wanted = [name for name in NAMES if not name.startswith("plot") and name not in ADAPTERS]
    code = "import tenfac\n" + "\n".join(f"tenfac.{name}" for name in wanted) + "\nprint('all')"
    assert_equal(in_fresh_python(code, blocked=OPTIONAL), "all")
