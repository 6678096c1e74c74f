"""Runs inside an agent's container: tries forbidden accesses and reports the results.

`python3 probe.py TARGETS.json REPORT.json`; standard library only. The report has the result of every attempt.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

OWN_SOCKET = "/run/hive/hive.sock"
REPLY_S = 20


def ask(path: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The replies to these requests on one connection."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(REPLY_S)
        connection.connect(path)
        file = connection.makefile("rwb")
        replies = []
        for request in requests:
            file.write(json.dumps(request).encode() + b"\n")
            file.flush()
            replies.append(json.loads(file.readline()))
        return replies


def attempt(action: Any) -> str | None:
    """None on success, otherwise the name of the error."""
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return None


def processes() -> dict[str, list[str]]:
    """Command lines of all visible processes by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found[entry.name] = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                found[entry.name] = ["unreadable"]
    return found


def main() -> None:
    targets = json.loads(Path(sys.argv[1]).read_text())
    report = {
        "uid": os.getuid(),
        "replies": ask(OWN_SOCKET, targets["requests"]),
        "sockets": {path: attempt(lambda path=path: ask(path, [{"cmd": "list"}])) for path in targets["sockets"]},
        "read": {path: attempt(lambda path=path: Path(path).read_bytes()) for path in targets["files"]},
        "listed": {path: attempt(lambda path=path: list(Path(path).iterdir())) for path in targets["folders"]},
        "written": {
            path: attempt(lambda path=path: (Path(path) / "left-by-the-agent").write_text("x"))
            for path in targets["folders"]
        },
        "signalled": {str(pid): attempt(lambda pid=pid: os.kill(pid, 0)) for pid in targets["pids"]},
        "processes": processes(),
    }
    Path(sys.argv[2]).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
