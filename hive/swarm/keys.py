"""A hive's ed25519 key: it signs envelopes, opens NATS connections and certifies NATS servers."""

import base64
import binascii
import contextlib
import os
import struct
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hive.errors import BadRequest, CorruptState
from hive.settings import secret

KEY_FILE: Final = "swarm.key"
"""In the state folder; mode 0600."""
SIGNATURE_BYTES: Final = 64
PREFIX_SEED: Final = 18 << 3
PREFIX_USER: Final = 20 << 3
"""As NATS nkeys encode the kind of a key."""
SEED_BYTES: Final = 32


class HiveKey:
    """The private key of this hive."""

    def __init__(self, private: Ed25519PrivateKey):
        self.private = private
        self.public = encoded_public(private.public_key())

    @property
    def seed(self) -> str:
        """As an nkey seed, `SU…`."""
        first = bytes([PREFIX_SEED | (PREFIX_USER >> 5), (PREFIX_USER & 31) << 3])
        return _encoded(first + self.private.private_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data)


class PeerKey:
    """The public key of a hive."""

    def __init__(self, text: str):
        """Raises BadRequest: not a public key."""
        self.text = text
        raw = _decoded(text)
        if len(raw) != 1 + SEED_BYTES or raw[0] != PREFIX_USER:
            raise BadRequest(f"{text!r} is not a public key. Copy the key that `hive swarm init` prints.")
        self.public = Ed25519PublicKey.from_public_bytes(raw[1:])

    def verifies(self, signature: bytes, data: bytes) -> bool:
        try:
            self.public.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def load(state: Path) -> HiveKey:
    """The key of a hive.

    Raises:
        BadRequest: missing or readable by others. CorruptState: not a key.
    """
    text = secret(state, KEY_FILE)
    try:
        raw = _decoded(text)
    except BadRequest:
        raw = b""
    if len(raw) != 2 + SEED_BYTES:
        raise CorruptState(f"{state / KEY_FILE} is not a key. Restore it, or run `hive swarm init` for a new one.")
    return HiveKey(Ed25519PrivateKey.from_private_bytes(raw[2:]))


def load_or_make(state: Path) -> HiveKey:
    """The key of a hive; a new one if it has none. Never replaces a key."""
    path = state / KEY_FILE
    if path.exists():
        return load(state)
    key = HiveKey(Ed25519PrivateKey.generate())
    fresh = path.with_name(f"{KEY_FILE}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(key.seed + "\n")
        file.flush()
        os.fsync(fd)
    with contextlib.suppress(FileExistsError):
        os.link(fresh, path)  # Unlike a rename, this cannot replace the key of a concurrent run.
    fresh.unlink()
    return load(state)


def encoded_public(public: Ed25519PublicKey) -> str:
    """As an nkey, `U…`."""
    return _encoded(bytes([PREFIX_USER]) + public.public_bytes_raw())


def _encoded(raw: bytes) -> str:
    return base64.b32encode(raw + struct.pack("<H", binascii.crc_hqx(raw, 0))).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    """Raises BadRequest: not base32, or a wrong checksum, as after a typing mistake."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        raw = b""
    body, check = raw[:-2], raw[-2:]
    if len(raw) < 3 or struct.pack("<H", binascii.crc_hqx(body, 0)) != check:
        raise BadRequest(f"{text!r} is not a key: its checksum is wrong. Copy it again.")
    return body
