"""Several hives as one swarm: `hive swarm init|trust|distrust|server|status|restore|adopt`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from hive.cli import screen
from hive.cli.session import Noun, Session
from hive.cli.swarm_screen import show_connection
from hive.errors import NotFound, Refused, Unavailable

noun = Noun("Swarm", group="swarm", help="Join this hive with hives on other hosts, over NATS JetStream.")

PeerArgument = Annotated[str, typer.Argument(metavar="NAME", help="The other hive.")]


def _needs_extra() -> None:
    """Raises Unavailable: the packages of `hive[swarm]` are missing."""
    for package in ("nats", "nkeys", "cryptography"):
        if find_spec(package) is None:
            raise Unavailable(f"{package} is not installed. Run: pip install 'hive[swarm]'")


@noun.command("init", example="hive swarm init berlin --server nats://10.0.0.1:4222")
def init(
    hive: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of this hive.")],
    server: Annotated[list[str], typer.Option("--server", metavar="URL", help="A NATS server; repeatable.")],
) -> None:
    """Give this hive a name and a key, and write them to hive.toml."""
    _needs_extra()
    from hive import settings
    from hive.settings import SwarmSettings
    from hive.swarm import config_file, keys

    hive.paths.state.mkdir(parents=True, exist_ok=True, mode=0o755)
    old = settings.load(hive.paths.settings).swarm
    if old.name not in (None, name) and hive.paths.events.exists():
        raise Refused(f"This hive is {old.name} to its peers, and its log says so. Keep the name.")
    new = SwarmSettings(name=name, servers=tuple(server), credentials_file=old.credentials_file, peers=old.peers)
    settings.check_swarm(new, "hive swarm init")
    key = keys.load_or_make(hive.paths.state)
    config_file.write(hive.paths.settings, new)
    text = f"{name}\n{key.public}\nOn each peer, run: hive swarm trust {name} {key.public}"
    hive.done({"name": name, "key": key.public}, text)


@noun.command("trust", example="hive swarm trust berlin UBPE… --operators mara,ada")
def trust(
    hive: Session,
    name: PeerArgument,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its public key, from `hive swarm init` there.")],
    operators: Annotated[
        str | None,
        typer.Option("--operators", metavar="A,B", help="Its operators whose decisions count here; default: none."),
    ] = None,
) -> None:
    """Accept messages, and decisions of named operators, of a peer."""
    _needs_extra()
    from hive.settings import PeerSettings
    from hive.swarm import config_file, keys, server

    swarm = server.swarm_settings(hive.paths)
    keys.PeerKey(key)
    if operators is None:
        known = swarm.peers[name].operators if name in swarm.peers else ()
    else:
        known = tuple(one.strip() for one in operators.split(",") if one.strip())
    config_file.write(hive.paths.settings, config_file.with_peer(swarm, name, PeerSettings(key=key, operators=known)))
    hive.done({"name": name, "key": key, "operators": known}, f"{name} is a peer of this hive.")


@noun.command("distrust", example="hive swarm distrust berlin")
def distrust(hive: Session, name: PeerArgument) -> None:
    """Accept nothing more from a peer, and send nothing to it."""
    _needs_extra()
    from hive.swarm import config_file, server

    swarm = server.swarm_settings(hive.paths)
    if name not in swarm.peers:
        raise NotFound(f"There is no peer {name}. Peers: {', '.join(swarm.peers) or 'none'}.")
    config_file.write(hive.paths.settings, config_file.with_peer(swarm, name, None))
    hive.done({"name": name}, f"{name} is no longer a peer of this hive.")


@noun.command("server", example="hive swarm server --dir /srv/nats --listen 0.0.0.0:4222")
def server(
    hive: Session,
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="For the server's configuration and data.")],
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Default: the first server in hive.toml.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="HOST:PORT", help="Where other servers connect to this one.")
    ] = None,
    route: Annotated[
        list[str] | None, typer.Option("--route", metavar="HOST:PORT", help="Another server's --cluster; repeatable.")
    ] = None,
) -> None:
    """Run a NATS server for this hive and its peers."""
    _needs_extra()
    from hive.swarm import server as nats_server

    nats_server.run(hive.paths, folder, listen, cluster, route or [])


@noun.command("status", example="hive swarm status")
def status(hive: Session) -> None:
    """Show the connection, the replica and what is owed to peers."""
    reply = hive.ask("swarm")
    if hive.as_json:
        screen.print_json({**reply["swarm"], "peers": reply["peers"]})
    else:
        show_connection(reply)


@noun.command("restore", example="hive swarm restore berlin --out ~/berlin-restored")
def restore(
    hive: Session,
    name: PeerArgument,
    out: Annotated[Path, typer.Option("--out", metavar="NEW", help="A new state folder.")],
) -> None:
    """Rebuild a hive's log from its replica, hash for hash."""
    _needs_extra()
    from hive.swarm.restore import restore as restored

    head = restored(hive.paths, name, out)
    reply = {"name": name, "seq": head.seq, "hash": head.hash.hex(), "out": str(out)}
    hive.done(
        reply,
        f"{out} holds the log of {name}: {head.seq} events. Check it with: hive audit verify --state {out}",
    )


@noun.command("adopt", example="hive swarm adopt berlin")
def adopt(hive: Session, name: PeerArgument) -> None:
    """Take over the agents of a lost hive from its replica."""
    reply = hive.ask("adopt", hive=name)
    lines = [f"Adopted from {name}: {', '.join(reply['agents'])}."]
    lines += [f"{agent} stays in {name}: {why}." for agent, why in reply["left"].items()]
    lines += [f"{agent} had project folders there: {', '.join(folders)}." for agent, folders in reply["mounts"].items()]
    hive.done(reply, "\n".join(lines))
