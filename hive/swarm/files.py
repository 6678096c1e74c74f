"""The files of an agent on their way to another hive: one archive in the object store of the hive that it leaves."""

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Final

import structlog
import zstandard
from nats.aio.client import Client
from nats.js.api import ObjectStoreConfig, StorageType
from nats.js.errors import APIError, BucketNotFoundError, NotFoundError

from hive.errors import CorruptState
from hive.names import AgentName
from hive.paths import Paths
from hive.runtimes import ownership
from hive.swarm import subjects
from hive.swarm.connection import REPLICAS
from hive.swarm.envelope import Forged

log = structlog.get_logger()

KEPT_S: Final = 7 * 24 * 3_600
"""How long an archive stays in the store."""
PARTS: Final = ("applied", "proposed", "state")
MODE_MAX: Final = 0o755
MODE_MIN: Final = 0o600
MODE_MIN_FOLDER: Final = 0o700
"""Nothing arrives with set-user-id bits or writable for others; the hive can read all."""


def places(paths: Paths, name: AgentName) -> dict[str, Path]:
    """The folders that move with an agent, by their name in the archive."""
    return {"applied": paths.applied(name), "proposed": paths.proposed(name), "state": paths.agent_state(name)}


def pack(paths: Paths, name: AgentName, archive: Path) -> str:
    """Write an agent's archive; its digest. The agent does not run."""
    with (
        archive.open("wb") as raw,
        zstandard.ZstdCompressor(level=3).stream_writer(raw) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for part, folder in places(paths, name).items():
            if folder.exists():
                tar.add(folder, arcname=part, filter=_kept)
    return digest_of(archive)


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """No sockets and devices, and no owner: the other host has users of its own."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def unpack(archive: Path, digest: str, paths: Paths, name: AgentName) -> None:
    """Put an agent's folders in place; replaces what is there, so it can be repeated.

    Raises:
        CorruptState: the archive is not the one that the other hive sent.
    """
    if digest_of(archive) != digest:
        raise CorruptState(f"The files of {name} are not those that its hive sent.")
    beside = paths.state / f".arriving-{name}"
    _remove(beside)
    beside.mkdir(mode=0o700)
    with (
        archive.open("rb") as raw,
        zstandard.ZstdDecompressor().stream_reader(raw) as packed,
        tarfile.open(fileobj=io.BufferedReader(packed), mode="r|") as tar,
    ):
        tar.extraction_filter = lambda member, _: member  # Python 3.11.2 has no filters; `_is_inside` checks instead.
        for member in tar:
            if member.name.split("/")[0] in PARTS and _is_inside(member, beside):
                member.mode = member.mode & MODE_MAX | (MODE_MIN_FOLDER if member.isdir() else MODE_MIN)
                tar.extract(member, beside)
            else:
                log.warning("move.file_left_out", agent=name, file=member.name)
    for part, folder in places(paths, name).items():
        _remove(folder)
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        if (beside / part).exists():
            (beside / part).rename(folder)
    _remove(beside)


def _is_inside(member: tarfile.TarInfo, folder: Path) -> bool:
    """Whether extraction writes, links and follows nothing outside. A link may point anywhere: it is not followed."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return False
    names = [member.name, member.linkname] if member.islnk() else [member.name]
    return all(Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder)) for name in names)


def _remove(folder: Path) -> None:
    if folder.exists():
        ownership.remove(str(folder))


def digest_of(archive: Path) -> str:
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def put(client: Client, hive: str, name: str, archive: Path) -> None:
    """Upload; replaces an earlier attempt."""
    js = client.jetstream()
    bucket = subjects.files_bucket(hive)
    try:
        store = await js.object_store(bucket)
    except (BucketNotFoundError, NotFoundError):
        for replicas in (REPLICAS, 1):
            try:
                config = ObjectStoreConfig(bucket, storage=StorageType.FILE, replicas=replicas, ttl=KEPT_S)
                store = await js.create_object_store(bucket, config)
                break
            except APIError:
                if replicas == 1:
                    raise
    with archive.open("rb") as file:
        await store.put(name, file)


async def get(client: Client, hive: str, name: str, archive: Path) -> None:
    """Download from the store of a peer. Raises Forged: it is gone."""
    try:
        store = await client.jetstream().object_store(subjects.files_bucket(hive))
        with archive.open("wb") as file:
            await store.get(name, writeinto=file)
    except (BucketNotFoundError, NotFoundError) as error:
        raise Forged(f"{hive} has no files {name} in the swarm") from error
