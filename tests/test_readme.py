"""README.md is executed: its Python blocks, its `tenfac` commands, and the output it promises."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ \t]*$", flags=re.MULTILINE | re.DOTALL)
PYTHON, SHELL, OUTPUT = ("python", "py"), ("bash", "console", "sh", "shell"), ("text", "output")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it starts on, and the output shown right below it."""

    language: str
    text: str
    line: int
    output: str | None = None


def blocks_of(markdown: str) -> list[Block]:
    """Fenced blocks in order; a ``text`` block right below another one is that one's output."""
    found: list[Block] = []
    end = -1
    for match in FENCE.finditer(markdown):
        language, text = match[1], match[2]
        line = markdown.count("\n", 0, match.start()) + 1
        if language in OUTPUT and found and end >= 0 and not markdown[end : match.start()].strip():
            last = found[-1]
            found[-1] = Block(last.language, last.text, last.line, text)
        else:
            found.append(Block(language, text, line))
        end = match.end()
    return found


def commands_of(text: str) -> list[str]:
    """The `tenfac` command lines of a shell block, prompts removed, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    stripped = [line.strip().removeprefix("$ ").strip() for line in lines]
    return [line for line in stripped if re.match(r"(python -m )?tenfac\s", line + " ")]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where `python` and `tenfac` are those of this interpreter."""
    scripts = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "MPLBACKEND": "Agg",
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def here(block: Block, folder: Path, capsys: pytest.CaptureFixture[str]) -> subprocess.CompletedProcess[str]:
    """Run a Python block as a script of its own names in this interpreter; what it raises is raised."""
    script = folder / f"line_{block.line}.py"
    script.write_text(block.text, encoding="utf-8")
    runpy.run_path(str(script), run_name="__main__")
    return subprocess.CompletedProcess(str(script), 0, *capsys.readouterr())


def same_output(want: str, got: str) -> bool:
    """Whether the output is what was promised: any white space, ``...`` for anything."""
    return OutputChecker().check_output(want, got, ELLIPSIS | NORMALIZE_WHITESPACE)


def assert_ran(done: subprocess.CompletedProcess[str], want: str | None) -> None:
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    if want is not None:
        assert same_output(want, done.stdout), f"promised:\n{want}\nprinted:\n{done.stdout}"


BLOCKS = blocks_of(README.read_text(encoding="utf-8")) if README.exists() else []
RUNNABLE = [b for b in BLOCKS if b.language in PYTHON or (b.language in SHELL and commands_of(b.text))]
SCRIPTS = [block for block in RUNNABLE if block.language in PYTHON]


def named(block: Block) -> str:
    return f"line{block.line}-{block.language}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One empty folder for the whole README: a block may use the files that blocks above it wrote."""
    return tmp_path_factory.mktemp("readme")


# in this interpreter the libraries are loaded already: in new ones that takes most of the time
@pytest.mark.parametrize("block", SCRIPTS, ids=named)
def test_a_python_block_of_the_readme_prints_what_it_shows(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    block: Block,
) -> None:
    together = tmp_path_factory.getbasetemp() / "readme_here"
    together.mkdir(exist_ok=True)
    monkeypatch.chdir(together)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    assert_ran(here(block, together, capsys), block.output)


# a command that fits 380,000 rows takes half a minute; that the command works is seen in tests/cli too
@pytest.mark.slow
@pytest.mark.parametrize("block", RUNNABLE, ids=named)
def test_a_block_of_the_readme_runs_in_a_new_process(folder: Path, block: Block) -> None:
    if block.language in PYTHON:
        script = folder / f"readme_line_{block.line}.py"
        script.write_text(block.text, encoding="utf-8")
        assert_ran(run([sys.executable, "-W", "error", str(script)], folder), block.output)
    else:
        commands = "\n".join(["set -euo pipefail", *commands_of(block.text)])
        assert_ran(run(["bash", "-c", commands], folder), block.output)


def test_the_readme_has_python_blocks_and_commands() -> None:
    languages = {block.language for block in RUNNABLE}
    assert languages & set(PYTHON)
    assert languages & set(SHELL)


def test_every_block_of_the_readme_says_its_language() -> None:
    assert [block.line for block in BLOCKS if not block.language] == []


def test_every_relative_link_of_the_readme_leads_to_a_file() -> None:
    prose = FENCE.sub("", README.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose)
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (README.parent / link).exists()] == []


# --- the reader of the README itself ----------------------------------------------------------------------

SAMPLE = """# x

```python
print("a", 1)
```

```text
a   1
```

Prose.

```text
a drawing
```

```console
$ pip install x
$ tenfac fit a.csv \\
    --rank 3
tenfacts
$ python -m tenfac info
```
"""


def test_blocks_are_found_with_their_lines_and_outputs() -> None:
    first, drawing, shell = blocks_of(SAMPLE)
    assert (first.language, first.line, first.output) == ("python", 3, "a   1\n")
    assert (drawing.language, drawing.output) == ("text", None)
    assert commands_of(shell.text) == ["tenfac fit a.csv      --rank 3", "python -m tenfac info"]


def test_a_block_that_fails_or_prints_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        assert_ran(run([sys.executable, "-c", "1 / 0"], tmp_path), None)
    with pytest.raises(AssertionError):
        assert_ran(run([sys.executable, "-c", "print(2)"], tmp_path), "3\n")
    assert_ran(run([sys.executable, "-c", "print('rank', 2, 0.123)"], tmp_path), "rank 2 0.1...\n")


def test_a_script_run_here_has_names_of_its_own_and_is_refused_for_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_ran(here(Block("python", "x = 1\nprint('first')", 1), tmp_path, capsys), "first\n")
    with pytest.raises(NameError):
        here(Block("python", "print(x)", 2), tmp_path, capsys)
    with pytest.raises(UserWarning, match="old"):
        here(Block("python", "import warnings\nwarnings.warn('old')", 3), tmp_path, capsys)
    with pytest.raises(AssertionError, match="promised"):
        assert_ran(here(Block("python", "print(2)", 4), tmp_path, capsys), "3\n")
