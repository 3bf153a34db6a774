"""Save and load: bit by bit, atomic, never pickle, every damage answered in words."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest

import tenfac
from tenfac import CP, DataError, Report, Tucker, load, save
from tenfac.core import io as module
from tests.checks import assert_equal, assert_says, library_of, to_numpy


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.tenfac"


def some(make):
    return Tucker(
        make(2, 3), [make(4, 2), make(5, 3)], info=Report(True, "made", rel_error=0.25, history=(1.0, 0.5))
    )


def rewrite(path, change):
    """Change the header of a saved file and write it again."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(parts["header.json"])
    change(header, parts)
    parts["header.json"] = json.dumps(header)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_formats_come_back_bit_by_bit_with_library_modes_and_report(make, path):
    for t in (some(make), CP(make.complex(3), [make(4, 3), make(5, 3)])):
        save(t, path)
        back = load(path)
        assert type(back) is type(t)
        assert_equal(back.modes, t.modes)
        assert_equal(back.info, t.info)
        for a, b in zip((next(iter(back)), *back.factors), (next(iter(t)), *t.factors), strict=True):
            assert_equal(a, b)
            assert_equal(to_numpy(a).tobytes(), to_numpy(b).tobytes())


def test_non_contiguous_and_gradient_arrays_come_back_bit_by_bit(make, path):
    base = make(8, 6)
    t = Tucker(make(3, 2).T, [base[::4, 1:5:2], make(3, 5).T])
    if make.library == "torch":
        t.factors[0].requires_grad_()
    save(t, path)
    for a, b in zip(load(path).factors, t.factors, strict=True):
        assert_equal(to_numpy(a), to_numpy(b))
        assert_equal(library_of(a), make.library)


def test_signed_zeros_infinities_and_nan_come_back(path):
    values = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324]])
    save(CP(None, [values]), path)
    assert_equal(load(path).factors[0].tobytes(), values.tobytes())


def test_the_file_name_is_kept_as_given(tmp_path):
    for name in ("plain", "with.npz", "with.dots.bin"):
        save(CP(None, [np.ones((2, 1))]), str(tmp_path / name))
    assert_equal(sorted(os.listdir(tmp_path)), ["plain", "with.dots.bin", "with.npz"])


def test_every_array_can_be_read_by_numpy_without_pickle(path):
    save(CP(None, [np.ones((2, 1))]), path)
    with np.load(path, allow_pickle=False) as stored:
        assert_equal(stored["factors.0"], np.ones((2, 1)))


def test_a_failed_save_leaves_the_old_file_and_no_other(path, monkeypatch):
    save(CP(None, [np.ones((2, 1))]), path)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(module.np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        save(CP(None, [np.zeros((9, 1))]), path)
    monkeypatch.undo()
    assert_equal(load(path).shape, (2,))
    assert_equal(os.listdir(path.parent), [path.name])


def test_saving_replaces_what_a_link_points_to(path):
    link = path.parent / "link"
    save(CP(None, [np.ones((2, 1))]), path)
    link.symlink_to(path)
    save(CP(None, [np.ones((3, 1))]), link)
    assert link.is_symlink()
    assert_equal(load(path).shape, (3,))


def test_a_saved_file_has_the_permissions_of_any_new_file(path):
    save(CP(None, [np.ones((2, 1))]), path)
    plain = path.parent / "plain"
    plain.write_text("")
    assert_equal(path.stat().st_mode, plain.stat().st_mode)


@pytest.mark.parametrize("value", [np.ones(3), {"a": 1}, Report(True, "x"), tenfac.Discrete(3)], ids=repr)
def test_what_cannot_be_saved_is_named(path, value):
    with pytest.raises(DataError) as error:
        save(value, path)
    assert_says(error, "save:", type(value).__name__)
    assert not path.exists()


@dataclass
class Odd:
    """A stand-in for a public class with a state of our choice."""

    state: dict
    arrays: dict

    def _to_state(self):
        return self.state, self.arrays

    @classmethod
    def _from_state(cls, header, arrays):
        return cls(header, {"wanted": arrays["wanted"]})


@pytest.fixture
def odd(monkeypatch):
    monkeypatch.setattr(tenfac, "__all__", [*tenfac.__all__, "Odd"])
    monkeypatch.setattr(tenfac, "Odd", Odd, raising=False)
    return Odd


def test_any_public_class_with_the_two_methods_takes_part(odd, path):
    save(odd({"a": [1, None]}, {"wanted": np.arange(3)}), path)
    assert_equal(load(path).state, {"a": [1, None]})
    assert_equal(load(path).arrays["wanted"], np.arange(3))


def test_a_state_that_is_not_json_and_an_array_of_objects_are_refused(odd, path):
    for obj, word in ((odd({"f": print}, {}), "JSON"), (odd({}, {"x": np.array([{}])}), "Odd.x")):
        with pytest.raises(DataError) as error:
            save(obj, path)
        assert_says(error, "save:", word)


def test_an_array_the_class_wants_but_the_file_lacks_is_named(odd, path):
    save(odd({}, {"other": np.ones(1)}), path)
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "'wanted'", "other")


