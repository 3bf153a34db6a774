"""What refusals and warnings are made of: the nearest name, the user's line, one rule for ``verbose``."""

from __future__ import annotations

import inspect
import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest

from tenfac import DataError
from tenfac.core.errors import cannot_take, check_option, check_verbose, nearest_name, warn_user
from tests.checks import assert_equal, assert_says


@pytest.mark.parametrize(
    ("got", "known", "said"),
    [
        ("Max-Iter", ["tol", "max_iter"], " Did you mean 'max_iter'?"),
        ("zzz", ["tol", "max_iter"], ""),
        ("tuxedos", ["tol"], ""),
        ("tol", [], ""),
        ("", ["tol"], ""),
        (3, ["tol"], ""),
        ("told", ["toll", "tolk"], " Did you mean 'toll'?"),
    ],
)
def test_the_nearest_name_is_told_if_one_is_near(got: Any, known: list[str], said: str) -> None:
    assert_equal(nearest_name(got, known), said)


@pytest.mark.parametrize("value", [3, None, ["svd"], "zzz"])
def test_a_setting_that_is_no_word_known_is_refused_with_all_of_them(value: Any) -> None:
    assert_equal(check_option("svd", ["svd", "random"], "cp", "init"), "svd")
    with pytest.raises(DataError) as error:
        check_option(value, ["svd", "random"], "cp", "init", also="a CP tensor")
    assert_says(error, "cp: `init` must be one of 'svd', 'random', or a CP tensor", repr(value))


@pytest.mark.parametrize("verbose", [True, False, 1.0, 3, -1, "1", None])
def test_verbose_is_one_of_three_integers(verbose: Any) -> None:
    for known in (0, 1, 2, np.int64(1)):
        check_verbose(known, "cp")
    with pytest.raises(DataError) as error:
        check_verbose(verbose, "cp")
    assert_says(error, "cp: `verbose`", repr(verbose))


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_a_warning_stands_at_the_line_of_the_user(depth: int) -> None:
    package = types.ModuleType("tenfac.made")
    package.warn_user = warn_user
    source = "def fit(depth):\n    return fit(depth - 1) if depth else warn_user('cp: too few.')\n"
    exec(compile(source, "<tenfac made>", "exec"), vars(package))
    call = package.fit if depth else warn_user
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        line = inspect.currentframe().f_lineno + 1
        call(depth) if depth else call("cp: too few.")
    assert_equal([(w.filename, w.lineno) for w in said], [(sys._getframe().f_code.co_filename, line)])


def test_a_function_that_cannot_take_its_arguments_is_told_its_own() -> None:
    assert_equal(
        (cannot_take(lambda x: x, 1), cannot_take(dict.fromkeys, 1), cannot_take(3, 1)), ("", "", "")
    )
    assert_says(cannot_take(lambda x, y: (x, y), 3), "the arguments (x, y)", "too many")
