"""Agents' files in the object store of their hive: signed manifests, and pieces that are named by their content.

A piece is one message on the subject of its hash, so what is stored is not sent again. A manifest is an object. What no
manifest names is collected.
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.js.api import ObjectStoreConfig, StorageType
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, BucketNotFoundError, NotFoundError, ObjectNotFoundError
from nats.js.object_store import ObjectStore

from hive.backup.chunks import Chunks, stored_form
from hive.names import AgentName
from hive.swarm import subjects
from hive.swarm.connection import REPLICAS
from hive.swarm.envelope import Forged, sealed, unsealed
from hive.swarm.keys import HiveKey, PeerKey
from hive.swarm.pieces import Manifest

STEP_TIMEOUT_S: Final = 60.0
"""For one piece or manifest. A transfer as a whole takes as long as it takes: it goes on where it was."""
HASH_CHARS: Final = 64

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Manifest).decode


def snapshot(agent: AgentName) -> str:
    """The name of the manifest of an agent that runs."""
    return f"snapshot-{agent}"


def moving(agent: AgentName, digest: str) -> str:
    """The name of the manifest of an agent that leaves."""
    return f"move-{agent}-{digest[:16]}"


async def put(
    client: Client, hive: str, key: HiveKey, agent: AgentName, pieces: Iterator[bytes], name: Callable[[str], str]
) -> tuple[str, int]:
    """Store the pieces that are not there, and then the manifest; its digest, and how many pieces were sent."""
    js = client.jetstream()
    bucket, store = subjects.files_bucket(hive), await _ensure_store(js, hive)
    present = set(await _stored(js, bucket, "C"))
    names, sent = list[str](), 0
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        id, data = await asyncio.to_thread(stored_form, piece)
        if id not in present:
            await js.publish(_piece(bucket, id), data, timeout=STEP_TIMEOUT_S)
            present.add(id)
            sent += 1
        names.append(id)
    body = _encode(Manifest(agent, tuple(names)))
    digest = hashlib.sha256(body).hexdigest()
    await asyncio.wait_for(store.put(name(digest), sealed(key, body)), STEP_TIMEOUT_S)
    return digest, sent


async def get(client: Client, hive: str, key: PeerKey, name: str, digest: str | None, chunks: Chunks) -> Manifest:
    """Fetch the pieces that are not there yet.

    Raises:
        Forged: the manifest is gone, or not that of the hive, or not the one with this digest. CorruptState: a piece
        is not what its name says. NatsError: a piece is not there; its hive stores it again.
    """
    js, bucket = client.jetstream(), subjects.files_bucket(hive)
    try:
        store = await js.object_store(bucket)
        manifest = await _manifest(store, key, name, digest)
    except (BucketNotFoundError, NotFoundError, ObjectNotFoundError) as error:
        raise Forged(f"{hive} has no files {name} in the swarm") from error
    for id in manifest.pieces:
        if not await asyncio.to_thread(chunks.has, id):
            found = await js.get_last_msg(f"OBJ_{bucket}", _piece(bucket, id))
            await asyncio.to_thread(chunks.take, id, found.data or b"")
    return manifest


async def collect(client: Client, hive: str, key: PeerKey, is_kept: Callable[[str], bool]) -> int:
    """Remove the manifests that are not kept, and every piece that none names; how many pieces went.

    Nothing may be put meanwhile.
    """
    js, bucket = client.jetstream(), subjects.files_bucket(hive)
    try:
        store = await js.object_store(bucket)
    except (BucketNotFoundError, NotFoundError):
        return 0
    needed = set[str]()
    for encoded in await _stored(js, bucket, "M"):
        name = base64.urlsafe_b64decode(encoded).decode()
        if is_kept(name):
            needed |= {*(await _manifest(store, key, name, None)).pieces, (await store.get_info(name)).nuid or ""}
        else:
            await js.purge_stream(f"OBJ_{bucket}", subject=f"$O.{bucket}.M.{encoded}")
    gone = [id for id in await _stored(js, bucket, "C") if id not in needed]
    for id in gone:
        await js.purge_stream(f"OBJ_{bucket}", subject=_piece(bucket, id))
    return sum(len(id) == HASH_CHARS for id in gone)


async def _manifest(store: ObjectStore, key: PeerKey, name: str, digest: str | None) -> Manifest:
    found = await asyncio.wait_for(store.get(name), STEP_TIMEOUT_S)
    body = unsealed(key, found.data or b"")
    if digest is not None and hashlib.sha256(body).hexdigest() != digest:
        raise Forged(f"the files {name} are not those that their hive sent")
    try:
        return _decode(body)
    except msgspec.MsgspecError as error:
        raise Forged(f"the manifest {name} cannot be read: {error}") from error


async def _stored(js: JetStreamContext, bucket: str, kind: str) -> list[str]:
    """The last part of each subject of a kind."""
    state: Any = (await js.stream_info(f"OBJ_{bucket}", subjects_filter=f"$O.{bucket}.{kind}.>")).state
    return [subject.rpartition(".")[2] for subject in state.subjects or {}]


def _piece(bucket: str, id: str) -> str:
    return f"$O.{bucket}.C.{id}"


async def _ensure_store(js: JetStreamContext, hive: str) -> ObjectStore:
    bucket = subjects.files_bucket(hive)
    try:
        return await js.object_store(bucket)
    except (BucketNotFoundError, NotFoundError):
        for replicas in (REPLICAS, 1):
            try:
                config = ObjectStoreConfig(bucket, storage=StorageType.FILE, replicas=replicas)
                return await js.create_object_store(bucket, config)
            except APIError:
                if replicas == 1:
                    raise
        raise
