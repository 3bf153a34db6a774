"""The scanner itself: it finds planted samples of each kind, and lets honest code pass."""

from textwrap import indent

import pytest

from tests import scan


def in_test(body: str) -> str:
    return "def test_x():\n" + indent(body, "    ") + "\n"


IDLE = {
    "dropped allclose": in_test("assert a\nnp.allclose(a, b)"),
    "dropped array_equal": in_test("assert a\narray_equal(a, b)"),
    "dropped isclose in a helper": "def same(a, b):\n    math.isclose(a, b)\n",
    "dropped approx": in_test("assert a\npytest.approx(3)"),
    "dropped comparison": in_test("assert a\na == b"),
    "verdict kept under a name": in_test("assert a\nsame = np.array_equal(a, b)"),
    "verdict kept through another name": in_test("assert a\nsame = np.allclose(a, b)\nok = same and c"),
    "verdicts appended to a list": in_test("assert a\nall_ = []\nv = allclose(a, b)\nall_.append(v)"),
    "verdict in a walrus": in_test("assert a\nif (same := np.allclose(a, b)):\n    pass"),
    "approx with a second position": in_test("assert a == pytest.approx(b, 1)"),
    "raises without with": in_test("assert a\npytest.raises(ValueError)"),
    "no check": in_test("f(3)"),
    "no check in a method": "class TestX:\n    def test_x(self):\n        f(3)\n",
    "no check in a helper": "def assert_same(a, b):\n    np.testing.equal(a, b)\n",
    "a constant": in_test("assert a\nassert True"),
    "a tuple": in_test("assert a\nassert (a == b, 'message')"),
    "a thing with itself": in_test("assert a\nassert a.b == a.b"),
}
HONEST = {
    "assert": in_test("assert np.allclose(a, b)"),
    "raises": in_test("with pytest.raises(ValueError):\n    f()"),
    "raises with a function": in_test("pytest.raises(ValueError, f, 1)"),
    "helper": in_test("assert_close(a, b)"),
    "helper of a module": in_test("np.testing.assert_allclose(a, b)"),
    "conformance helper": in_test("check_estimator(a)"),
    "verdict asserted later": in_test("same = np.allclose(a, b)\nassert same, 'text'"),
    "verdict through another name": in_test("same = np.allclose(a, b)\nok = same and c\nassert ok"),
    "verdicts in a list": in_test("v = []\nok = allclose(a, b)\nv.append(ok)\nassert all(v)"),
    "verdict that raises": "def check_x():\n    ok = isclose(a, b)\n    if not ok:\n        raise Error\n",
    "verdict returned": "def same(a, b):\n    ok = np.array_equal(a, b)\n    return ok\n",
    "approx with names": in_test("assert a == pytest.approx(b, rel=1e-3)"),
    "two draws": in_test("assert draw(seed=1) == draw(seed=1)"),
    "property": in_test("@given(st.integers())\ndef law(n):\n    assert n == f(n)\nlaw()"),
}
HABITS = {
    "global": "def f():\n    global x\n    x = 1\n",
    "except": "try:\n    f()\nexcept:\n    pass\n",
    "print": "print(1)\n",
    "pickle": "import pickle\n",
    "pickle by from": "from pickle import loads\n",
    "allow_pickle": "np.load(p, allow_pickle=True)\n",
    "torch.load": "torch.load(p)\n",
    "plt.show": "plt.show()\n",
}


@pytest.mark.parametrize("sample", IDLE.values(), ids=IDLE)
def test_a_check_that_cannot_fail_is_found(sample: str) -> None:
    assert len(scan.idle_checks(sample)) == 1


@pytest.mark.parametrize("sample", HONEST.values(), ids=HONEST)
def test_an_honest_check_passes(sample: str) -> None:
    assert scan.idle_checks(sample) == []


@pytest.mark.parametrize("sample", HABITS.values(), ids=HABITS)
def test_a_bad_habit_is_found(sample: str) -> None:
    assert len(scan.bad_habits(sample)) == 1


def test_good_habits_pass() -> None:
    source = (
        "import json\ntry:\n    np.load(p, allow_pickle=False)\nexcept ValueError:\n    info('print(1)')\n"
    )
    assert scan.bad_habits(source) == []
    assert scan.bad_habits("print(1)\n", may_print=True) == []


def test_a_long_function_is_found_and_its_docstring_is_not_counted() -> None:
    body = "\n".join(["    x = 1"] * 10)
    assert len(scan.long_functions(f"def f():\n{body}\n", 10)) == 1
    assert scan.long_functions(f"def f():\n{body}\n", 11) == []
    assert scan.long_functions(f'def f():\n    """One.\n\n    Two.\n    """\n{body}\n', 11) == []
