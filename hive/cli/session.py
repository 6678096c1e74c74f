"""Registration of commands, the options common to all of them, and the session with the daemon."""

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_from_info, get_group

from hive.cli import screen
from hive.errors import HiveError
from hive.paths import Paths, default_paths
from hive.sockets.client import HostClient, Reply

F = TypeVar("F", bound=Callable[..., None])

COMPLETION_TIMEOUT_S = 1.0
"""Longest time that shell completion waits for the daemon."""
EXIT_BROKEN_PIPE: Final = 141
"""The exit code that a shell reports for SIGPIPE."""


class Session:
    """One run of a command: the hive's paths, the output format, and the connection to the daemon."""

    def __init__(self, paths: Paths, *, as_json: bool):
        self.paths = paths
        self.as_json = as_json
        self.client = HostClient(paths.host_socket)

    def ask(self, cmd: str, /, **fields: Any) -> Reply:
        """Send a request and return the reply. Raises Unreachable or Declined."""
        return self.client.ask(cmd, **fields)

    def follow(self, cmd: str, /, **fields: Any) -> Iterator[Reply]:
        """Send a request and yield every reply until the daemon disconnects."""
        return self.client.follow(cmd, **fields)

    def done(self, reply: Mapping[str, Any], text: str) -> None:
        """Print the result: the text, or the reply with --json."""
        if self.as_json:
            screen.print_json(reply)
        else:
            screen.say(text)


class _Plain:
    """Converts the text of an argument to a plain type."""

    def __init__(self, convert: Callable[[str], object], kind: str):
        self._convert = convert
        self._kind = kind

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if isinstance(value, (list, tuple)):
            return [self._one(item, param, ctx) for item in value]
        return self._one(value, param, ctx)

    def _one(self, value: Any, param: Any, ctx: Any) -> object:
        try:
            return self._convert(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not {self._kind}.", ctx=ctx, param=param) from None


_PLAIN: dict[object, _Plain] = {
    str: _Plain(str, "text"),
    list[str]: _Plain(str, "text"),
    int: _Plain(int, "a whole number"),
    Path: _Plain(Path, "a path"),
    bool: _Plain(bool, "a flag"),
}


def quicken(params: Iterable[Any]) -> None:
    """Convert plain arguments without pydantic.

    typer imports pydantic even for strings, which takes longer than the rest of `hive status`. If a later typer
    has no such attribute, this has no effect.
    """
    for param in params:
        descriptor = getattr(param, "type_descriptor", None)
        plain = _PLAIN.get(getattr(descriptor, "annotation", None))
        if plain is not None:
            param._runtime_param = plain


class QuickCommand(TyperCommand):
    """A command that does not import pydantic."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)  # Includes --help, which is created for each context.
        quicken(params)
        return params


class QuickGroup(TyperGroup):
    """A group that does not import pydantic."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        quicken(params)
        return params


StateOption = Annotated[Path | None, typer.Option("--state", metavar="DIR", help="State folder (env HIVE_STATE).")]
RunOption = Annotated[
    Path | None, typer.Option("--run", metavar="DIR", help="Run folder with the sockets (env HIVE_RUN).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_COMMON = {"state": (StateOption, None), "run": (RunOption, None), "json": (JsonOption, False)}


class Noun:
    """The commands of one module. With `group`, they are `hive GROUP COMMAND`."""

    def __init__(self, panel: str, *, group: str | None = None, help: str = ""):
        self._panel = panel
        self._group = group
        self._app = typer.Typer(name=group, cls=QuickGroup, help=help)

    def command(self, name: str, *, example: str) -> Callable[[F], F]:
        """Register a function as a command. Its first parameter is the Session, the others are typer's.

        `--help` shows `example`, a complete command line.
        """

        def register(function: F) -> F:
            run = _with_common_options(function)
            panel = None if self._group else self._panel
            epilog = f"Example: [bold]{escaped(example)}[/bold]"
            self._app.command(name, cls=QuickCommand, epilog=epilog, rich_help_panel=panel)(run)
            return function

        return register

    def alone(self, *, example: str) -> Callable[[F], F]:
        """Register the function that `hive GROUP` runs without a subcommand. Otherwise like `command`."""

        def register(function: F) -> F:
            run = _with_common_options(function)

            def run_alone(ctx: typer.Context, **arguments: Any) -> None:
                if ctx.invoked_subcommand is None:
                    run(**arguments)
                    return
                given = [name for name in arguments if _is_typed(ctx, name)]
                if given:  # They would be ignored, including --state.
                    raise typer.BadParameter(f"Options go after `{ctx.invoked_subcommand}`.", ctx=ctx)

            signature = inspect.signature(run)
            first = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
            run_alone.__signature__ = signature.replace(  # type: ignore[attr-defined]
                parameters=[first, *signature.parameters.values()]
            )
            run_alone.__annotations__ = {"ctx": typer.Context, **run.__annotations__}
            epilog = f"Example: [bold]{escaped(example)}[/bold]"
            self._app.callback(
                cls=QuickGroup,
                invoke_without_command=True,
                subcommand_metavar="[COMMAND]",
                help=inspect.getdoc(function),
                epilog=epilog,
            )(run_alone)
            return function

        return register

    def built(self, name: str) -> TyperCommand | TyperGroup:
        """Build the command or group `hive NAME`."""
        if name == self._group:
            group = get_group(self._app)
            group.rich_help_panel = self._panel
            return group
        info = next(info for info in self._app.registered_commands if info.name == name)
        return get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode="rich")  # type: ignore[return-value]


def _is_typed(ctx: typer.Context, parameter: str) -> bool:
    source = ctx.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def escaped(text: str) -> str:
    """Escape rich markup."""
    return text.replace("[", "\\[")


def _with_common_options(function: Callable[..., None]) -> Callable[..., None]:
    def run(*, state: Path | None, run: Path | None, json: bool, **arguments: Any) -> None:
        session = Session(default_paths(state, run), as_json=json)
        try:
            function(session, **arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader closed the pipe. Discard buffered output, which would raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        finally:
            session.client.close()

    own = list(inspect.signature(function).parameters.values())[1:]
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _COMMON.items()
    ]
    parameters = [*own, *common]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = function.__doc__
    return run


def _asked(ctx: typer.Context, cmd: str, **fields: Any) -> Reply:
    paths = default_paths(ctx.params.get("state"), ctx.params.get("run"))
    try:
        with HostClient(paths.host_socket, reply_timeout_s=COMPLETION_TIMEOUT_S) as client:
            return client.ask(cmd, **fields)
    except HiveError:  # Without a daemon there are no completions.
        return {}


def agent_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of an agent."""
    return [name for name in _asked(ctx, "list").get("agents", []) if name.startswith(incomplete)]


def recipients(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a recipient of the operator's messages."""
    return [name for name in [*agent_names(ctx, ""), "*"] if name.startswith(incomplete)]


def pending_approvals(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete the ID of a pending approval."""
    rows = _asked(ctx, "pending").get("approvals", [])
    return [(str(row["id"]), f"{row['kind']} {row['agent']}") for row in rows if str(row["id"]).startswith(incomplete)]


def open_questions(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete the ID of an open question."""
    rows = _asked(ctx, "questions").get("questions", [])
    return [
        (str(row["id"]), screen.visible(f"{row['asker']}: {row['question']}"))
        for row in rows
        if str(row["id"]).startswith(incomplete)
    ]


HiveOption = Annotated[
    str | None, typer.Option("--hive", metavar="HIVE", help="The hive of the swarm that owns it, if not this one.")
]
AgentArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the agent.", autocompletion=agent_names, show_default=False)
]
