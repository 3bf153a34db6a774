"""What cannot be used is refused in one line on standard error, with exit code 2 and nothing printed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checks import assert_equal, assert_says

HEADER = "cell,time,y"
GOOD = ["a,1,1.0", "a,2,2.0", "b,1,3.0", "b,2,4.0"]


def assert_refused(run: Any, *parts: str) -> None:
    """Assert exit code 2, no output, and one line of explanation that contains every part."""
    assert_equal(run.code, 2)
    assert_equal(run.out, "")
    assert_equal(run.err.count("\n"), 1)
    assert run.err.startswith("tenfac: ")
    assert_says(run.err, *parts)


TABLES = {
    "no rows": ([HEADER], ["empty", "no rows"]),
    "nothing at all": ([""], ["empty", "header"]),
    "no header": (["1,2,3", "4,5,6"], ["first row must name the columns", "1, 2, 3"]),
    "a column twice": (["cell,cell,y", "a,b,1"], ["two columns are named 'cell'"]),
    "text in the value": ([HEADER, *GOOD, "c,1,high"], ["row 5 (line 6)", "'y'", "'high'", "not a number"]),
    "decimal comma": (["cell;time;y", "a;1;0,5"], ["row 1", "'0,5'", "with a point"]),
    "an underscore": ([HEADER, "a,1,1_000"], ["'1_000' is not a number"]),
    "no value": ([HEADER, "a,1,", "b,2,nan"], ["empty", "no row has a value in 'y'"]),
    "infinite value": ([HEADER, *GOOD, "c,1,inf"], ["row 5", "'y'", "infinite"]),
    "infinite index": ([HEADER, *GOOD, "a,-inf,1", "b,inf,2"], ["row 5", "'time'", "infinite", "2 rows"]),
    "missing index": ([HEADER, *GOOD, "a,NaN,1"], ["row 5", "'time'", "missing (NaN)", "1 row affected"]),
    "missing label": ([HEADER, *GOOD, ",3,1"], ["row 5", "'cell'", "missing"]),
    "a label among numbers": ([HEADER, *GOOD, "a,late,1"], ["row 5", "'late'", "--discrete time"]),
    "a wrong date": ([HEADER, "a,2024-02-28,1", "a,2024-02-30,1"], ["row 2", "'2024-02-30'", "not a date"]),
    "constant mode": ([HEADER, "a,1,1", "a,2,2"], ["'cell' is constant", "only index is a", "--modes time"]),
    "duplicates": (
        [HEADER, *GOOD, "b,1,3.5", "a,1.0,1"],
        ["duplicate indices in 2 rows", "row 6 repeats row 1 (cell=a, time=1)", "--duplicates keep"],
    ),
    "a short row": ([HEADER, *GOOD, "c,1"], ["row 5 (line 6)", "2 cells", "3 columns"]),
    "a long row": ([HEADER, "a,1,2,3"], ["row 1", "4 cells", "3 columns"]),
    "an open quote": ([HEADER, 'a,1,"2'], ["not a CSV file"]),
}


@pytest.mark.parametrize(("lines", "parts"), TABLES.values(), ids=TABLES)
def test_a_bad_table_is_refused_in_one_line(
    command: Callable, write: Callable, lines: list[str], parts: list[str]
) -> None:
    assert_refused(command("fit", write(*lines), "--value", "y"), "table.csv", *parts)


OPTIONS = {
    "value not in the table": (["--value", "yy"], ["no column 'yy'", "Did you mean 'y'?", "cell, time, y"]),
    "no value": ([], ["--value COLUMN", "cell, time, y"]),
    "mode not in the table": (["--value", "y", "--modes", "cell,tine"], ["'tine'", "Did you mean 'time'?"]),
    "value among the modes": (["--value", "y", "--modes", "cell,y"], ["--modes names 'y'", "--value"]),
    "discrete that is no mode": (
        ["--value", "y", "--modes", "cell", "--discrete", "time"],
        ["--discrete names 'time'", "not among --modes"],
    ),
    "a mode twice": (["--value", "y", "--modes", "cell,cell"], ["'cell' twice"]),
    "log of zero": (["--value", "y", "--log", "zero"], ["'zero'", "no logarithm"]),
    "log of labels": (["--value", "y", "--log", "cell"], ["--log names 'cell'", "a label has no logarithm"]),
    "a figure of no format": (["--value", "y", "--plot", "f.pgn"], ["--plot f.pgn", ".png, .svg or .pdf"]),
    "a choice": (["--response", "logt"], ["--response must be one of identity, log, logit", "'logit'?"]),
    "rank too large": (["--value", "y", "--rank", "3"], ["--rank 3", "2 indices", "at most 2"]),
    "a rank too large": (["--value", "y", "--rank", "2,3"], ["--rank 2,3", "'time' has 2 indices"]),
    "ranks too many": (["--value", "y", "--rank", "2,2,2"], ["one per mode, 2 here", "got 2,2,2"]),
    "rank of zero": (["--value", "y", "--rank", "0"], ["whole number from 1", "'0'"]),
    "rank in words": (["--value", "y", "--rank", "two"], ["'two'"]),
    "holdout of all": (["--value", "y", "--holdout", "1"], ["less than 1", "'1'"]),
    "holdout in words": (["--value", "y", "--holdout", "some"], ["'some'"]),
    "seed": (["--value", "y", "--random-state", "-1.5"], ["random-state"]),
    "empty name": (["--value", "y", "--modes", "cell,,time"], ["single commas"]),
    "predict without out": (["--value", "y", "--predict", "new.csv"], ["--out", "go together"]),
    "unknown option": (["--valeu", "y"], ["--valeu", "Did you mean '--value'?", "--help"]),
    "no folder to save in": (["--value", "y", "--save", "no/such/m.tenfac"], ["--save", "no folder no/such"]),
    "draws to save": (
        ["--value", "y", "--inference", "svi", "--save", "m"],
        ["--save with --inference svi", "cep"],
    ),
    "a folder to plot to": (["--value", "y", "--plot", "."], ["--plot", "cannot write"]),
}


@pytest.mark.parametrize(("options", "parts"), OPTIONS.values(), ids=OPTIONS)
def test_a_bad_option_is_refused_in_one_line(
    command: Callable, write: Callable, options: list[str], parts: list[str]
) -> None:
    lines = [HEADER, *GOOD]
    if "zero" in options:
        lines = ["cell,zero,y", "a,0,1", "b,1,2"]
    assert_refused(command("fit", write(*lines), *options), *parts)


def test_a_command_is_needed(command: Callable) -> None:
    assert_refused(command(), "COMMAND")
    assert_refused(
        command("fti", "t.csv"), "COMMAND must be one of fit, predict,", "'fti'. Did you mean 'fit'?"
    )
    assert_refused(command("datasets", "kinetic"), "one argument too many: kinetic")


def test_a_required_option_that_is_misspelled_is_named(command: Callable) -> None:
    said = command("predict", "m.tenfac", "new.csv", "--otu=p.csv")
    assert_refused(said, "unknown option --otu. Did you mean '--out'?", "tenfac predict --help")
    assert_refused(command("predict", "m.tenfac", "new.csv"), "required: --out")


@pytest.mark.parametrize("name", ["fit", "predict", "info", "datasets"])
def test_the_help_of_a_command_says_what_it_does(command: Callable, name: str) -> None:
    said = command(name, "--help").out
    assert_says(said.split("\n\n")[1][:1], said.split("\n\n")[1][:1].upper())
    assert "%%" not in said
    assert "options:" not in said.split("\n\n")[1]


def test_a_missing_file_is_refused(command: Callable) -> None:
    assert_refused(command("fit", "no_such.csv", "--value", "y"), "file not found: no_such.csv")


def test_a_folder_is_refused(command: Callable, tmp_path: Path) -> None:
    assert_refused(command("fit", str(tmp_path), "--value", "y"), "is a folder")


def test_an_unknown_data_set_is_refused_with_near_names(command: Callable) -> None:
    assert_refused(command("fit", "kinetics"), "kinetics", "Did you mean 'kinetic'?", "il2")


def test_a_file_that_is_no_text_is_refused(command: Callable, tmp_path: Path) -> None:
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00a")
    assert_refused(command("fit", str(path), "--value", "y"), "UTF-8")


def test_a_broken_parquet_file_is_refused(command: Callable, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    assert_refused(command("fit", str(path), "--value", "y"), "broken.parquet", "not a readable Parquet file")


def test_parquet_without_pandas_names_the_extra(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    assert_refused(command("fit", str(path), "--value", "y"), "pip install 'tenfac[table]'")


def test_a_plot_without_matplotlib_is_refused_before_the_fit(
    command: Callable, write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = command("fit", write(HEADER, *GOOD), "--value", "y", "--plot", str(tmp_path / "f.png"))
    assert_refused(run, "Matplotlib", "pip install 'tenfac[plot]'")


NEW_TABLES = {
    "missing column": (["cell,tim", "a,1"], ["new.csv", "no column 'time'", "Did you mean 'tim'?"]),
    "unseen label": (["cell,time", "a,1", "z,1"], ["new.csv, row 2", "'z'", "Known: a, b"]),
    "infinite index": (["cell,time", "a,inf"], ["new.csv, row 1", "'time'", "infinite"]),
    "text for a number": (["cell,time", "a,soon"], ["new.csv, row 1", "'soon'"]),
}


@pytest.mark.parametrize(("lines", "parts"), NEW_TABLES.values(), ids=NEW_TABLES)
def test_a_bad_table_to_predict_is_refused_before_the_fit(
    command: Callable, write: Callable, tmp_path: Path, lines: list[str], parts: list[str]
) -> None:
    table, new = write(HEADER, *GOOD), write(*lines, name="new.csv")
    out = tmp_path / "out.csv"
    assert_refused(command("fit", table, "--value", "y", "--predict", new, "--out", str(out)), *parts)
    assert not out.exists()


def test_a_model_that_is_none_is_refused(command: Callable, write: Callable, tmp_path: Path) -> None:
    table, out = write("cell,time", "a,1"), str(tmp_path / "out.csv")
    assert_refused(command("predict", table, table, "--out", out), "not a tenfac file")
    assert_refused(command("predict", str(tmp_path / "gone"), table, "--out", out), "cannot read the model")
