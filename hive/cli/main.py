"""Maps commands to modules and errors to exit codes. Imports a command's module only when the command runs."""

import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from hive.cli import screen
from hive.cli.session import QuickGroup
from hive.errors import HiveError
from hive.sockets.client import Unreachable

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_INTERRUPTED: Final = 130

MODULES: Final = {
    "status": "agents",
    "agents": "agents",
    "up": "daemon",
    "down": "daemon",
    "dashboard": "dashboard",
    "demo": "daemon",
    "service": "service",
    "image": "image",
    "doctor": "doctor",
    "completion": "shell",
    "man": "shell",
    "spawn": "lifecycle",
    "request-spawn": "lifecycle",
    "start": "lifecycle",
    "stop": "lifecycle",
    "kill": "lifecycle",
    "restart": "lifecycle",
    "rebuild": "lifecycle",
    "update-all": "lifecycle",
    "pause": "lifecycle",
    "resume": "lifecycle",
    "destroy": "lifecycle",
    "purge": "lifecycle",
    "revive": "lifecycle",
    "mount": "mounts",
    "unmount": "mounts",
    "mounts": "mounts",
    "forward": "forward",
    "logs": "agents",
    "watch": "turns",
    "login": "login",
    "model": "turns",
    "cancel-turn": "turns",
    "compact": "turns",
    "new-session": "turns",
    "send": "messages",
    "inbox": "messages",
    "questions": "questions",
    "answer": "questions",
    "cancel": "questions",
    "approvals": "approvals",
    "diff": "approvals",
    "approve": "approvals",
    "deny": "approvals",
    "config": "config",
    "edit": "config",
    "rollback": "config",
    "egress": "egress",
    "forge": "forge",
    "log": "log",
    "erase": "erase",
    "search": "search",
    "backup": "backup",
    "restore": "backup",
    "audit": "audit",
    "projections": "projections",
    "stats": "stats",
    "operator": "operators",
    "swarm": "swarm",
    "move": "moves",
}
"""The module of each command, in the order of `hive --help`."""


class _Commands(QuickGroup):
    """Builds only the named command, and all commands only for the help."""

    def __init__(self, **attributes: Any):
        super().__init__(**attributes)
        self.commands = dict.fromkeys(MODULES)  # type: ignore[assignment]  # typer uses the names for suggestions.

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        module = MODULES.get(cmd_name)
        if module is None:
            return None
        built: TyperCommand | TyperGroup = import_module(f"hive.cli.{module}").noun.built(cmd_name)
        return built

    def list_commands(self, ctx: Any) -> list[str]:
        return list(MODULES)


_app = typer.Typer(name="hive", cls=_Commands, invoke_without_command=True, rich_markup_mode="rich")


@_app.callback()
def _hive(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> None:
    """Run a swarm of Claude Code agents on one host, with an append-only event log."""
    if version:
        from hive import __version__

        screen.say(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        screen.say(ctx.get_help())
        raise typer.Exit(EXIT_USAGE)


def root() -> Any:
    """The command that holds all others."""
    return get_command(_app)


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    try:
        code = root().main(arguments, prog_name="hive", standalone_mode=False)
    except Unreachable as error:
        screen.complain(f"hive: {error}")
        return EXIT_UNREACHABLE
    except HiveError as error:
        screen.complain(f"hive: {error}")
        return EXIT_REFUSED
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        said = " ".join(error.format_message().replace("Value error, ", "").split())  # Added by pydantic.
        screen.complain(f"hive: {said} See `{context.command_path if context else 'hive'} --help`.")
        return EXIT_USAGE
    except OSError as error:
        screen.complain(f"hive: {error.filename}: {error.strerror}." if error.filename else f"hive: {error}.")
        return EXIT_REFUSED
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED and sys.stderr.isatty():
        sys.stderr.write("\n")  # Put the shell's prompt on a new line after ^C.
    return code if isinstance(code, int) else 0
