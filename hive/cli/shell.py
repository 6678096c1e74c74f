"""What a shell and a terminal need of hive: completion scripts and the man page, both made from the commands."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import typer

from hive.cli.session import Noun, Session

noun = Noun("Daemon")

_COMMON: Final = frozenset({"--state", "--run", "--json", "--help"})

COMPLETE_VARIABLE: Final = "_HIVE_COMPLETE"
"""The variable by which the script asks `hive` for candidates; typer derives it from the program's name."""


@noun.command("completion", example="hive completion bash")
def completion(
    _hive: Session,
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print a shell's completion script."""
    from typer.completion import shell_complete

    from hive.cli.main import root

    shell_complete(root(), {}, "hive", COMPLETE_VARIABLE, f"source_{shell}")


@noun.command("man", example="hive man")
def man(_hive: Session) -> None:
    """Print the man page, hive(1)."""
    from hive import __version__
    from hive.cli.main import root

    for line in _page(root(), __version__):
        typer.echo(line)


def _page(root: Any, version: str) -> Iterator[str]:
    """The lines of hive(1) in roff's `man` macros."""
    yield f'.TH HIVE 1 "" "hive {_roff(version)}" "User Commands"'
    yield from (".SH NAME", f"hive \\- {_roff(root.get_short_help_str(limit=200))}")
    yield from (".SH SYNOPSIS", ".B hive", "COMMAND [OPTIONS] [ARGUMENTS]")
    yield ".SH COMMANDS"
    for words, command in _commands(root):
        context = typer.Context(command, info_name=words)
        usage = " ".join(command.collect_usage_pieces(context))
        yield from (".TP", f".B {_roff(words)} {_roff(usage)}", _roff(command.get_short_help_str(limit=200)))
        for parameter in command.get_params(context):
            if not _COMMON & set(parameter.opts) and (record := parameter.get_help_record(context)) is not None:
                yield from (".RS", ".TP", f".B {_roff(record[0])}", _roff(record[1] or ""), ".RE")
    yield from (".SH OPTIONS", "Every command takes these after its name.")
    yield from (
        ".TP",
        ".B \\-\\-state DIR",
        "The state folder.",
        ".TP",
        ".B \\-\\-run DIR",
        "The folder of the sockets.",
    )
    yield from (
        ".TP",
        ".B \\-\\-json",
        "Print JSON.",
        ".TP",
        ".B \\-\\-help",
        "Show what the command takes, and an example.",
    )
    yield from (".SH ENVIRONMENT", ".TP", ".B HIVE_STATE", "The state folder, when \\-\\-state is absent.")
    yield from (".TP", ".B HIVE_RUN", "The folder of the sockets, when \\-\\-run is absent.")
    yield from (
        ".SH EXIT STATUS",
        "0 done; 1 refused, with the reason on stderr; 2 wrong usage; 3 no daemon was reached.",
    )


def _commands(root: Any) -> Iterator[tuple[str, Any]]:
    for name in root.list_commands(None):
        command = root.get_command(None, name)
        within = getattr(command, "commands", {})
        if not within or command.invoke_without_command:
            yield f"hive {name}", command
        for inner, one in within.items():
            yield f"hive {name} {inner}", one


def _roff(text: str) -> str:
    """Text without macros: no line begins with a control character, and dashes can be copied."""
    plain = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
