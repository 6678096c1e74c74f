"""Reading and writing small files of a run's record. Used by the shim; stdlib only."""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH105, PTH123

import os


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def replace(path: str, content: bytes) -> None:
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        write_all(fd, content)
    finally:
        os.close(fd)
    os.replace(f"{path}.new", path)


def json(value: bool | int | None) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(int(value))
