"""The forge mirror of applied configurations: `hive forge status`."""

from hive.cli import screen
from hive.cli.session import Noun, Session

noun = Noun("Configuration", group="forge", help="The forge that mirrors the applied configurations.")


@noun.command("status", example="hive forge status")
def status(hive: Session) -> None:
    """Show which mirrors are up to date, behind or failing."""
    reply = hive.ask("forge_status")
    if hive.as_json:
        screen.print_json(reply)
        return
    forge = reply.get("forge", reply)
    screen.table(("", ""), [(str(key), screen.plain(value)) for key, value in forge.items()])
