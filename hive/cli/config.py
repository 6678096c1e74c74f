"""Configurations of agents: `hive config`, `hive edit`, `hive rollback`."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hive.cli import screen
from hive.cli.screen import Styled
from hive.cli.session import AgentArgument, Noun, Session
from hive.errors import BadRequest, Unavailable

noun = Noun("Configuration")

EDITORS: Final = ("VISUAL", "EDITOR")
FALLBACK_EDITOR: Final = "vi"


@noun.command("config", example="hive config coder")
def config(hive: Session, name: AgentArgument) -> None:
    """Show the applied configuration of an agent."""
    found = hive.ask("config", name=name)["config"]
    if hive.as_json:
        screen.print_json(found)
        return
    deployed = f", deployed {screen.when(found['deployed_at'])}" if found.get("deployed_at") else ""
    screen.line(Styled(f"{name} runs {found.get('revision') or 'no configuration yet'}{deployed}", "bold"))
    for file in found["files"]:
        screen.say("")
        screen.line(Styled(f"── {file['path']}", "cyan"))
        screen.say(file["text"].removesuffix("\n"))


@noun.command("edit", example="EDITOR=nano hive edit coder")
def edit(hive: Session, name: AgentArgument) -> None:
    """Edit an agent's configuration in $EDITOR and deploy it."""
    editor = _editor()
    found = hive.ask("config", name=name)["config"]
    edited = _edited(editor, {file["path"]: file["text"] for file in found["files"]})
    if edited is None:
        hive.done({}, "No changes.")
        return
    reply = hive.ask("edit", name=name, base=found.get("revision"), files=edited)
    hive.done(reply, f"Deployed the edited configuration to {name}.")


@noun.command("rollback", example="hive rollback coder")
def rollback(
    hive: Session,
    name: AgentArgument,
    to: Annotated[
        str | None, typer.Option("--to", metavar="SHA", help="An applied commit. Default: the previous one.")
    ] = None,
) -> None:
    """Apply an earlier configuration of an agent."""
    reply = hive.ask("rollback", name=name, to=to)
    hive.done(reply, f"Rolled {name} back to {reply.get('revision', 'the previous configuration')}.")


def _edited(editor: str, files: dict[str, str]) -> list[dict[str, Any]] | None:
    """The edited files, or None if nothing changed. A deleted file has the text None."""
    with tempfile.TemporaryDirectory(prefix="hive-edit-") as folder:
        root = Path(folder)
        for path, text in files.items():
            place = _inside(root, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text.encode())  # write_text and read_text would change line ends.
        _open_editor(editor, [_inside(root, path) for path in sorted(files)], root)
        after = {str(place.relative_to(root)): _text_of(place) for place in root.rglob("*") if _is_kept(place)}
    if after == files:
        return None
    gone = [{"path": path, "text": None} for path in files if path not in after]
    return [{"path": path, "text": text} for path, text in sorted(after.items())] + gone


def _is_kept(place: Path) -> bool:
    """Ignore swap and backup files of editors."""
    return place.is_file() and not place.name.endswith(("~", ".swp"))


def _inside(root: Path, path: str) -> Path:
    place = (root / path).resolve()
    if not place.is_relative_to(root.resolve()):
        raise BadRequest(f"The configuration names a file outside its folder: {path}.")
    return place


def _text_of(place: Path) -> str:
    try:
        return place.read_bytes().decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{place.name} is not text; a configuration contains only text files.") from None


def _editor() -> str:
    """The command line of the editor. An editor in $EDITOR may work without a terminal; vi does not.

    Raises:
        Unavailable: $EDITOR is not set and there is no terminal.
    """
    named = next((os.environ[variable] for variable in EDITORS if os.environ.get(variable)), None)
    if named is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Unavailable(f"There is no terminal for {FALLBACK_EDITOR}. Set $EDITOR to an editor that needs none.")
    return named or FALLBACK_EDITOR


def _open_editor(named: str, places: list[Path], folder: Path) -> None:
    try:
        code = subprocess.run([*shlex.split(named), *map(str, places)], cwd=folder, check=False).returncode
    except OSError as error:
        raise Unavailable(
            f"The editor {named!r} cannot be started ({error.strerror}). Set $EDITOR to another one."
        ) from None
    if code != 0:
        raise Unavailable(f"The editor exited with code {code}; nothing was changed.")
