"""The reference lists exactly the commands, keys, errors, events and notices that exist."""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.core import TyperGroup
from typer.main import get_command

import hive
from hive import settings
from hive.cli import main as cli
from hive.config.agent_file import AgentFile, AgentLimits, AgentNetwork, McpServer
from hive.errors import HiveError
from hive.events import EVENT_TYPES, notices
from hive.settings import PeerSettings, Settings

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "hive").rglob("*.md")])
PLACEHOLDERS = {"prices": "MODEL", "credentials": "HOST"}
"""How the page writes the name of a table of which there are many."""
SECTIONS = ("Commands", "`hive.toml`", "`agent.toml`", "Errors", "Events", "Notices")
INTERNAL = "internal"
"""The only code without a class: the reply to a bug in hive."""


def section(name: str) -> dict[str, list[str]]:
    """The table rows of a section by their first cell, without its backticks."""
    text = PAGE.read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        first, *others = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and first != "`event`":
            assert first not in rows, f"{first} is listed twice"
            assert others[-1] or len(others) > 1, f"{first} is not explained"
            rows[first.strip("`")] = others
    return rows


def commands() -> Iterator[Any]:
    root = get_command(cli._app)
    for name in cli.MODULES:
        command: Any = root.get_command(None, name)  # type: ignore[attr-defined]  # The type stubs of typer hide that it is a group.
        if not isinstance(command, TyperGroup) or command.invoke_without_command:
            yield command
        if isinstance(command, TyperGroup):
            yield from command.commands.values()


def error_codes() -> set[str]:
    for module in pkgutil.walk_packages(hive.__path__, "hive."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    classes, codes = [HiveError], {INTERNAL}
    while classes:
        one = classes.pop()
        codes.add(one.code)
        classes += one.__subclasses__()
    return codes


def keys_of(cls: type[msgspec.Struct], prefix: str = "") -> dict[str, Any]:
    """All keys of a table with their fields."""
    return {f"{prefix}{field.encode_name}": field for field in msgspec.structs.fields(cls)}


def shown(field: Any) -> str:
    """A default as the page shows it: in TOML; empty for None."""
    if field.required:
        return ""
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return "" if value is None else f"`{json.dumps(value)}`"


def check_keys(rows: dict[str, list[str]], fields: dict[str, Any]) -> None:
    assert set(rows) == set(fields)
    assert {key: cells[0] for key, cells in rows.items()} == {key: shown(field) for key, field in fields.items()}


def names(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`(\w+)`", cell))


def test_reference_has_exactly_its_sections() -> None:
    assert tuple(re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)) == SECTIONS


def test_reference_lists_every_command_with_help_and_example() -> None:
    examples = {
        command.epilog.removeprefix("Example: [bold]").removesuffix("[/bold]"): command for command in commands()
    }
    assert {row: cells[-1] for row, cells in section("Commands").items()} == {
        example: command.get_short_help_str(limit=200) for example, command in examples.items()
    }


def test_reference_lists_every_key_of_hive_toml() -> None:
    tables = msgspec.structs.fields(Settings)
    fields: dict[str, Any] = {}
    for table in tables:
        named = settings.NAMED_TABLES.get(table.name)
        prefix = f"{table.name}." if named is None else f'{table.name}."{PLACEHOLDERS[table.name]}".'
        fields |= keys_of(named or table.type, prefix)
    del fields["swarm.peers"]
    fields |= keys_of(PeerSettings, "swarm.peers.NAME.")
    check_keys(section("`hive.toml`"), fields)


def test_reference_lists_every_key_of_agent_toml() -> None:
    fields = keys_of(AgentFile) | keys_of(AgentLimits, "limits.") | keys_of(McpServer, "mcp_servers.NAME.")
    fields |= keys_of(AgentNetwork, "network.")
    del fields["limits"], fields["mcp_servers"], fields["network"]
    check_keys(section("`agent.toml`"), fields)


def test_reference_lists_every_error_code() -> None:
    assert set(section("Errors")) == error_codes()


def test_reference_lists_every_event() -> None:
    fields = {
        name: tuple(field.encode_name for field in msgspec.structs.fields(event)) for name, event in EVENT_TYPES.items()
    }
    assert {name: names(cells[-1]) for name, cells in section("Events").items()} == fields


def test_reference_lists_every_notice() -> None:
    keys = {
        str(notice.__struct_config__.tag): tuple(field.encode_name for field in msgspec.structs.fields(notice))
        for notice in notices.Notice.__subclasses__()
    }
    assert {tag: names(cells[-1]) for tag, cells in section("Notices").items()} == keys


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_links_to_the_reference() -> None:
    assert "(docs/reference.md)" in (ROOT / "README.md").read_text()
