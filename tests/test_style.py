"""Style rules that a test can check. Each rule has its reason beside it."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE_LINES_MAX = 420
"""About 400: a file should be readable in one sitting. The slack avoids pointless splits."""
FUNCTION_LINES_MAX = 70
"""A function should fit on one screen."""
VAGUE_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "stuff"})
"""A module name should say what the module contains."""
BROAD = frozenset({"Exception", "BaseException"})
TEXT_SUFFIXES = frozenset(
    {".py", ".md", ".toml", ".txt", ".lock", ".cfg", ".ini", ".sh", ".js", ".css", ".html", ".nix", ".json", ".yml", ""}
)


def tracked() -> list[Path]:
    """All files that git tracks. Without git, all files of the source folders."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return sorted(ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())
    folders = ("hive", "tests", "benchmarks")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())


FILES = tracked()
PYTHON = [path for path in FILES if path.suffix == ".py"]
SOURCES = [path for path in PYTHON if path.is_relative_to(ROOT / "hive")]
TEXTS = [path for path in FILES if path.suffix in TEXT_SUFFIXES and path.name != "test_style.py"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def found(pattern: str, paths: list[Path], flags: re.RegexFlag = re.NOFLAG) -> list[str]:
    """Matches of a pattern, as `file:line: text`."""
    search = re.compile(pattern, flags).search
    return [
        f"{name(path)}:{number}: {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if search(line)
    ]


def test_files_are_found() -> None:
    assert len(SOURCES) > 100
    assert len(TEXTS) > len(SOURCES)


def test_files_are_short() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in PYTHON}
    assert {path: length for path, length in lengths.items() if length > FILE_LINES_MAX} == {}


def test_functions_are_short() -> None:
    too_long = [
        f"{name(path)}: {one.name} has {(one.end_lineno or 0) - one.lineno + 1} lines"
        for path in PYTHON
        for one in functions(path)
        if (one.end_lineno or 0) - one.lineno >= FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_modules_have_a_docstring() -> None:
    silent = [name(path) for path in PYTHON if tree(path).body and not ast.get_docstring(tree(path))]
    assert silent == []


def test_module_names_are_specific() -> None:
    vague = [name(path) for path in PYTHON if VAGUE_NAMES & {path.stem, *path.relative_to(ROOT).parent.parts}]
    assert vague == []


def test_broad_excepts_have_a_reason_or_reraise() -> None:
    silent = []
    for path in SOURCES:
        lines = path.read_text().splitlines()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node):
                says = "#" in lines[node.lineno - 1]
                passes_on = isinstance(node.body[-1], ast.Raise)
                if not (says or passes_on):
                    silent.append(f"{name(path)}:{node.lineno}")
    assert silent == []


def _is_broad(node: ast.ExceptHandler) -> bool:
    kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in BROAD) for kind in kinds)


def test_no_todo_comments() -> None:
    assert found(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError\(\))", TEXTS) == []


def test_no_stubs() -> None:
    """A lone `pass` needs a comment. `...` is allowed only in protocols."""
    stubs = [
        f"{name(path)}: {one.name}"
        for path in SOURCES
        for one in functions(path)
        if len(one.body) == 1 and isinstance(one.body[0], ast.Pass)
    ]
    assert stubs == []


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a package registry's host", r"(?i)\b(pypi\.org|pythonhosted\.org|registry\.npmjs|npmjs\.|deb\.debian\.org)"),
        ("an index option", r"--(extra-)?index-url|--find-links"),
        ("the checkout's folder", rf"{re.escape(str(ROOT))}\b"),
        ("the interpreter's folder", rf"{re.escape(sys.base_prefix)}/"),
        ("an issue number", r"(?i)\bissues? #?\d"),
    ],
)
def test_files_contain_no_host_details(what: str, pattern: str) -> None:
    if pattern.startswith("/") and pattern.count("/") < 3:
        pytest.skip(f"{pattern} is too short a path to look for")
    assert found(pattern, TEXTS) == [], f"the project contains {what}"


def test_no_postponed_annotations() -> None:
    assert found(r"^from __future__ import annotations", PYTHON) == []


def test_tests_use_no_mocks() -> None:
    tests = [path for path in PYTHON if path.is_relative_to(ROOT / "tests") and path.name != "test_style.py"]
    assert found(r"unittest\.mock|\bMagicMock\b|pytest_mock|\bmocker\b", tests) == []
    assert found(r"pytest\.mark\.(xfail|flaky)", tests) == []
