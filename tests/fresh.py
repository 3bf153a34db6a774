"""Code in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

HIDE = """
import sys
from importlib.machinery import PathFinder

class Hide(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hide
"""


def in_fresh_python(code: str, *, blocked: tuple[str, ...] = ()) -> str:
    """Run code in a new interpreter where some libraries are as if not installed; return its output."""
    hide = HIDE.replace("BLOCKED", repr(blocked)) if blocked else ""
    run = subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()
