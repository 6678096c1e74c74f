"""Reads the command blocks of the documentation's pages."""

import re
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
ELLIPSIS: Final = "…"
_BLOCK: Final = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


class Command(msgspec.Struct, frozen=True):
    """One command of a `console` block, and the output that the page shows for it."""

    page: str
    line: int
    text: str
    output: tuple[str, ...]
    """`…` stands for any text within a line, and on a line of its own for any lines. Empty: nothing is shown."""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


class Block(msgspec.Struct, frozen=True):
    """A fenced block."""

    language: str
    line: int
    text: str


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        indent, language, body = match.groups()
        plain = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        found.append(Block(language, text.count("\n", 0, match.start()) + 2, plain))
    return found


def commands(page: Path) -> list[Command]:
    """Every command of a page's `console` blocks, in order."""
    name = page.relative_to(ROOT).as_posix()
    found = []
    for block in blocks(page):
        if block.language != "console":
            continue
        typed, line, output = None, block.line, list[str]()
        for number, text in enumerate(block.text.splitlines(), block.line):
            if not text.startswith("$ "):
                assert typed is not None, f"{name}:{number}: a console block begins with `$ `"
                output.append(text)
                continue
            if typed is not None:
                found.append(Command(name, line, typed, tuple(output)))
            typed, line, output = text.removeprefix("$ "), number, []
        assert typed is not None, f"{name}:{block.line}: a console block without a command"
        found.append(Command(name, line, typed, tuple(output)))
    return found


def pattern(output: tuple[str, ...]) -> re.Pattern[str]:
    """What the real output must match as a whole."""
    parts = []
    for line in output:
        if line.strip() == ELLIPSIS:
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            words = ELLIPSIS.join(line.split(ELLIPSIS))
            parts.append(r"[^\n]*?".join(map(_spaced, words.split(ELLIPSIS))) + r"[ ]*\n")
    return re.compile("".join(parts))


def _spaced(text: str) -> str:
    """Columns of a table may be wider than on the page."""
    return r"[ ]+".join(map(re.escape, re.split(" +", text)))
