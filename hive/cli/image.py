"""OS trees for the runtime `nspawn`: `hive image build`. Needs no daemon."""

from pathlib import Path
from typing import Annotated

import typer

from hive.cli import screen
from hive.cli.session import Noun, Session

noun = Noun("Daemon", group="image", help="OS trees that the runtime nspawn boots.")


@noun.command("build", example="hive image build /var/lib/hive-image")
def build(
    hive: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the tree.", show_default=False)],
    suite: Annotated[str | None, typer.Option("--suite", help="Debian release; by default the host's.")] = None,
    mirror: Annotated[str | None, typer.Option("--mirror", metavar="URL", help="Mirror of the packages.")] = None,
    include: Annotated[list[str] | None, typer.Option("--include", help="A further package; repeatable.")] = None,
) -> None:
    """Build a Debian tree for agents, with mmdebstrap; as root."""
    from hive.runtimes import images

    with screen.progress("Building", len(images.STEPS)) as tell:
        made = images.build(folder, suite=suite, mirror=mirror, include=include or (), tell=tell)
    text = f'{made} is built. Set `[runtime] image = "{made}"` in {hive.paths.settings} and start the daemon again.'
    hive.done({"image": str(made)}, text)
