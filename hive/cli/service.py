"""`hive service`: hive as a systemd service, of the system or of one user."""

import contextlib
from typing import Annotated

import typer

from hive.cli import screen
from hive.cli.session import Noun, Session
from hive.errors import HiveError
from hive.sockets.client import Unreachable
from hive.systemd import Service

noun = Noun("Daemon", group="service", help="hive as a systemd service that starts at boot.")

UserOption = Annotated[bool, typer.Option("--user", help="A service of this user instead of the system.")]


@noun.command("install", example="hive service install")
def install(hive: Session, user: UserOption = False) -> None:
    """Install, enable and start the service."""
    service = Service(hive.paths, user=user)
    written = service.install()
    hive.done({"ok": True, "unit": str(service.unit), "written": [str(path) for path in written]}, _installed(service))


@noun.command("uninstall", example="hive service uninstall")
def uninstall(
    hive: Session,
    user: UserOption = False,
    keep_agents: Annotated[bool, typer.Option("--keep-agents", help="Leave the agents running.")] = False,
) -> None:
    """Stop the agents and the daemon, and remove the service."""
    service = Service(hive.paths, user=user)
    service.refuse_absent()
    with contextlib.suppress(Unreachable):  # No daemon answers, so none has agents to stop.
        hive.ask("shutdown", keep_agents=keep_agents)
    removed = service.uninstall()
    text = f"The service is removed. The state folder {hive.paths.state} stays; delete it if you no longer need it."
    hive.done({"ok": True, "removed": [str(path) for path in removed], "state": str(hive.paths.state)}, text)


@noun.command("status", example="hive service status")
def status(hive: Session, user: UserOption = False) -> None:
    """Show whether the service is installed, enabled and running."""
    service = Service(hive.paths, user=user)
    found = service.status()
    if hive.as_json:
        screen.print_json(found)
    else:
        screen.table(("", ""), [(key.replace("_", " "), screen.plain(value)) for key, value in found.items()])
    if found["active"] != "active":
        raise typer.Exit(1)


def _installed(service: Service) -> str:
    lines = [f"The service is installed in {service.unit} and runs. `hive status` shows its agents."]
    try:
        service.keep_after_logout()
    except HiveError as error:
        lines.append(str(error))
    return "\n".join(lines)
