"""All commands: existence, help, examples, imports and completion."""

import os
import pty
import shlex
import subprocess
import sys
from typing import Any

import pytest
from system.hive_process import eventually
from typer.core import TyperGroup
from typer.main import get_command

from hive.cli import main as cli
from hive.cli import screen
from hive.paths import Paths

from .conftest import PATIENCE_S, Run
from .peer import serving
from .test_requests import APPROVAL, QUESTION, STATE

PROMISED = """
    up down demo status agents spawn request-spawn start stop kill restart rebuild pause resume destroy revive mount
    unmount logs watch login model cancel-turn compact new-session config edit rollback forge send inbox questions
    answer cancel approvals diff approve deny log audit projections stats operator doctor
"""
PROMISED_WITHIN = {
    "log": {"import"},
    "audit": {"verify", "replay", "why", "export"},
    "projections": {"status", "rebuild", "check"},
    "operator": {"add", "list", "revoke"},
    "forge": {"status"},
}
HEAVY = (
    "pydantic",
    "asyncio",
    "apsw",
    "pykka",
    "litestar",
    "httpx",
    "claude_agent_sdk",
    "watchfiles",
    "uvicorn",
    "platformdirs",
)


def commands() -> list[tuple[tuple[str, ...], Any]]:
    found = []
    root = get_command(cli._app)
    for name in cli.MODULES:
        command: Any = root.get_command(None, name)  # type: ignore[attr-defined]
        if not isinstance(command, TyperGroup) or command.invoke_without_command:
            found.append(((name,), command))
        if isinstance(command, TyperGroup):
            found += [((name, within), command.commands[within]) for within in command.commands]
    return found


def test_every_documented_command_exists() -> None:
    assert set(PROMISED.split()) - set(cli.MODULES) == set()
    for name, within in PROMISED_WITHIN.items():
        assert within <= {words[-1] for words, _ in commands() if words[0] == name}


@pytest.mark.parametrize(
    ("words", "command"), commands(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_help_and_an_example(words: tuple[str, ...], command: Any) -> None:
    assert len(command.get_short_help_str(limit=200)) < 62, "One line of `hive --help` at 80 columns."
    example = command.epilog.removeprefix("Example: [bold]").removesuffix("[/bold]")
    given = shlex.split(example)
    while "=" in given[0]:
        given.pop(0)
    assert tuple(given[: 1 + len(words)]) == ("hive", *words)
    command.make_context(" ".join(words), given[1 + len(words) :])  # Raises the usage error that a user would see.
    options = {option for param in command.params for option in param.opts}
    assert {"--state", "--run", "--json"} <= options


def test_help_lists_every_command(hive: Run) -> None:
    done = hive("--help")
    assert done.returncode == 0
    listed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("│ ") and len(line.split()) > 2}
    assert set(cli.MODULES) <= listed
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_status_imports_no_heavy_modules(environment: dict[str, str], paths: Paths) -> None:
    with serving(paths.host_socket, {"state": STATE}):
        program = (
            "import sys; from hive.cli.main import main; code = main(['status']); "
            "sys.stderr.write(' '.join(sys.modules)); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
    assert not set(HEAVY) & set(done.stderr.split())


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("hive sta", ["status", "start", "stats"]),
        ("hive start ", ["coder", "manager"]),
        ("hive kill co", ["coder"]),
        ("hive approve ", ["3"]),
        ("hive answer ", ["7"]),
        ("hive audit wh", ["why"]),
        ("hive log --type Rebu", ["Rebuilt"]),
        ("hive stats --window 2", ["24h"]),
    ],
)
def test_completion(hive: Run, paths: Paths, typed: str, completed: list[str]) -> None:
    words = typed.split()
    position = len(words) if typed.endswith(" ") else len(words) - 1
    answers: dict[str, Any] = {
        "list": {"agents": ["coder", "manager"]},
        "pending": {"approvals": [APPROVAL]},
        "questions": {"questions": [QUESTION]},
    }

    def is_completed() -> bool:
        done = hive(_HIVE_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(position))
        assert done.stderr == ""
        return done.stdout.split() == completed

    with serving(paths.host_socket, answers):  # Completion waits at most one second.
        eventually(is_completed, " ".join(completed))


