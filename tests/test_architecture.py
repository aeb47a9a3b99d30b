"""Keeps the house in order: dependencies flow one way, rooms stay small, and nothing forbidden creeps in."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "wallaroo_hf"
FILES = sorted(SOURCE.rglob("*.py"))
# room -> rooms it may import from (itself always)
ALLOWED = {
    "layout": set(),
    "scenes": {"_parsing"},
    "processing": {"layout"},
    "generation": {"layout"},
    "modeling": {"layout", "generation"},
    "conversion": {"_checkpoint_files", "_files", "_loading", "layout", "processing", "modeling"},
    "training": {
        *("_files", "_loading", "_parsing", "_run_lock", "_version", "layout", "processing", "modeling", "scenes"),
    },
    "evaluation": {
        *("_built_in", "_files", "_loading", "_parsing", "_version", "layout", "scenes"),
        *("generation", "modeling", "processing", "training"),
    },
    "_checkpoint_files": {"_parsing"},
    "_files": set(),
    "_given": {"_files"},
    "_loading": {"layout"},
    "_run_lock": set(),
    "_parsing": set(),
    "_processes": set(),
    "_requirements": set(),
    "_version": set(),
    "_registration": {"_built_in", "modeling", "pipelines", "processing"},
    "__main__": {"cli"},
    "conversation": {"generation", "processing"},
    "_terminal_images": set(),
    "_prompt_files": {"_checkpoint_files", "_files", "_parsing", "layout"},
    "_checkpoint_info": {"_checkpoint_files"},
    "_commands_chat": {
        "_cli_options",
        "_commands",
        "_saved_pictures",
        "_terminal_images",
        "conversation",
        "processing",
        "_files",
        "_given",
    },
    "_commands_info": {"_checkpoint_files", "_checkpoint_info", "_cli_options"},
    "_commands_prompts": {
        *(
            "_commands",
            "_files",
            "_given",
            "_processes",
            "_prompt_files",
            "_saved_pictures",
            "pipelines",
            "processing",
        ),
    },
    "_saved_pictures": {"_files", "_version"},
    "_commands_app": {"_cli_options", "_commands", "web", "_files"},
    "web": {"_saved_pictures", "_version", "conversation", "generation", "layout", "pipelines", "processing"},
    "_commands": {
        *(
            "_given",
            "_loading",
            "_saved_pictures",
            "_registration",
            "generation",
            "modeling",
            "pipelines",
            "processing",
        ),
    },
    "_built_in": set(),
    "_training_progress": set(),
    "_cli_options": {"_built_in"},
    "_commands_train_vq": {"modeling", "training", "_files"},
    "_commands_encode": {"_cli_options", "_commands", "_registration", "layout", "processing", "training", "_files"},
    "_commands_export": {
        *("_checkpoint_files", "_cli_options", "_commands", "_files", "_registration"),
        *("conversion", "pipelines", "training"),
        "_given",
    },
    "_commands_merge": {"_cli_options", "_registration", "training"},
    "_commands_serve": {"_cli_options", "_commands", "web"},
    "_commands_evaluate": {"_cli_options", "_commands", "evaluation", "scenes", "_files"},
    "_commands_benchmarks": {"_cli_options", "_processes", "_commands", "evaluation", "_files"},
    "_commands_train": {
        *("_cli_options", "_commands_train_vq", "_loading", "_processes", "_registration", "_run_lock"),
        "_training_progress",
        *("processing", "modeling", "training"),
        "_files",
    },
    "cli": {
        *(
            "_version",
            "_registration",
            "_cli_options",
            "_commands",
            "_commands_encode",
            "_commands_evaluate",
            "_files",
        ),
        *("_commands_app", "_commands_benchmarks", "_commands_chat", "_commands_export", "_commands_info"),
        *("_commands_merge", "_commands_prompts", "_commands_serve", "_commands_train"),
        *("conversion", "processing"),
        "_given",
    },
    "pipelines": {"_loading", "generation", "processing"},
    "__init__": {"_built_in", "_requirements", "_version", "_registration", "modeling", "pipelines", "processing"},
}
TORCH_FREE = ("layout",)


def _room(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else path.stem


def _imports(path: Path) -> set[tuple[str, bool]]:
    """Rooms and outside packages that a file imports: `(name, is_ours)`."""
    found = set()
    package = ["wallaroo_hf", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
    if room in TORCH_FREE:
        assert not outside & {"torch", "transformers", "numpy", "PIL"}
    if room == "scenes":
        assert outside <= {*sys.stdlib_module_names, "numpy", "PIL", "datasets"}


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
            assert path.name == "sources.py" and safe["weights_only"] == "True"


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
