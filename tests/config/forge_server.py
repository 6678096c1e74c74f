"""A small forge on loopback: the API that the mirror uses and `git http-backend`, with token authentication."""

import base64
import http.server
import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MODES = ("well", "hangs", "garbage", "unavailable", "redirects", "drips")


class ForgeServer:
    """Any `mode` except `well` simulates a broken forge."""

    def __init__(self, folder: Path, token: str) -> None:
        self.folder = folder
        self.token = token
        self.mode = "well"
        self.orgs: dict[str, dict[str, Any]] = {}
        self.repositories: dict[str, dict[str, Any]] = {}
        self.slow_s = 0.0
        self.bearers: list[str] = []
        """Received Authorization headers."""
        self.ended = threading.Event()
        server = self

        class Handler(_Handler):
            forge = server

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()

    def git(self, name: str, *args: str) -> str:
        """Run git in the mirror of an agent."""
        command = ["git", f"--git-dir={self.folder}/agent-configs/{name}.git", *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def refs(self, name: str) -> dict[str, str]:
        lines = self.git(name, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}


class _Handler(http.server.BaseHTTPRequestHandler):
    forge: ForgeServer

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PATCH = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        return

    def _answer(self) -> None:
        forge = self.forge
        forge.bearers.append(self.headers.get("Authorization", ""))
        match forge.mode:
            case "hangs":
                forge.ended.wait()
            case "garbage":
                self._say(200, b"<html>\xff\x00 welcome to nginx")
            case "unavailable":
                self._say(503, b"later")
            case "redirects":
                self.send_response(302)
                self.send_header("Location", f"{forge.url}/elsewhere")
                self.end_headers()
            case "drips":
                self.send_response(200)
                self.end_headers()
                while not forge.ended.wait(0.05):
                    try:
                        self.wfile.write(b" ")
                    except OSError:
                        return
            case _ if self.path.startswith("/api/v1"):
                self._api(self.command, self.path.removeprefix("/api/v1"))
            case _:
                self._git()

    def _api(self, method: str, path: str) -> None:
        forge = self.forge
        if self.headers.get("Authorization") != f"token {forge.token}":
            return self._json(401, {"message": "token is required"})
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        org, repository = re.fullmatch(r"/orgs/([^/]+)", path), re.fullmatch(r"/repos/([^/]+)/([^/]+)", path)
        if method == "POST" and path == "/orgs":
            forge.orgs[body["username"]] = body
            return self._json(201, body)
        if org and org[1] in forge.orgs:
            forge.orgs[org[1]] |= body
            return self._json(200, forge.orgs[org[1]])
        if method == "POST" and (made := re.fullmatch(r"/orgs/([^/]+)/repos", path)) and made[1] in forge.orgs:
            place = f"{made[1]}/{body['name']}"
            subprocess.run(["git", "init", "--quiet", "--bare", str(forge.folder / f"{place}.git")], check=True)
            forge.repositories[place] = body
            return self._json(201, body)
        if repository and (place := f"{repository[1]}/{repository[2]}") in forge.repositories:
            forge.repositories[place] |= body
            return self._json(200, forge.repositories[place])
        return self._json(404, {"message": "not found"})

    def _git(self) -> None:
        forge = self.forge
        time.sleep(forge.slow_s)
        wanted = base64.b64encode(f"hive:{forge.token}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {wanted}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="forge"')
            self.end_headers()
            return
        parts = urlsplit(self.path)
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(forge.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "hive",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": self.headers.get("Content-Length", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._say(status, json.dumps(body).encode())

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
