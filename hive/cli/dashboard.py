"""`hive dashboard`: runs the dashboard separately, for a daemon that was started without one."""

from typing import Annotated

import typer

from hive.cli import screen
from hive.cli.daemon import address
from hive.cli.session import Noun, Session

noun = Noun("Daemon")


@noun.command("dashboard", example="hive dashboard --listen 127.0.0.1:7001")
def dashboard(
    hive: Session,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", callback=address, help="Address on loopback.")
    ] = None,
) -> None:
    """Run the dashboard for a daemon that has none."""
    import os
    import subprocess

    from hive import settings as host_settings
    from hive.actors.dashboard import PASSED_ENVIRONMENT, bind_listener

    hive.ask("list")  # Fail early if no daemon runs.
    settings = host_settings.load(hive.paths.settings)
    bound = bind_listener(settings, listen or settings.dashboard.listen, hive.paths.dashboard_run)
    screen.say(f"dashboard {bound.url}")
    environment = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
    number = bound.listener.fileno()
    with subprocess.Popen(bound.command(), stdin=subprocess.PIPE, env=environment, pass_fds=(number,)) as process:
        raise typer.Exit(process.wait())  # Its standard input closes when this command exits, and that ends it.