def test_completion_without_a_daemon_prints_nothing(hive: Run) -> None:
    done = hive(_HIVE_COMPLETE="complete_bash", COMP_WORDS="hive start ", COMP_CWORD="2")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_terminal_gets_only_own_colours(environment: dict[str, str], paths: Paths) -> None:
    evil = {
        **STATE["state"]["agents"][0],
        "status_text": "\x1b]0;title\x07\x1b[41mred\x1b[0m \u202egnihton [red]markup[/red]",
    }
    master, slave = pty.openpty()
    with serving(paths.host_socket, {"state": {**STATE, "state": {**STATE["state"], "agents": [evil]}}}):
        subprocess.run(
            [sys.executable, "-m", "hive", "status"],
            env={**environment, "TERM": "xterm-256color", "COLUMNS": "160"},
            stdout=slave,
            timeout=PATIENCE_S,
            check=True,
        )
    os.close(slave)
    output = b""
    while chunk := _read(master):
        output += chunk
    os.close(master)
    text = output.decode()
    assert "\x1b[32mrunning" in text
    assert "\\x1b]0;title\\x07\\x1b[41mred\\x1b[0m \\u202egnihton [red]markup[/red]" in text
    assert not {"\x1b]", "\x07", "\u202e", "\x1b[41m"} & {
        text[at : at + size] for at in range(len(text)) for size in (1, 2, 5)
    }


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # Linux reports the end of a pseudo-terminal as an error.
        return b""


@pytest.mark.parametrize(
    ("text", "cell", "lines"),
    [
        ("plain – ünïcode 👍", "plain – ünïcode 👍", "plain – ünïcode 👍"),
        ("a\nb\tc", "a ⏎ b c", "a\nb\tc"),
        ("\x1b[1m\x9b\x7f\x00", "\\x1b[1m\\x9b\\x7f\\x00", "\\x1b[1m\\x9b\\x7f\\x00"),
        (
            "\u2066\u2069\u200f\ufeff\u2028",
            "\\u2066\\u2069\\u200f\\ufeff\\u2028",
            "\\u2066\\u2069\\u200f\\ufeff\\u2028",
        ),
        ("\U000e0041", "\\U000e0041", "\\U000e0041"),
        ("line\rover", "line\\x0dover", "line\\x0dover"),
    ],
)
def test_control_characters_are_escaped(text: str, cell: str, lines: str) -> None:
    assert screen.visible(text) == cell
    assert screen.visible_lines(text) == lines


def test_json_with_escaped_characters_stays_valid() -> None:
    import msgspec

    value = {"text": "".join(map(chr, [*range(0xD800), *range(0xE000, 0x10000), 0xE0041, 0x1F44D]))}
    written = screen.json_text(value)
    assert msgspec.json.decode(written) == value
    assert screen.visible(written) == written
    assert screen.visible_lines(screen.json_text(value, indented=True)) == screen.json_text(value, indented=True)


def test_durations() -> None:
    assert [screen.duration(seconds) for seconds in (-3, 45, 125, 3720, 100_000)] == [
        "0s",
        "45s",
        "2m 5s",
        "1h 2m",
        "1d 3h",
    ]


def test_doctor(hive: Run) -> None:
    done = hive("doctor")
    assert done.returncode in (0, 1)
    assert done.stderr == ""
    for name in ("python", "SQLite", "Claude Code", "bubblewrap", "git", "disk", "state folder", "daemon", "nix"):
        assert name in done.stdout


def test_version(hive: Run) -> None:
    from hive import __version__

    assert hive("--version").stdout == f"{__version__}\n"
