"""Makes docstrings fit Sphinx: footnotes of their own, plain text kept plain, no accidental links."""

from __future__ import annotations

import re
from typing import Any

import sphinx.ext.autosummary
from sphinx import addnodes
from sphinx.domains.python import PyObject

import tenfac


def relabel(name: str, line: str) -> str:
    """Replace ``[1]_`` and ``.. [1] text`` by footnotes that carry ``name``: docstrings share a page."""
    stem = re.sub(r"\W+", "-", name).strip("-").lower()
    cited = re.sub(r"\[(\d+)\]_", rf"[#{stem}-\1]_", line)
    return re.sub(r"^(\s*\.\. )\[(\d+)\]", rf"\1[#{stem}-\2]", cited)


def escape(line: str) -> str:
    """Keep ``coef_``, ``|x|`` and the ``*b`` of a shape what they are, outside of literals."""
    line = re.sub(r"^(:ivar \w+)_:", r"\1\\_:", line)
    parts = line.split("``")
    parts[::2] = [re.sub(r"(?<!\\)\||(?<=\()\*(?=\w)", r"\\\g<0>", part) for part in parts[::2]]
    return "``".join(parts)


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [escape(relabel(name, line)) for line in lines]


def first_paragraph(doc: list[str], document: Any) -> str:
    """The line that says what an object is. (Sphinx would end it at the first full stop of ``A ...``.)"""
    text = "\n".join(doc).strip()
    return " ".join(text.split("\n\n")[0].split())


def unlink_words(app: Any, doctree: Any) -> None:
    """Take links off the words of a type (``array, shape (I, R)``) that are no class of tenfac."""
    for node in list(doctree.findall(addnodes.pending_xref)):
        name = node["reftarget"].split(".")[-1]
        known = "tenfac." in node["reftarget"] or (name in tenfac.__all__ and name[:1].isupper())
        if node.get("refdomain") == "py" and not known:
            node.replace_self(node.children)


def setup(app: Any) -> dict[str, bool]:
    sphinx.ext.autosummary.extract_summary = first_paragraph
    for field in PyObject.doc_field_types:
        field.label = "Attributes" if field.name == "variable" else field.label
    app.connect("autodoc-process-docstring", process, priority=900)
    app.connect("doctree-read", unlink_words)
    return {"parallel_read_safe": True}
