"""Project folders of agents: `hive mount`, `hive unmount`, `hive mounts`."""

from pathlib import Path
from typing import Annotated

import typer

from hive.cli import screen
from hive.cli.screen import Column
from hive.cli.session import AgentArgument, Noun, Session

noun = Noun("Lifecycle")


@noun.command("mount", example="hive mount coder ~/src/project --ro")
def mount(
    hive: Session,
    name: AgentArgument,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder on this host.")],
    read_only: Annotated[bool, typer.Option("--ro", help="Read-only.")] = False,
) -> None:
    """Mount a folder of this host at /work/<folder> in an agent."""
    reply = hive.ask("mount", name=name, path=str(path.expanduser().absolute()), read_only=read_only)
    hive.done(reply, " ".join([f"Mounted {path} at {reply['seen_at']} in {name}.", reply.get("warning", "")]).rstrip())


@noun.command("unmount", example="hive unmount coder project")
def unmount(
    hive: Session,
    name: AgentArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The folder on this host, or its name under /work.")],
) -> None:
    """Unmount a project folder from an agent."""
    named = path if "/" not in path and path not in (".", "..") else str(Path(path).expanduser().absolute())
    hive.done(hive.ask("unmount", name=name, path=named), f"Unmounted {path} from {name}.")


@noun.command("mounts", example="hive mounts coder")
def mounts(hive: Session, name: AgentArgument) -> None:
    """List the project folders of an agent."""
    rows = hive.ask("mounts", name=name)["mounts"]
    if hive.as_json:
        screen.print_json(rows)
    elif not rows:
        screen.say(f"{name} has no project folders. Add one with `hive mount {name} PATH`.")
    else:
        cells = [(f"/work/{row['folder']}", row["path"], "ro" if row.get("read_only") else "rw") for row in rows]
        screen.table((Column("Inside", whole=True), "On this host", Column("", whole=True)), cells)
