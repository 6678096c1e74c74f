"""Binds socket files that agents of another user may connect to."""

import os
import socket
from pathlib import Path

SOCKET_MODE = 0o660
FOLDER_MODE = 0o755


def bound(path: Path, group: int | None) -> socket.socket:
    """Bind without listening, so that nobody can connect before the mode is set.

    Raises:
        OSError: the folder or the socket cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")  # Avoids the limit of 107 bytes for a socket path.
        if group is not None:
            os.chown(path.name, -1, group, dir_fd=folder, follow_symlinks=False)
        os.chmod(path.name, SOCKET_MODE, dir_fd=folder)
    except OSError:
        made.close()
        raise
    finally:
        os.close(folder)
    made.setblocking(False)
    return made
