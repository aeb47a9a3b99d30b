"""Keeps the house in order: dependencies flow one way, rooms stay small, and nothing forbidden creeps in."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "wallaroo_hf"
FILES = sorted(SOURCE.rglob("*.py"))
# room -> rooms it may import from (itself always)
_CORE = {"files", "families", "layout", "processing", "generation", "modeling"}
ALLOWED = {
    "files": {"_version"},
    "families": {"files"},
    "layout": {"files", "families"},
    "scenes": {"files"},
    "processing": {"files", "families", "layout"},
    "generation": {"families", "layout"},
    "modeling": {"files", "families", "layout", "generation"},
    "conversion": _CORE - {"generation"},
    "pipelines": _CORE,
    "conversation": {"generation", "processing"},
    "training": {*_CORE, "_version", "scenes"},
    "evaluation": {*_CORE, "_version", "scenes", "training"},
    "web": {*_CORE, "_version", "conversation", "pipelines"},
    "cli": {
        *(*_CORE, "_registration", "_version", "conversation", "conversion", "evaluation", "pipelines", "scenes"),
        *("training", "web"),
    },
    "_registration": {*_CORE, "pipelines"},
    "_requirements": set(),
    "_version": set(),
    "__init__": {*_CORE, "_registration", "_requirements", "_version", "pipelines"},
    "__main__": {"cli"},
}
_LIGHT = {"torch", "transformers", "numpy", "PIL", "safetensors"}
HEAVY = {"layout": _LIGHT, "files": {"torch", "transformers", "numpy"}, "families": _LIGHT}
OUTSIDE_OF_SCENES = {"numpy", "PIL", "datasets"}  # beside the standard library


def _room(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else path.stem


def _imports(path: Path) -> set[tuple[str, bool]]:
    """Rooms and outside packages that a file imports: `(name, is_ours)`."""
    found = set()
    package = ["wallaroo_hf", *path.relative_to(SOURCE).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for block in [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]:
        block.body = []  # named for type checkers only
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name.split(".")[0], False) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(((node.module or "").split(".")[0], False))
        elif isinstance(node, ast.ImportFrom):
            origin = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            names = [alias.name for alias in node.names] if origin in (["wallaroo_hf"], ["wallaroo_hf", ""]) else []
            found |= {(name, True) for name in (names or [origin[1]])}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_dependencies_flow_one_way(path):
    room = _room(path)
    ours = {name for name, is_ours in _imports(path) if is_ours}
    assert ours <= ALLOWED[room] | {room}, f"{room} must not import {ours - ALLOWED[room] - {room}}"
    outside = {name for name, is_ours in _imports(path) if not is_ours}
    assert "wallaroo_hf" not in outside, "import relatively"
    if path != SOURCE / "families" / "loading.py":  # which is imported when something is loaded
        assert not outside & HEAVY.get(room, set())
    if room == "scenes":
        assert outside <= {*sys.stdlib_module_names, *OUTSIDE_OF_SCENES}


PUBLIC_TWICE = {"app.py"}  # the command's file bears the command's name, and people import `web.app.launch`


def test_no_two_files_have_one_name():
    names = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert {name for name, count in names.items() if count > 1} == PUBLIC_TWICE


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_rooms_are_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{node.name} has {lines} lines"


FORBIDDEN = (r"\.cuda\(\)", r"strict=False", r"except:", r"exceptException", r"(?<![.\w])eval\(", r"pickle\.load")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_forbidden(path):
    text = path.read_text(encoding="utf-8")
    words = tokenize.generate_tokens(io.StringIO(text).readline)
    code = "".join(token.string for token in words if token.type not in (tokenize.STRING, tokenize.COMMENT))
    for pattern in FORBIDDEN:
        assert not re.search(pattern, code), pattern
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            safe = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert path.name == "released_files.py" and safe["weights_only"] == "True"


def _public(tree: ast.Module) -> list[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes of a module, and the methods of its public classes."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    top = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    methods = [
        node for owner in top if isinstance(owner, ast.ClassDef) for node in owner.body if isinstance(node, kinds)
    ]
    return top + [node for node in methods if not node.name.startswith("_")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_public_names_have_docstrings(path):
    for node in _public(ast.parse(path.read_text(encoding="utf-8"))):
        assert ast.get_docstring(node), f"{node.name} has no docstring"
