"""Columns and tables: what a cell means, whichever file it stands in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tenfac.cli.columns import parse
from tenfac.cli.observations import group_rows, observe, read_indices, split
from tenfac.cli.tables import near, read_table
from tests.checks import assert_equal


def column_of(*cells: str, **options: str) -> tuple[str, list]:
    column = parse("c", list(cells), lambda row: f"row {row + 1}", **options)
    return column.kind, column.values.tolist()


def test_numbers_dates_and_labels_are_told_apart() -> None:
    assert_equal(column_of("1", " 2.5", "-3e2"), ("number", [1.0, 2.5, -300.0]))
    assert_equal(column_of("1970-01-02", "1970-01-01T12:00", "1969-12-31"), ("date", [1.0, 0.5, -1.0]))
    assert_equal(column_of("a", "", " b "), ("label", ["a", "", "b"]))


def test_a_time_zone_is_taken_off() -> None:
    assert_equal(column_of("1970-01-01 02:00+02:00", "1970-01-01T06:00:00Z"), ("date", [0.0, 0.25]))


def test_missing_numbers_are_nan() -> None:
    kind, values = column_of("1", "", "NA", "nan")
    assert_equal((kind, np.isnan(values).tolist()), ("number", [False, True, True, True]))


def test_discrete_numbers_stay_numbers_and_mixtures_become_labels() -> None:
    assert_equal(column_of("2", "10", wanted="discrete"), ("number", [2.0, 10.0]))
    assert_equal(column_of("2", "X", wanted="discrete"), ("label", ["2", "X"]))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_the_delimiter_is_found(write: Callable, delimiter: str) -> None:
    path = write(delimiter.join(["time", '"a b"', "y"]), delimiter.join(["1", "2", "3"]))
    table = read_table(path)
    assert_equal(table.names, ["time", "a b", "y"])
    assert_equal(table.column("y").values, np.array([3.0]))


def test_blank_lines_and_a_byte_order_mark_are_skipped_and_lines_are_counted(write: Callable) -> None:
    table = read_table(write("", "x,y", "", "1,2", "", "3,4", encoding="utf-8-sig"))
    assert_equal((table.names, table.size, list(table.lines)), (["x", "y"], 2, [4, 6]))
    assert table.where(1).endswith("row 2 (line 6)")


def test_a_column_without_a_name_is_left_out_and_said_so(write: Callable) -> None:
    table = read_table(write(",x,y", "0,1,2"))
    assert_equal((table.names, len(table.notes)), (["x", "y"], 1))


def test_parquet_and_csv_give_the_same_observations(write: Callable, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    lines = ["cell,day,dose,y", "a,2024-01-01,1,1.5", "b,2024-01-03,10,", "b,2024-01-02,10,2.5"]
    frame = pd.DataFrame(
        {
            "cell": ["a", "b", "b"],
            "day": pd.to_datetime(["2024-01-01", "2024-01-03", "2024-01-02"]),
            "dose": [1, 10, 10],
            "y": [1.5, np.nan, 2.5],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    ours = observe(read_table(write(*lines)), "y", log=["dose"])
    theirs = observe(read_table(str(tmp_path / "t.parquet")), "y", log=["dose"])
    assert_equal(ours.modes, theirs.modes)
    assert_equal([mode.kind for mode in ours.modes], ["discrete", "continuous", "continuous"])
    assert_equal(list(ours.X), ["cell", "day", "log10(dose)"])
    for name in ours.X:
        assert_equal(theirs.X[name], ours.X[name])
    assert_equal(ours.X["log10(dose)"], np.array([0.0, 1.0]))
    assert_equal(ours.X["day"], np.array([19723.0, 19724.0]))
    assert_equal(ours.notes, ("1 row without a value in 'y' were left out",))


def test_a_file_wins_over_a_data_set(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("x,y", "1,2", name="il2")
    monkeypatch.chdir(tmp_path)
    assert_equal(read_table("il2").names, ["x", "y"])


def test_a_data_set_brings_its_kinds_units_and_logarithms() -> None:
    obs = observe(read_table("il2"), None)
    assert_equal([m.name for m in obs.modes], ["mutein", "time", "log10(dose)", "cell"])
    assert_equal([m.kind for m in obs.modes], ["discrete", "continuous", "continuous", "discrete"])
    assert_equal([m.label for m in obs.modes[1:3]], ["time (h)", "log10(dose / nM)"])
    assert_equal(obs.size, 4800)


def test_repeats_are_kept_as_rows(write: Callable) -> None:
    path = write("k,y", "b,1", "a,10", "b,2", "c,0", "b,6")
    obs = observe(read_table(path), "y", duplicates="keep")
    assert_equal(obs.X["k"].tolist(), ["b", "a", "b", "c", "b"])
    assert_equal(obs.y, np.array([1.0, 10.0, 2.0, 0.0, 6.0]))


def test_rows_are_grouped_by_all_columns() -> None:
    key = group_rows([np.array(["a", "a", "b", "a"]), np.array([1.0, 2.0, 1.0, 1.0])])
    assert_equal(
        (key[:, None] == key).tolist(), [[i == j or {i, j} == {0, 3} for j in range(4)] for i in range(4)]
    )


def test_held_out_rows_are_a_share_repeatable_and_leave_every_label_to_fit(write: Callable) -> None:
    path = write("k,t,y", *(f"{'only' if t == 7 else 'abc'[t % 3]},{t},{t}" for t in range(40)))
    obs = observe(read_table(path), "y")
    for seed in range(30):
        train, test = split(obs, 0.25, seed)
        assert "only" in train.X["k"]
        assert test.size in (9, 10)
        assert_equal(np.sort(np.concatenate([train.y, test.y])), obs.y)
        assert_equal(split(obs, 0.25, seed)[1].y, test.y)
    assert_equal(split(obs, 0.0, 0)[1].size, 0)


def test_new_rows_are_read_as_the_model_needs_them(write: Callable) -> None:
    table = read_table(write("dose,batch,cell,extra", "10,2,007,x", "100,1,a,y"))
    labels = [[], np.array([1.0, 2.0]), np.array(["007", "a"])]
    X, cells = read_indices(
        table, ["log10(dose)", "batch", "cell"], ["continuous", "discrete", "discrete"], labels
    )
    assert_equal(X["log10(dose)"], np.array([1.0, 2.0]))
    assert_equal(X["batch"], np.array([2.0, 1.0]))
    assert_equal(X["cell"].tolist(), ["007", "a"])
    assert_equal(list(cells), ["dose", "batch", "cell"])


def test_near_names_ignore_case_and_far_names_are_not_offered() -> None:
    assert_equal(near("DOSE", ["dose", "cell"]), "Did you mean 'dose'? ")
    assert_equal(near("xyz", ["dose", "cell"]), "")
