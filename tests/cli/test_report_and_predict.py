"""`tenfac fit --report`, `tenfac predict` in blocks, `tenfac info MODEL`, and options passed to the model."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tenfac
from tenfac.cli import predict, tables
from tenfac.cli.observations import observe, split
from tenfac.cli.tables import read_blocks, read_table
from tests.checks import assert_close, assert_equal, assert_says
from tests.cli.conftest import grid_lines
from tests.cli.test_refusals import assert_refused

NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of the grid of the command's tests, at the starting hyperparameters."""
    folder = tmp_path_factory.mktemp("model")
    table = folder / "grid.csv"
    table.write_text("\n".join(grid_lines()) + "\n", encoding="utf-8")
    obs = observe(read_table(str(table)), "response")
    fitted = tenfac.FunctionalTucker(max_iter=0).fit(obs.X, obs.y)
    tenfac.save(fitted, folder / "m.tenfac")
    return folder / "m.tenfac"


def predictions(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


# --- the report -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holdout", ["0.1", "0"])
def test_the_report_is_written_with_what_the_terminal_says(
    command: Callable, write: Callable, tmp_path: Path, holdout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    if holdout == "0":  # one time is enough for the figures
        from tenfac.plot import html

        monkeypatch.setattr(html, "drawing", lambda *_: "")
    lines = [line.replace("NK", NASTY) for line in grid_lines(days=True)]
    path = tmp_path / "r.html"
    path.write_text("an older file", encoding="utf-8")
    options = ("--holdout", holdout, "--quiet", "--report", str(path))
    run = command("fit", write(*lines), "--value", "response", *options)
    assert_equal(run.code, 0)
    assert_says(run.err, f"wrote the report to {path}")
    text = path.read_text(encoding="utf-8")
    printed = dict(line.split("  ", 1) for line in run.out.splitlines() if "  " in line)
    assert_says(
        text, "2024-01-01 to 2024-01-20", printed["noise sd"].strip(), printed["log evidence"].strip()
    )
    assert "<script" not in text
    if holdout == "0":
        assert_says(text, "6 rows, drawn with seed 0 and left out of a second posterior")
    else:
        assert_says(text, "&lt;script&gt;alert(1)&lt;/script&gt;")
        assert_says(text, "6 rows that were held out (seed 0)", printed["RMSE"].split()[0])


def test_no_report_is_left_behind_when_the_fit_fails(command: Callable, grid: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "r.html"
    run = command("fit", grid, "--value", "response", "--rank", "2,300", "--report", str(path), "--quiet")
    assert_refused(run, "rank")
    assert not path.exists()


def test_a_file_that_cannot_be_written_is_refused_before_the_table_is_read(
    command: Callable, tmp_path: Path
) -> None:
    run = command("fit", "no_such.csv", "--value", "y", "--report", str(tmp_path / "gone" / "r.html"))
    assert_refused(run, "--report", "no folder")
    assert_refused(command("fit", "no_such.csv", "--report", str(tmp_path)), "--report", "cannot write there")


def test_a_report_that_no_row_can_be_left_out_for_is_refused_before_the_fit(
    command: Callable, write: Callable, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    table = write("k,t,y", *(f"k{n},{n},{n}" for n in range(9)))
    run = command("fit", table, "--value", "y", "--report", str(tmp_path / "r.html"))
    assert_refused(run, "report", "a label that no other row has")


def test_a_report_without_matplotlib_is_refused_before_the_fit(
    command: Callable, grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = command("fit", grid, "--value", "response", "--report", str(tmp_path / "r.html"))
    assert_refused(run, "--report", "pip install 'tenfac[plot]'")


@pytest.mark.parametrize("option", ["--save", "--report", "--out"])
def test_a_table_that_is_read_is_never_written_over(command: Callable, grid: str, option: str) -> None:
    before = Path(grid).read_text(encoding="utf-8")
    more = ("--predict", grid) if option == "--out" else ()
    assert_refused(command("fit", grid, "--value", "response", *more, option, grid), option, "would be lost")
    assert_equal(Path(grid).read_text(encoding="utf-8"), before)


def test_settings_of_the_model_are_passed_on_only_if_given(
    command: Callable, grid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tenfac.bayes import functional_tucker

    seen: list[dict] = []
    known = ["rank", "response", "label_rank", "verbose", "inference", "likelihood"]

    class Listener:
        def __init__(self, **settings: object) -> None:
            seen.append(settings)

        def get_params(self) -> dict:
            return dict.fromkeys(known)

        def fit(self, *_: object, **__: object) -> None:
            raise tenfac.DataError("stop here")

    monkeypatch.setattr(functional_tucker, "FunctionalTucker", Listener)
    fit = ("fit", grid, "--value", "response")
    assert_refused(command(*fit, "--noise", "slice"), "--noise", "no such setting")
    known.append("noise")
    assert_refused(command(*fit), "stop here")
    assert {"inference", "likelihood", "noise"}.isdisjoint(seen[-1])
    given = {"inference": "cep", "likelihood": "poisson", "noise": "slice"}
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    assert_refused(command(*fit, *options), "stop here")
    assert_equal({name: seen[-1][name] for name in given}, given)


# --- predictions ------------------------------------------------------------------------------------------


def test_columns_may_stand_in_any_order_beside_others(
    command: Callable, write: Callable, model: Path, tmp_path: Path
) -> None:
    new = write("note,time,cell", "x,1.25,NK", "y,7,B cell", name="new.csv")
    out = tmp_path / "out.csv"
    assert_equal(command("predict", str(model), new, "--out", str(out)).code, 0)
    rows = predictions(out)
    fitted = tenfac.load(model)
    X = {"cell": ["NK", "B cell"], "time": [1.25, 7.0]}
    mean, std = fitted.predict(X, return_std=True)
    noisy = fitted.predict(X, return_std=True, include_noise=True)[1]
    want = {"mean": mean, "std": std, "observation_std": noisy}
    want |= {"lower_95": mean - 1.959963984540054 * noisy, "upper_95": mean + 1.959963984540054 * noisy}
    assert_equal(list(rows[0]), ["cell", "time", *want])
    for name, values in want.items():
        assert_close(np.array([float(row[name]) for row in rows]), values, factor=1e9)


def test_blocks_give_what_the_whole_table_gives(
    command: Callable, write: Callable, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = write(*(line.rsplit(",", 1)[0] for line in grid_lines()), "NK,50", name="new.csv")
    outs = [tmp_path / "whole.csv", tmp_path / "blocks.csv"]
    sizes = []
    for size, out in zip((1000, 7), outs, strict=True):
        monkeypatch.setattr(predict, "read_blocks", lambda source, size=size: read_blocks(source, size))
        run = command("predict", str(model), new, "--out", str(out))
        assert_says(run.err, "1 row outside the range of 'time'", "wrote 61 predictions")
        sizes.append([len(list(block.cells["cell"])) for block in read_blocks(new, size)])
    assert_equal(sizes, [[61], [7] * 8 + [5]])
    first, second = (predictions(out) for out in outs)
    assert_equal([row["cell"] + row["time"] for row in first], [row["cell"] + row["time"] for row in second])
    for name in ("mean", "std", "lower_95"):
        values = [np.array([float(row[name]) for row in rows]) for rows in (first, second)]
        assert_close(values[1], values[0], factor=1e9)


@pytest.mark.parametrize(
    ("last", "parts"),
    [
        ("z,1", ["row 8 (line 9)", "'z'", "Known"]),
        ("NK,", ["row 8 (line 9)", "'time'", "missing"]),
        ("NK", ["row 8 (line 9)", "1 cells"]),
        ("NK,2024-01-01", ["row 8", "is a date, but the rows above hold a number"]),
    ],
    ids=["unseen label", "missing index", "a short row", "a date among numbers"],
)
def test_a_bad_row_in_a_later_block_is_refused_before_anything_is_written(
    command: Callable, write: Callable, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    last: str, parts: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(predict, "read_blocks", lambda source: read_blocks(source, 7))
    new = write("cell,time", *(f"NK,{t}" for t in range(7)), last, name="new.csv")
    out = tmp_path / "out.csv"
    assert_refused(command("predict", str(model), new, "--out", str(out)), *parts)
    assert not out.exists()


def test_blocks_of_parquet_and_csv_are_the_same(write: Callable, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = str(tmp_path / "t.parquet")
    pd.DataFrame({"cell": list("abcde"), "time": np.arange(5.0)}).to_parquet(path)
    text = write("cell,time", *(f"{c},{t}.0" for t, c in enumerate("abcde")))
    for ours, theirs in zip(read_blocks(text, 2), read_blocks(path, 2), strict=True):
        assert_equal((list(theirs.cells["cell"]), theirs.start), (ours.cells["cell"], ours.start))
        assert_equal(theirs.column("time").values, ours.column("time").values)
    empty = write("cell,time", name="empty.csv")
    with pytest.raises(tenfac.DataError) as error:
        list(tables.read_blocks(empty))
    assert_says(error, "empty", "no rows")


@pytest.mark.parametrize("response", ["log", "logit"])
def test_bent_responses_have_intervals_inside_their_bounds(
    command: Callable, grid: str, tmp_path: Path, response: str
) -> None:
    obs = observe(read_table(grid), "response")
    train, _ = split(obs, 0.1, 0)
    fitted = tenfac.FunctionalTucker(response=response, max_iter=0).fit(train.X, train.y)
    path, out = tmp_path / "m.tenfac", tmp_path / "out.csv"
    tenfac.save(fitted, path)
    assert_equal(command("predict", str(path), grid, "--out", str(out)).code, 0)
    rows = predictions(out)
    low, high = (np.array([float(row[name]) for row in rows]) for name in ("lower_95", "upper_95"))
    floor, ceiling = fitted.bounds_
    assert (low > floor).all()
    assert (high < ceiling).all()
    mean = np.array([float(row["mean"]) for row in rows])
    assert (low < mean).all()
    assert (mean < high).all()
    assert_close(mean, fitted.predict(obs.X), factor=1e9)


# --- what a file holds ------------------------------------------------------------------------------------


def test_info_of_a_model_shows_modes_settings_and_how_the_fit_ended(command: Callable, model: Path) -> None:
    run = command("info", str(model))
    assert_equal(run.code, 0)
    settings = tenfac.load(model).get_params()
    rows: dict[str, str] = {}
    for line in run.out.splitlines():
        if len(line.split()) > 1:
            rows.setdefault(*line.split(maxsplit=1))  # the setting `noise` stands above the noise sd
    assert_equal({name: rows[name] for name in settings if name != "discrete"}, {
        name: value if isinstance(value, str) else repr(value)
        for name, value in settings.items() if name != "discrete"
    })  # fmt: skip
    assert_says(
        run.out, "FunctionalTucker", "B cell, NK, T reg", "0 to 9.5", "noise sd", "kept at their start"
    )


def test_info_of_a_format_is_its_line_and_of_no_model_an_error(
    command: Callable, grid: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.tenfac"
    tensor = tenfac.tucker(np.ones((3, 4)), rank=1)
    tenfac.save(tensor, path)
    assert_says(command("info", str(path)).out, "Tucker(shape=(3, 4)")
    assert_refused(command("info", grid), "not a tenfac file")
    assert_refused(command("info", str(tmp_path / "gone")), "cannot read")
