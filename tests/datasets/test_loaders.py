"""Every data set that ships: sizes, units, order, missing entries, and that nothing is downloaded."""

import socket

import numpy as np
import pytest

from tenfac import datasets
from tenfac.core.errors import DataError
from tenfac.datasets import Dataset
from tests.checks import assert_close, assert_equal, assert_says

FACTS = {  # shape, fraction missing, {continuous mode: (first, last, unit)}
    "kinetic": (
        (59, 12, 10, 60),
        1715 / (59 * 7200),
        {"emission": (472, 554.5, "nm"), "excitation": (362, 416, "nm"), "time": (1 / 3, 20, "min")},
    ),
    "il2": ((13, 4, 12, 8), 192 / 4992, {"time": (0.5, 4, "h"), "dose": (0.000474, 84, "nM")}),
    "indian_pines": (
        (145, 145, 200),
        0,
        {"row": (0, 144, "pixel"), "column": (0, 144, "pixel"), "wavelength": (400.02, 2498.96, "nm")},
    ),
    "serology": ((438, 6, 11), 0, {}),
    "digits": ((1797, 8, 8), 0, {"row": (0, 7, "pixel"), "column": (0, 7, "pixel")}),
    "china": ((427, 640, 3), 0, {"row": (0, 426, "pixel"), "column": (0, 639, "pixel")}),
    "flower": ((427, 640, 3), 0, {"row": (0, 426, "pixel"), "column": (0, 639, "pixel")}),
}


