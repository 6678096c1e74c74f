"""Content in pieces, each a file named by its hash: what two backups share is stored once."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from hive.errors import CorruptState

CHUNK_BYTES: Final = 1024 * 1024
"""Of one piece before compression."""
LEVEL: Final = 3
UNFINISHED: Final = ".unfinished"


def stored_form(content: bytes) -> tuple[str, bytes]:
    """Name and stored form of one piece of at most `CHUNK_BYTES`, as a folder of chunks has it."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    return hashlib.sha256(content).hexdigest(), compressor.compress(content)


class Chunks:
    """The pieces of one backup folder. A piece is written under another name first, so a name means it is whole."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._compress = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self._decompress = zstandard.ZstdDecompressor()
        self.added: list[str] = []
        """Hashes of the pieces that this process wrote."""

    def put(self, content: bytes) -> str:
        """Store one piece unless it is there; its hash."""
        name = hashlib.sha256(content).hexdigest()
        path = self._path(name)
        if not path.exists():
            path.parent.mkdir(exist_ok=True, mode=0o700)
            unfinished = path.with_name(name + UNFINISHED)
            unfinished.write_bytes(self._compress.compress(content))
            unfinished.rename(path)
            self.added.append(name)
        return name

    def take(self, name: str, stored: bytes) -> None:
        """Store one piece in its stored form, as another folder has it. Raises CorruptState: it is not this piece."""
        content = self._decompressed(stored, f"The piece {name}")
        if hashlib.sha256(content).hexdigest() != name:
            raise CorruptState(f"The piece {name} is damaged: its content has another hash.")
        self.put(content)

    def put_all(self, file: BinaryIO) -> list[str]:
        """Store what is left of an open file; the hashes in order."""
        return [self.put(content) for content in iter(lambda: file.read(CHUNK_BYTES), b"")]

    def get(self, name: str) -> bytes:
        """One piece.

        Raises:
            CorruptState: it is missing or damaged; the text names its file.
        """
        path = self._path(name)
        try:
            stored = path.read_bytes()
        except FileNotFoundError as error:
            raise CorruptState(f"{path} is missing; this backup is incomplete. Restore an earlier one.") from error
        content = self._decompressed(stored, str(path))
        if hashlib.sha256(content).hexdigest() != name:
            raise CorruptState(f"{path} is damaged: its content has another hash. Restore an earlier backup.")
        return content

    def _decompressed(self, stored: bytes, what: str) -> bytes:
        try:
            return self._decompress.decompress(stored, max_output_size=CHUNK_BYTES)
        except zstandard.ZstdError as error:
            raise CorruptState(f"{what} is damaged ({error}). Restore an earlier backup.") from error

    def has(self, name: str) -> bool:
        return self._path(name).exists()

    def sweep(self, keep: set[str]) -> int:
        """Remove what no backup needs, and what a run that was killed left unfinished; how many files went."""
        gone = 0
        for path in self._files():
            if path.name not in keep:
                path.unlink()
                gone += 1
        return gone

    def check(self, names: Iterable[str]) -> None:
        """Read pieces back. Raises CorruptState for the first that does not hold."""
        for name in names:
            self.get(name)

    def _files(self) -> Iterator[Path]:
        for folder in sorted(self._folder.iterdir()):
            for entry in os.scandir(folder):
                yield Path(entry.path)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name