def test_an_array_the_header_lists_but_the_file_lacks_is_named(make, path):
    save(some(make), path)
    rewrite(path, lambda _, parts: parts.pop("factors.1.npy"))
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "factors.1", path.name)


def test_a_newer_format_is_refused_with_both_versions_and_the_remedy(make, path):
    save(some(make), path)
    rewrite(path, lambda header, _: header.update(format_version=7, tenfac_version="9.9"))
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "7", "9.9", "up to 1", "pip install -U tenfac")


@pytest.mark.parametrize("name", ["Unknown", "tucker", "Report", "save", "__doc__", "datasets"])
def test_a_header_can_name_only_savable_public_classes(make, path, name):
    save(some(make), path)
    rewrite(path, lambda header, _: header.update(type=name))
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, name)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04pickle", b"{}"])
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "not a tenfac file", path.name)


def test_zips_of_others_are_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({"format": "else"}))
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "not a tenfac file")
    with open(path, "wb") as file:
        np.savez(file, x=np.ones(3))
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "not a tenfac file", "header.json")


def test_a_file_cut_short_anywhere_is_called_damaged(make, path):
    save(some(make), path)
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError) as error:
            load(path)
        assert_says(error, "damaged")


def test_a_flipped_bit_in_the_numbers_is_noticed(path):
    t = CP(None, [np.ones((2000, 1))])
    save(t, path)
    content = bytearray(path.read_bytes())
    content[content.index(np.ones(8).tobytes()) + 4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "damaged")


def test_pickled_arrays_in_a_file_are_never_opened(make, path):
    save(some(make), path)

    def poison(header, parts):
        import io

        buffer = io.BytesIO()
        np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
        parts["core.npy"] = buffer.getvalue()

    rewrite(path, poison)
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "allow_pickle=False")


def test_arrays_are_written_without_pickle_whatever_they_hold(path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        module._write(str(path), "{}", {"x": np.array([{}])})
    assert_equal(os.listdir(path.parent), [])


def test_arrays_beyond_the_four_gigabytes_of_an_old_zip_are_written(path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)  # bytes, in the place of 2^31
    save(CP(None, [np.arange(300.0)[:, None]]), path)
    assert_equal(load(path).factors[0], np.arange(300.0)[:, None])


@pytest.mark.parametrize(
    ("library", "imported", "remedy"),
    [("torch", "torch", "pip install 'tenfac[torch]'"), ("jax", "jax.numpy", "pip install 'jax'")],
)
def test_a_library_that_is_not_installed_is_named_with_what_to_install(
    path, monkeypatch, library, imported, remedy
):
    save(CP(None, [np.ones((2, 1))]), path)
    rewrite(path, lambda header, _: header.update(arrays=dict.fromkeys(header["arrays"], library)))
    monkeypatch.setitem(sys.modules, imported, None)
    with pytest.raises(tenfac.MissingExtraError) as error:
        load(path)
    assert_says(error, f"arrays of {library}", remedy)


def test_only_arguments_in_the_wrong_order_are_told_to_be_turned_round(path):
    t = CP(None, [np.ones((2, 1))])
    for first, second, turned in (
        (str(path), t, True),
        (path, t, True),
        (str(path), path, False),
        (3, t, False),
    ):
        with pytest.raises(DataError) as error:
            save(first, second)
        assert_equal("save(obj, path)" in str(error.value), turned)


def test_no_file_is_the_usual_error(path):
    with pytest.raises(FileNotFoundError):
        load(path)