@pytest.fixture(scope="module")
def loaded() -> dict[str, Dataset]:
    """All data sets, loaded while opening a socket is an error."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a data set tried to open a connection")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        patch.setattr(socket, "create_connection", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return {name: datasets.load(name) for name in datasets.names()}


def test_the_facts_below_cover_every_data_set(loaded: dict[str, Dataset]) -> None:
    assert set(loaded) == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_sizes_missing_entries_and_units_are_as_documented(loaded: dict[str, Dataset], name: str) -> None:
    data, (shape, missing, continuous) = loaded[name], FACTS[name]
    assert data.name == name
    assert data.shape == shape
    assert data.values.dtype == np.float64
    assert data.values.flags.c_contiguous
    assert_close(data.missing, missing)
    assert [axis.name for axis in data.modes if axis.continuous] == list(continuous)
    for mode, (first, last, unit) in continuous.items():
        axis = data.axis(mode)
        assert_close(axis.values[[0, -1]], np.array([first, last], dtype=float))
        assert axis.unit == unit
    assert data.title
    assert data.value_name.isidentifier()
    assert data.unit
    assert data.source
    assert data.licence


@pytest.mark.parametrize("name", FACTS)
def test_the_catalogue_line_states_the_sizes_and_modes(loaded: dict[str, Dataset], name: str) -> None:
    line = datasets.names()[name]
    assert_says(line, " × ".join(map(str, loaded[name].shape)), *(axis.name for axis in loaded[name].modes))
    if loaded[name].missing:
        assert_says(line, f"{100 * loaded[name].missing:.2f} % missing")


@pytest.mark.parametrize("name", ["kinetic", "il2", "serology"])
def test_to_table_rebuilds_the_array(loaded: dict[str, Dataset], name: str) -> None:
    data = loaded[name]
    X, y = data.to_table()
    codes = [np.searchsorted(axis.coordinates(), X[:, n]) for n, axis in enumerate(data.modes)]
    rebuilt = np.full(data.shape, np.nan)
    rebuilt[tuple(codes)] = y
    assert_equal(rebuilt, data.values)


def test_kinetic_flags_what_the_source_flags() -> None:
    from tensorly.datasets import load_kinetic

    bunch = load_kinetic()
    data = datasets.load_kinetic(outliers=True)
    assert data.shape == (64, 12, 10, 60)
    assert_equal(np.isnan(data.values), np.asarray(bunch.missing_values_position).astype(bool))
    assert_equal(np.nan_to_num(data.values), np.ascontiguousarray(bunch.tensor))
    assert_equal(data.axis("sample").values[data.target == 1], np.array([35, 36, 45, 46, 64]))


def test_kinetic_without_outliers_keeps_the_other_samples_in_order() -> None:
    every, good = datasets.load_kinetic(outliers=True), datasets.load_kinetic()
    assert_equal(good.values, every.values[every.target == 0])
    assert_equal(good.axis("sample").values, every.axis("sample").values[every.target == 0])
    assert good.target is None


def test_kinetic_lacks_the_end_of_sample_28() -> None:
    data = datasets.load_kinetic()
    block = data.values[list(data.axis("sample").values).index(28)]
    assert np.isnan(block[:, :, data.axis("time").values > 15.7]).all()


def test_il2_is_sorted_together_with_its_times_and_doses(loaded: dict[str, Dataset]) -> None:
    from tensorly.datasets import load_IL2data

    raw = load_IL2data()
    data = loaded["il2"]
    for t, time in enumerate(raw.ticks[1]):
        for d, dose in enumerate(raw.ticks[2]):
            at = (
                slice(None),
                list(data.axis("time").values).index(time),
                np.argmin(abs(data.axis("dose").values - dose)),
            )
            assert_equal(data.values[at], raw.tensor[:, t, d])
    assert data.axis("dose").scale == "log"
    assert_close(
        np.diff(data.axis("dose").coordinates()), np.full(11, np.log10(84 / 0.000474) / 11), factor=1e3
    )


def test_il2_lacks_two_muteins_at_the_first_time(loaded: dict[str, Dataset]) -> None:
    data = loaded["il2"]
    mutein, time, _, _ = np.nonzero(np.isnan(data.values))
    assert set(data.axis("mutein").values[mutein]) == {"H16N N-term (Biv)", "R38Q N-term (Biv)"}
    assert set(data.axis("time").values[time]) == {0.5}


def test_indian_pines_bands_follow_their_wavelengths(loaded: dict[str, Dataset]) -> None:
    from tensorly.datasets import load_indian_pines

    raw = load_indian_pines()
    data = loaded["indian_pines"]
    position = np.searchsorted(data.axis("wavelength").values, raw.ticks[1])
    assert_equal(np.ascontiguousarray(data.values[..., position]), np.ascontiguousarray(raw.tensor))
    assert position[31] < position[30]  # the list of the source steps back here
    assert_equal(data.target, raw.ticks[0].astype(np.int64))
    assert len(data.target_names) == data.target.max() + 1


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("serology", {"Negative": 39, "Mild": 7, "Moderate": 122, "Severe": 196, "Deceased": 74}),
        ("digits", {"0": 178}),
    ],
)
def test_targets_name_the_classes(loaded: dict[str, Dataset], name: str, counts: dict[str, int]) -> None:
    data = loaded[name]
    for label, count in counts.items():
        assert (data.target == data.target_names.index(label)).sum() == count


def test_loading_does_not_depend_on_the_backend_set_in_tensorly() -> None:
    pytest.importorskip("torch")
    import tensorly

    want = datasets.load_il2().values, datasets.load_kinetic(outliers=True).values
    tensorly.set_backend("pytorch", local_threadsafe=True)
    try:
        got = datasets.load_il2().values, datasets.load_kinetic(outliers=True).values
    finally:
        tensorly.set_backend("numpy", local_threadsafe=True)
    assert_equal(got[0], want[0])
    assert_equal(got[1], want[1])


def test_two_loads_share_no_memory() -> None:
    first, second = datasets.load_digits(), datasets.load_digits()
    first.values[:] = -1
    assert (second.values >= 0).all()


@pytest.mark.parametrize(("name", "near"), [("Kinetics", "'kinetic'"), ("indian-pines", "'indian_pines'")])
def test_an_unknown_name_is_answered_with_near_names(name: str, near: str) -> None:
    with pytest.raises(DataError) as error:
        datasets.load(name)
    assert_says(error, f"Did you mean {near}", repr(name))


def test_an_unknown_name_without_neighbours_lists_all() -> None:
    with pytest.raises(DataError) as error:
        datasets.load("zzz")
    assert_says(error, *datasets.names())


def test_an_unknown_photograph_is_refused() -> None:
    with pytest.raises(DataError) as error:
        datasets.load_sample_image("lena")
    assert_says(error, "'china'", "'flower'", "'lena'")
