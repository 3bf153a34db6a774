"""Sphinx configuration: ``sphinx-build -W --keep-going -b html docs docs/_build``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE / "_ext")]

import tenfac  # noqa: E402

project = "tenfac"
author = "The tenfac developers"
project_copyright = author
version = release = tenfac.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "docstrings",
    "results",
]
exclude_patterns = ["_build", "_ext", "_templates", "jupyter_execute"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"tenfac {release}"
html_static_path: list[str] = []

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are shown as they were committed

autosummary_generate = True
autodoc_typehints = "none"  # shapes and types stand in the docstrings
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# a reference that is not cited in the text is still a reference
suppress_warnings = ["ref.footnote", "mystnb.unknown_mime_type"]


def copy_tutorials() -> None:
    """Put the committed notebooks where Sphinx finds them."""
    folder = HERE / "generated" / "tutorials"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in (ROOT / "tutorials").glob("[0-9]*.ipynb")}
    for stale in {path.name for path in folder.glob("*.ipynb")} - set(wanted):
        (folder / stale).unlink()
    for name, path in wanted.items():
        if not (folder / name).exists() or (folder / name).read_bytes() != path.read_bytes():
            shutil.copy(path, folder / name)


copy_tutorials()
