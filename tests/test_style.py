"""How the code reads, as far as a test can tell. Each rule has its reason beside it."""

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
"""What one sitting can hold in mind; `about 400`, so that nobody shuffles five lines about."""
FUNCTION_LINES_MAX = 70
"""What one screen shows."""
VAGUE_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "stuff"})
"""A module is named for what it knows."""
BROAD = frozenset({"Exception", "BaseException"})
TEXT_SUFFIXES = frozenset(
    {".py", ".md", ".toml", ".txt", ".lock", ".cfg", ".ini", ".sh", ".js", ".css", ".html", ".nix", ".json", ".yml", ""}
)


def tracked() -> list[Path]:
    """Every file of the project, as git knows it; a copy without git is walked."""
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
    """Where a pattern stands, as `file:line: text`."""
    search = re.compile(pattern, flags).search
    return [
        f"{name(path)}:{number}: {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if search(line)
    ]


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 100
    assert len(TEXTS) > len(SOURCES)


def test_a_file_can_be_read_in_one_sitting() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in PYTHON}
    assert {path: length for path, length in lengths.items() if length > FILE_LINES_MAX} == {}


def test_a_function_fits_on_a_screen() -> None:
    too_long = [
        f"{name(path)}: {one.name} has {(one.end_lineno or 0) - one.lineno + 1} lines"
        for path in PYTHON
        for one in functions(path)
        if (one.end_lineno or 0) - one.lineno >= FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_a_module_says_on_top_what_it_knows() -> None:
    silent = [name(path) for path in PYTHON if tree(path).body and not ast.get_docstring(tree(path))]
    assert silent == []


def test_a_module_is_named_for_what_it_knows() -> None:
    vague = [name(path) for path in PYTHON if VAGUE_NAMES & {path.stem, *path.relative_to(ROOT).parent.parts}]
    assert vague == []


def test_whoever_catches_everything_says_why_or_passes_it_on() -> None:
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


def test_nothing_is_left_for_later() -> None:
    assert found(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError\(\))", TEXTS) == []


def test_a_stub_is_no_implementation() -> None:
    """`pass` alone says what is passed over; a protocol's `...` follows its docstring or stands on the line."""
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
        ("the folder it was written in", rf"{re.escape(str(ROOT))}\b"),
        ("the interpreter it was written with", rf"{re.escape(sys.base_prefix)}/"),
        ("the number of an issue", r"(?i)\bissues? #?\d"),
    ],
)
def test_the_place_where_it_was_written_does_not_show(what: str, pattern: str) -> None:
    if pattern.startswith("/") and pattern.count("/") < 3:
        pytest.skip(f"{pattern} is too short a path to look for")
    assert found(pattern, TEXTS) == [], f"{what} stands in the project"


def test_structs_are_read_from_real_annotations() -> None:
    assert found(r"^from __future__ import annotations", PYTHON) == []


def test_tests_use_the_real_parts() -> None:
    tests = [path for path in PYTHON if path.is_relative_to(ROOT / "tests") and path.name != "test_style.py"]
    assert found(r"unittest\.mock|\bMagicMock\b|pytest_mock|\bmocker\b", tests) == []
    assert found(r"pytest\.mark\.(xfail|flaky)", tests) == []
