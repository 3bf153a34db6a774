"""The rules of the house that a program can check: tests that can fail, layers, sizes, habits, notebooks."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import scan
from tests.checks import assert_equal, assert_says

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "tenfac").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TUTORIALS = sorted((ROOT / "tutorials").glob("[0-9]*.py"))
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
MAY_PRINT = {"cli.py", "__main__.py"}
MACHINE_PATH = re.compile(r"(?<![\w.~])(?:/(?:work|root|home|Users)/|[A-Z]:\\+Users)")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def complaints(paths: list[Path], judge: object) -> list[str]:
    """What ``judge(source)`` finds in each file, with the name of the file."""
    return [
        f"{relative(path)}, {found}" for path in paths for found in judge(path.read_text(encoding="utf-8"))
    ]


# --- code -------------------------------------------------------------------------------------------------


def test_every_check_of_every_test_can_fail() -> None:
    assert_equal(complaints(TESTS, scan.idle_checks), [])


def test_functions_of_the_package_have_at_most_60_lines_without_their_docstring() -> None:
    assert_equal(complaints(PACKAGE, lambda source: scan.long_functions(source, limit=60)), [])


def test_files_have_at_most_500_lines() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE + TESTS}
    assert_equal({name: length for name, length in lengths.items() if length > 500}, {})


def test_the_package_has_no_global_no_pickle_no_bare_except_no_print_and_no_show() -> None:
    quiet = [path for path in PACKAGE if path.name not in MAY_PRINT]
    loud = [path for path in PACKAGE if path.name in MAY_PRINT]
    assert_equal(complaints(quiet, scan.bad_habits), [])
    assert_equal(complaints(loud, lambda source: scan.bad_habits(source, may_print=True)), [])


# --- layers -----------------------------------------------------------------------------------------------


def thawed(source: str) -> list[str]:
    """Dataclasses that can be changed after they were made."""
    found = []
    for node in scan.nodes_of(source):
        for mark in node.decorator_list if isinstance(node, ast.ClassDef) else []:
            text = ast.unparse(mark)
            if text.startswith("dataclass") and "frozen=True" not in text:
                found.append(node.name)
    return found


def test_dataclasses_are_frozen_but_for_the_one_that_counts() -> None:
    found = [name for path in PACKAGE for name in thawed(path.read_text(encoding="utf-8"))]
    assert_equal(found, ["Progress"])
    assert_equal(thawed("@dataclass(eq=False)\nclass A: ...\n@dataclass(frozen=True)\nclass B: ..."), ["A"])


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package in ``folder``, with the contracts of its pyproject.toml."""
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_no_room_imports_a_room_above_or_beside_it() -> None:
    run = lint_imports(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core/errors.py", "from tenfac import decompose"),
        ("datasets/dataset.py", "import tenfac.bayes"),
        ("bayes/__init__.py", "import tenfac.plot"),
    ],
)
def test_an_import_against_the_layers_is_refused(tmp_path: Path, file: str, line: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "tenfac", tmp_path / "tenfac", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tenfac" / "plot" / "__init__.py").touch()
    path = tmp_path / "tenfac" / file
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    run = lint_imports(tmp_path)
    assert run.returncode == 1
    assert_says(run.stdout, "BROKEN", "Rooms are stacked by dependency")


def test_every_room_has_its_layer() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = " ".join(settings["tool"]["importlinter"]["contracts"][0]["layers"])
    rooms = {path.stem if path.suffix else path.name for path in (ROOT / "tenfac").iterdir()}
    rooms -= {"__init__", "__main__", "__pycache__", "py"}
    assert_equal(sorted(rooms - set(re.findall(r"\w+", layers))), [])


# --- files ------------------------------------------------------------------------------------------------


def files_of_the_project() -> list[Path]:
    """Files under version control or about to be, or all files of an unpacked archive."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
            "\0"
        )
        return [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    found = [path for path in ROOT.rglob("*") if path.is_file()]
    return [
        path
        for path in found
        if not any(part.startswith((".", "__")) for part in path.relative_to(ROOT).parts[:-1])
    ]


def machine_paths(text: str) -> list[str]:
    return [line.strip()[:120] for line in text.splitlines() if MACHINE_PATH.search(line)]


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = {}
    for path in files_of_the_project():
        try:
            lines = machine_paths(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
        if lines:
            found[relative(path)] = lines[:3]
    assert_equal(found, {})


@pytest.mark.parametrize("folder", ["work", "root", "home", "Users"])
def test_a_folder_of_one_machine_is_found(folder: str) -> None:
    assert len(machine_paths(f'open("/{folder}/x.csv")')) == 1
    assert len(machine_paths(f"see /{folder}/x.csv")) == 1
    assert machine_paths(f"https://example.org/{folder}/x and ./{folder}/x and ~/{folder}/x") == []


def test_the_tree_of_the_tests_mirrors_the_package() -> None:
    rooms = {path.parent for path in PACKAGE if path.parent.parent == ROOT / "tenfac"}
    assert_equal([room.name for room in sorted(rooms) if not (ROOT / "tests" / room.name).is_dir()], [])


# --- the page for contributors ----------------------------------------------------------------------------

ROOMS_AND_FILES = r"(?:tenfac|tests|docs|tutorials|benchmarks|\.ci)/[\w./<>\[\]*-]*|[\w-]+\.(?:md|toml|txt)"
NAMED = re.compile(rf"(?<![\w/.<])(?:{ROOMS_AND_FILES})")
HELD = re.compile(r"((?:`\w+`(?:, | and | or | ))+)(?:of|in) `((?:tests|tenfac)/[\w/]+\.py)`")


def missing_paths(text: str) -> list[str]:
    """Paths that a page names and the project lacks; of ``a/<name>.py`` the folder is meant."""
    named = [re.sub(r"[^/]*<.*", "", path).rstrip(".") for path in NAMED.findall(text)]
    return sorted({path for path in named if not list(ROOT.glob(path)) and "_build" not in path})


def missing_names(text: str) -> list[str]:
    """Names that a page says are in a file (```a`, `b` of `tests/x.py```) and that file does not make."""
    held = [(name, file) for names, file in HELD.findall(text) for name in re.findall(r"`(\w+)`", names)]
    sources = {file: (ROOT / file).read_text(encoding="utf-8") for _, file in held}
    made = r"^(?:    )?(?:def {0}\(|class {0}\b|{0}\b.*[=:])"
    lost = [(name, file) for name, file in held if not re.search(made.format(name), sources[file], re.M)]
    return [f"{file}: {name}" for name, file in lost]


def test_every_path_and_name_of_the_page_for_contributors_exists() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    assert len(NAMED.findall(text)) > 40
    assert len(HELD.findall(text)) > 10
    assert_equal((missing_paths(text), missing_names(text)), ([], []))


def test_a_path_or_a_name_that_does_not_exist_is_found() -> None:
    gone = "`tests/nets.py`, `docs/<name>.md`, `tenfac/lost/<name>.py`, README.md and NEWS.md"
    assert_equal(missing_paths(gone), ["NEWS.md", "tenfac/lost/", "tests/nets.py"])
    found = missing_names("`assert_says`, `assert_vague` and `assert_equal` of `tests/checks.py`")
    assert_equal(found, ["tests/checks.py: assert_vague"])


# --- tutorials --------------------------------------------------------------------------------------------


def cells(path: Path) -> list[tuple[str, str]]:
    """Kind and text of each cell of a percent script or of a notebook made from it."""
    if path.suffix == ".py":
        import jupytext

        return [(cell.cell_type, cell.source.strip()) for cell in jupytext.read(path).cells]
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook["cells"]]


def test_every_tutorial_has_its_notebook_and_every_notebook_its_tutorial() -> None:
    assert_equal([path.stem for path in NOTEBOOKS], [path.stem for path in TUTORIALS])


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_a_notebook_has_the_cells_of_its_script(script: Path) -> None:
    assert_equal(cells(script.with_suffix(".ipynb")), cells(script))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_from_top_to_bottom_without_an_error(notebook: Path) -> None:
    code = [c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    assert_equal([cell["execution_count"] for cell in code], list(range(1, len(code) + 1)))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert_equal([output for output in outputs if output["output_type"] == "error"], [])
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert figures, "no figure: a reader on the web sees only what the notebook holds"


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_asserts_its_numbers(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    assert re.search(r"^assert ", source, flags=re.MULTILINE)
    assert_equal(scan.idle_checks(source), [])


def test_another_cell_in_the_notebook_is_found(tmp_path: Path) -> None:
    script = tmp_path / "01_x.py"
    script.write_text("# %% [markdown]\n# # Title\n\n# %%\nx = 1\n", encoding="utf-8")
    same = [{"cell_type": "markdown", "source": ["# Title"]}, {"cell_type": "code", "source": "x = 1"}]
    script.with_suffix(".ipynb").write_text(json.dumps({"cells": same}), encoding="utf-8")
    assert_equal(cells(script.with_suffix(".ipynb")), cells(script))
    same[1]["source"] = "x = 2"
    script.with_suffix(".ipynb").write_text(json.dumps({"cells": same}), encoding="utf-8")
    assert cells(script.with_suffix(".ipynb")) != cells(script)
