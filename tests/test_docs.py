"""The documentation: its Python blocks run and print what they show, and every public name is in the API."""

from __future__ import annotations

import ast
import importlib
import io
import json
import re
import sys
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import tenfac
from tests.checks import assert_equal
from tests.test_public import ROOMS, names_of
from tests.test_readme import FENCE, PYTHON, Block, blocks_of, same_output

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUNNABLE = [path for path in PAGES if any(b.language in PYTHON for b in blocks_of(path.read_text("utf-8")))]


def run_block(block: Block, name: str) -> str:
    """What a block prints, in a namespace of its own; warnings are errors."""
    printed = io.StringIO()
    with redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(block.text, name, "exec"), {"__name__": name})
    return printed.getvalue()


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_the_blocks_of_a_page_run_and_print_what_they_show(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(path.read_text("utf-8")):
        if block.language in PYTHON:
            got = run_block(block, f"{path.name}, line {block.line}")
            assert block.output is not None, f"line {block.line} shows no output"
            assert same_output(block.output, got), (
                f"line {block.line} promises:\n{block.output}\nprinted:\n{got}"
            )


def test_every_page_of_a_capability_has_a_block_that_runs() -> None:
    pages = {"arrays", "kronecker", "functions", "functional_tucker", "sparse", "adapters"}
    assert_equal(sorted(pages - {path.stem for path in RUNNABLE}), [])


def test_the_api_has_every_public_name_once() -> None:
    listed = re.findall(r"^   tenfac\.([\w.]+)$", (DOCS / "api.md").read_text("utf-8"), flags=re.MULTILINE)
    public = [name for name in tenfac.__all__ if name not in ROOMS]
    public += [name for room in ROOMS for name in names_of(room)]
    for room in ("bayes.exact", "bayes.sparse", "core.modes.kernels"):
        names = import_module(f"tenfac.{room}").__all__
        public += [f"{room}.{name}" for name in names if name not in tenfac.__all__ and not name.isupper()]
    assert_equal(sorted(listed), sorted(public))


def test_every_name_of_tenfac_in_the_text_exists() -> None:
    wrong = []
    for path in PAGES:
        prose = FENCE.sub("", path.read_text("utf-8"))
        for name in re.findall(r"`tenfac\.([A-Za-z_][\w.]*)", prose):
            wrong += [] if exists(name) else [f"{path.name}: tenfac.{name}"]
    assert_equal(wrong, [])


def exists(name: str) -> bool:
    """Whether ``tenfac.name`` is an attribute, or a module, or an attribute of a module."""
    found: Any = tenfac
    path = "tenfac"
    for part in name.split("."):
        path = f"{path}.{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(path)
            except ImportError:
                return False
    return True


def test_every_relative_link_leads_to_a_file() -> None:
    made = {f"generated/tutorials/{path.name}" for path in (DOCS.parent / "tutorials").glob("[0-9]*.ipynb")}
    broken = []
    for path in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCE.sub("", path.read_text("utf-8"))):
            if "://" not in link and link not in made and not (DOCS / link).exists():
                broken.append(f"{path.name}: {link}")
    assert_equal(broken, [])


# --- the numbers of benchmarks ------------------------------------------------------------------------------


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that reads the numbers, as the pages use it."""
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    yield importlib.import_module("results")
    sys.modules.pop("results", None)


def test_every_benchmark_has_a_table_and_says_what_it_measures(results: Any) -> None:
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", results.page(), flags=re.M | re.S))
    files = {path.stem for path in (DOCS.parent / "benchmarks" / "results").glob("*.json")} - results.INTERNAL
    assert_equal(sorted(sections), sorted(name.replace("_", " ") for name in files))
    for name, text in sections.items():
        assert "|---|" in text or "\n- " in text, name
        assert re.search(r"```text\n\w", text), name


def test_a_table_shows_the_numbers_of_the_file(results: Any) -> None:
    lines = results.section({"a": {"x": 1.23456, "r": [2, 3], "deep": {"y": True}}, "b": {"x": 1234}})
    assert_equal(
        lines[:4],
        ["| | x | r | deep: y |", "|---|---|---|---|", "| a | 1.23 | 2 × 3 | yes |", "| b | 1,234 |  |  |"],
    )


def test_every_number_that_a_page_measures_is_in_its_file(results: Any) -> None:
    places = [p for path in PAGES for p in re.findall(r"\{measured\}`([^`]+)`", path.read_text("utf-8"))]
    assert len(places) > 5
    for place in places:
        assert re.fullmatch(r"[\d.,e+-]+", results.measured(place)), place


def test_the_picture_is_what_its_script_draws() -> None:
    script = DOCS / "images" / "idea.py"
    drawn: dict[str, Any] = {"__name__": "idea"}
    exec(compile(script.read_text("utf-8"), str(script), "exec"), drawn)
    assert_equal(drawn["picture"](), script.with_suffix(".svg").read_text("utf-8"))


def test_notebooks_are_shown_and_not_run() -> None:
    tree = ast.parse((DOCS / "conf.py").read_text("utf-8"))
    settings = {
        n.targets[0].id: n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
    }
    assert_equal(ast.literal_eval(settings["nb_execution_mode"]), "off")
    for path in (DOCS.parent / "tutorials").glob("[0-9]*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        assert any(cell.get("outputs") for cell in cells), f"{path.name} was committed without its outputs"
