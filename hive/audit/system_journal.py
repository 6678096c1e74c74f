"""Records the head of the log in the host's system journal, which the owner of the log cannot change."""

import os
import socket
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hive.clock import rfc3339
from hive.errors import Unavailable
from hive.events.base import Seq
from hive.events.log import Head

MESSAGE_ID: Final = "6b1f0c1c5a8e4e0f9d3e2f7a41c6b7d2"
"""Marks hive's entries in the system journal."""
READ_TIMEOUT_S: Final = 20.0
ANCHORS_READ_MAX: Final = 10_000
"""Verify compares at most this many, the newest."""
US_PER_MS: Final = 1_000


class JournalAnchor(NamedTuple):
    """One anchor in the journal."""

    seq: Seq
    hash: str
    """Hex."""
    log: str
    """Identifies the log: the hash of its first event, hex. A copy has the same; a new log has another."""
    at: str
    """RFC 3339: when the journal received it."""


class _JournalEntry(msgspec.Struct):
    """From `journalctl --output=json`. A repeated field is a list there; hive writes none."""

    seq: str = msgspec.field(name="HIVE_SEQ")
    hash: str = msgspec.field(name="HIVE_HASH")
    log: str = msgspec.field(name="HIVE_LOG")
    uid: str = msgspec.field(name="_UID")
    time_us: str = msgspec.field(name="__REALTIME_TIMESTAMP")


class SystemJournal:
    """systemd's journal on this host, or one namespace of it."""

    def __init__(self, namespace: str | None = None):
        """A unit with `LogNamespace=` uses that namespace by default; only a reader outside it must name it."""
        self._namespace = namespace
        self._socket = Path("/run/systemd", f"journal.{namespace}" if namespace else "journal", "socket")

    def is_there(self) -> bool:
        return self._socket.exists()

    def note(self, state: Path, log: bytes, head: Head) -> bool:
        """Send an anchor without waiting. Returns False if no journal accepts it."""
        datagram = b"".join(
            (
                _field("MESSAGE", f"The log in {state} ends with event {head.seq}, {head.hash.hex()}."),
                _field("MESSAGE_ID", MESSAGE_ID),
                _field("PRIORITY", "6"),
                _field("SYSLOG_IDENTIFIER", "hive"),
                _field("HIVE_STATE", str(state)),
                _field("HIVE_LOG", log.hex()),
                _field("HIVE_SEQ", str(head.seq)),
                _field("HIVE_HASH", head.hash.hex()),
            )
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sending:
            try:
                sending.sendto(datagram, str(self._socket))
            except OSError:
                return False
        return True

    def noted(self, state: Path, log: bytes, owners: set[int]) -> list[JournalAnchor]:
        """Anchors of this log, wherever it lay, and of any log in this folder, oldest first.

        Entries count only if the kernel says that a process of one of the owners sent them.

        Raises:
            Unavailable: the journal cannot be read here.
        """
        command = ["journalctl", "--quiet", "--no-pager", "--output=json", f"--lines={ANCHORS_READ_MAX}"]
        command += [f"--namespace={self._namespace}"] if self._namespace else []
        mark = f"MESSAGE_ID={MESSAGE_ID}"
        matches = [mark, f"HIVE_LOG={log.hex()}", "+", mark, f"HIVE_STATE={state}"]
        try:
            done = subprocess.run([*command, *matches], capture_output=True, timeout=READ_TIMEOUT_S, check=False)
        except OSError as error:
            raise Unavailable(f"journalctl: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"journalctl did not end within {READ_TIMEOUT_S:.0f} s") from None
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise Unavailable(said[-1] if said else f"journalctl ended with {done.returncode}")
        found = [_noted(line, owners) for line in done.stdout.splitlines()]
        return [noted for noted in found if noted is not None]


def _noted(line: bytes, owners: set[int]) -> JournalAnchor | None:
    try:
        entry = msgspec.json.decode(line, type=_JournalEntry)
        if int(entry.uid) not in owners:
            return None
        at = rfc3339(int(entry.time_us) // US_PER_MS)
        return JournalAnchor(int(entry.seq), entry.hash, entry.log, at)
    except (msgspec.MsgspecError, ValueError):
        return None


def _field(name: str, value: str) -> bytes:
    """In journald's native protocol a value with a line break is sent with its length."""
    data = os.fsencode(value)
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
    return b"%s=%s\n" % (name.encode(), data)
