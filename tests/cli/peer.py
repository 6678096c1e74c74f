"""A host socket server for command-line tests: sends given replies and records the requests."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Reply = dict[str, Any]
Answer = Reply | Callable[[Reply], Reply | list[Reply]]
"""A reply without version and ok, or a function from the request to one or several."""

OK = {"version": 1, "ok": True}


def refused(error: str, code: str = "refused") -> Reply:
    return {"ok": False, "error": error, "code": code}


class Peer:
    """Answers each `cmd` from a table; closes the connection after a list of several replies."""

    def __init__(self, path: Path, answers: dict[str, Answer]):
        self.heard: list[Reply] = []
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        self._listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # Works for paths of any length.
        os.close(folder)
        self._listener.listen()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Join the thread: otherwise it could accept on the next socket with the same descriptor."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rw", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                request = json.loads(line)
                self.heard.append(request)
                answer = self._answers.get(request["cmd"], refused(f"unknown command {request['cmd']}", "bad_request"))
                replies = answer(request) if callable(answer) else answer
                many = isinstance(replies, list)
                for reply in replies if many else [replies]:
                    lines.write(json.dumps({**OK, **reply}) + "\n")
                lines.flush()
                if many:
                    return


@contextmanager
def serving(path: Path, answers: dict[str, Answer]) -> Iterator[Peer]:
    peer = Peer(path, answers)
    try:
        yield peer
    finally:
        peer.close()
