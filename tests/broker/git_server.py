"""A private git server of the tests' own."""

import base64
import gzip
import os
import subprocess
from pathlib import Path

from .lab import Handler, Web


def serve_git(folder: Path, secret: str | None) -> Web:
    """git's own HTTP server; with `secret`, basic authentication."""
    wanted = None if secret is None else "Basic " + base64.b64encode(f"agent:{secret}".encode()).decode()

    def answer(handler: Handler) -> None:
        if wanted is not None and handler.headers["authorization"] != wanted:
            handler.reply(b"who are you?", 401, WWW_Authenticate='Basic realm="forge"')
            return
        path, _, query = handler.path.partition("?")
        given = handler.body if handler.headers["content-encoding"] != "gzip" else gzip.decompress(handler.body)
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "agent",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": handler.command,
            "CONTENT_TYPE": handler.headers["content-type"] or "",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run(["git", "http-backend"], input=given, env=environment, capture_output=True, check=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n"))
        status = int(fields.pop("Status", "200").split()[0])
        handler.reply(body, status, fields.pop("Content-Type", "text/plain"))

    return Web(answer)


def bare_repository(folder: Path) -> Path:
    """Makes the bare repository `group/project.git`; the folder to serve."""
    bare = folder / "group" / "project.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", bare], check=True)
    subprocess.run(["git", "-C", bare, "config", "http.receivepack", "true"], check=True)
    return folder
