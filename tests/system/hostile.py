"""Runs inside an agent's container: tries every way out of its network and at the operator's key, and reports.

`python3 hostile.py TARGETS.json REPORT.json`; standard library only. The report names what succeeded, and all.
"""

import ctypes
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_S = 5
PROXY = ("127.0.0.1", 3199)
FAMILIES = {
    "AF_AX25": 3, "AF_IPX": 4, "AF_X25": 9, "AF_KEY": 15, "AF_PACKET": 17, "AF_RDS": 21, "AF_CAN": 29,
    "AF_TIPC": 30, "AF_BLUETOOTH": 31, "AF_ALG": 38, "AF_NFC": 39, "AF_VSOCK": 40, "AF_KCM": 41, "AF_QIPCRTR": 42,
    "AF_SMC": 43, "AF_XDP": 44, "AF_MCTP": 45,
}  # fmt: skip
NETLINKS = {"sock_diag": 4, "nflog": 5, "xfrm": 6, "audit": 9, "netfilter": 12, "uevent": 15, "generic": 16}
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
PIDFD_OPEN, PIDFD_GETFD, PROCESS_VM_READV = 434, 438, 310
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
attempts: dict[str, Callable[[], Any]] = {}


def exchange(data: bytes, more: bytes = b"") -> bytes:
    """What the way out answers to these bytes."""
    with socket.create_connection(PROXY, TIMEOUT_S) as one:
        one.sendall(data)
        if more:
            one.sendall(more)
        one.shutdown(socket.SHUT_WR)
        said = b""
        while data := one.recv(65536):
            said += data
        return said


def granted(said: bytes) -> bool:
    return said.split(b" ", 2)[1:2] == [b"200"] or b"reached" in said


def http(line: str, *headers: str) -> Callable[[], bool]:
    text = "".join(f"{one}\r\n" for one in (f"{line} HTTP/1.1", "Host: allowed.example", "Connection: close", *headers))
    return lambda: granted(exchange(text.encode() + b"\r\n"))


def socks(*address: bytes, command: int = 1, version: int = 5) -> Callable[[], bool]:
    def attempt() -> bool:
        head = bytes([version, 1, 0, version, command, 0]) if version == 5 else bytes([version, command])
        said = exchange(head + b"".join(address))
        return len(said) > 3 and said[3] == 0 and said[2] == 5

    return attempt


def connects(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> Callable[[], bool]:
    def attempt() -> bool:
        with socket.socket(family, kind) as one:
            one.settimeout(TIMEOUT_S)
            one.connect(address)
            if kind == socket.SOCK_DGRAM:
                one.send(b"x")
                time.sleep(0.05)
                one.send(b"x")
                one.recv(1)
            return True

    return attempt


def creates(family: int, kind: int, protocol: int = 0) -> Callable[[], bool]:
    def attempt() -> bool:
        socket.socket(family, kind, protocol).close()
        return True

    return attempt


def called(number: int, *arguments: Any) -> bool:
    return int(libc.syscall(number, *arguments)) >= 0


def others() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]  # noqa: PTH208


def guarded() -> list[int]:
    """Init and the forwarder."""
    return [1, *(pid for pid in others() if b"init.py" in _line(pid) and pid != 1)]


def _line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def reads(name: str) -> Callable[[], bool]:
    def attempt() -> bool:
        for pid in guarded():
            try:
                with Path(f"/proc/{pid}/{name}").open("rb") as file:
                    if name == "mem":
                        file.seek(0x400000)
                    file.read(1)
            except OSError:
                continue
            return True
        return False

    return attempt


def takes_descriptor() -> bool:
    for pid in guarded():
        pidfd = int(libc.syscall(PIDFD_OPEN, pid, 0))
        if pidfd >= 0 and any(called(PIDFD_GETFD, pidfd, fd, 0) for fd in range(3, 16)):
            return True
    return False


def reads_memory(pid: int) -> bool:
    """Copy a page of Python's own text, which every process here has at some address near ours."""
    into = ctypes.create_string_buffer(8)
    local = struct.pack("QQ", ctypes.addressof(into), 8)
    remote = struct.pack("QQ", ctypes.addressof(ctypes.c_int.in_dll(libc, "stdout")) & ~0xFFF, 8)
    ctypes.set_errno(0)
    copied = libc.syscall(PROCESS_VM_READV, pid, local, 1, remote, 1, 0)
    return copied > 0 or ctypes.get_errno() == 14  # EFAULT: the call was allowed, the address was wrong.


def nested_packet_socket() -> bool:
    pid = os.fork()
    if pid == 0:
        done = libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0
        try:
            socket.socket(17, socket.SOCK_RAW).close()
        except OSError:
            done = False
        os._exit(0 if done else 1)
    return os.waitpid(pid, 0)[1] == 0


def adds_route() -> bool:
    import fcntl

    with socket.socket() as one:
        fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 0))  # SIOCSIFFLAGS: takes lo down
    return True


def takes_port() -> bool:
    for pid in guarded()[1:]:
        os.kill(pid, 9)
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.bind(PROXY)
    own.listen()
    return True


def own_forwarder(targets: dict[str, Any]) -> Callable[[], bool]:
    """Speak to the broker without the forwarder: the rules are the same."""

    def attempt() -> bool:
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(TIMEOUT_S)
            one.connect("/run/hive/net.sock")
            one.sendall(f"CONNECT 127.0.0.1:{targets['port']} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            return granted(one.recv(65536))

    return attempt


def kernel(targets: dict[str, Any]) -> None:
    port, own = targets["port"], targets["own"]
    attempts["host loopback"] = connects(socket.AF_INET, ("127.0.0.1", port))
    attempts["host loopback, IPv6"] = connects(socket.AF_INET6, ("::1", port))
    attempts["host loopback, mapped"] = connects(socket.AF_INET6, ("::ffff:127.0.0.1", port))
    attempts["host's own address"] = connects(socket.AF_INET, (own, port))
    attempts["internet"] = connects(socket.AF_INET, ("1.1.1.1", 443))
    attempts["internet, IPv6"] = connects(socket.AF_INET6, ("2606:4700:4700::1111", 443))
    attempts["metadata service"] = connects(socket.AF_INET, ("169.254.169.254", 80))
    attempts["DNS over UDP"] = connects(socket.AF_INET, ("1.1.1.1", 53), socket.SOCK_DGRAM)
    attempts["UDP to host loopback"] = connects(socket.AF_INET, ("127.0.0.1", port), socket.SOCK_DGRAM)
    attempts["abstract socket"] = connects(socket.AF_UNIX, "\0" + targets["abstract"])
    for path in targets["sockets"]:
        attempts[f"socket {path}"] = connects(socket.AF_UNIX, path)
    for name, kind in (
        ("TCP", socket.SOCK_RAW),
        ("packet", socket.SOCK_PACKET if hasattr(socket, "SOCK_PACKET") else 10),
    ):
        attempts[f"raw {name}"] = creates(socket.AF_INET, kind, 6)
    attempts["raw IPv6"] = creates(socket.AF_INET6, socket.SOCK_RAW, 58)
    for name, family in FAMILIES.items():
        attempts[name] = lambda family=family: any(_made(creates(family, kind)) for kind in (1, 2, 3, 5))
    for name, protocol in NETLINKS.items():
        attempts[f"netlink {name}"] = creates(16, socket.SOCK_RAW, protocol)
    attempts["packet socket in a nested namespace"] = nested_packet_socket
    attempts["change of an interface"] = adds_route


def _made(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except OSError:
        return False


def processes() -> None:
    for name in ("mem", "environ", "maps", "stack", "auxv"):
        attempts[f"/proc of init and forwarder: {name}"] = reads(name)
    attempts["descriptors of init"] = lambda: bool(os.listdir("/proc/1/fd"))  # noqa: PTH208
    attempts["ptrace attach"] = lambda: any(libc.ptrace(PTRACE_ATTACH, pid, 0, 0) == 0 for pid in guarded())
    attempts["ptrace seize"] = lambda: any(libc.ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 for pid in guarded())
    attempts["process_vm_readv"] = lambda: any(map(reads_memory, guarded()))
    attempts["pidfd_getfd"] = takes_descriptor
    attempts["port of a killed forwarder"] = takes_port


def proxy(targets: dict[str, Any]) -> None:
    port, own, listed = targets["port"], targets["own"], targets["listed"]
    hosts = (
        "127.0.0.1", "localhost", "localhost.", "LocalHost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:1]", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.1", "0", "0.0.0.0", "[::]",
        "%31%32%37.0.0.1", "127.0.0.1%00.allowed.example", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]", own, f"{own}.",
    )  # fmt: skip
    for host in hosts:
        attempts[f"CONNECT {host}"] = http(f"CONNECT {host}:{port}")
        attempts[f"GET {host}"] = http(f"GET http://{host}:{port}/")
    bad = f"127.0.0.1:{port}"
    for name, line in {
        "user name": f"GET http://allowed.example@{bad}/",
        "fragment": f"GET http://{bad}#@{listed}/",
        "backslash": f"GET http://{listed}\\@{bad}/",
        "tab": f"GET http://{listed}\t@{bad}/",
        "https in absolute form": f"GET https://{bad}/",
        "file": "GET file:///etc/passwd",
        "ftp": f"GET ftp://{bad}/",
        "gopher": f"GET gopher://{bad}/",
        "no scheme": f"GET //{bad}/",
        "asterisk": "OPTIONS *",
        "CONNECT without port": "CONNECT 127.0.0.1",
        "CONNECT to a path": f"CONNECT http://{bad}/",
        "CONNECT with a space": f"CONNECT {listed} {bad}",
    }.items():
        attempts[f"target with {name}"] = http(line)
    attempts["Host of another"] = http(f"GET http://{bad}/", f"Host: {listed}", f"X-Forwarded-Host: {listed}")
    attempts["HTTP/0.9"] = lambda: granted(exchange(f"GET http://{bad}/\r\n".encode()))
    attempts["HTTP/2"] = lambda: granted(exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 64))
    here, there = socket.inet_aton("127.0.0.1"), struct.pack("!H", port)
    attempts["SOCKS5"] = socks(b"\x01", here, there)
    attempts["SOCKS5 by name"] = socks(b"\x03\x09localhost", there)
    attempts["SOCKS5, mapped"] = socks(b"\x04", b"\0" * 10 + b"\xff\xff" + here, there)
    attempts["SOCKS5 bind"] = socks(b"\x01", here, there, command=2)
    attempts["SOCKS5 UDP"] = socks(b"\x01", here, there, command=3)
    attempts["SOCKS4"] = socks(there, here, b"x\0", version=4)
    attempts["own forwarder"] = own_forwarder(targets)


def smuggling(targets: dict[str, Any]) -> None:
    """Requests that a server could read as two. The test looks at what the listed server saw."""
    hidden = f"GET /smuggled HTTP/1.1\r\nHost: {targets['listed']}\r\n\r\n"
    tail = f"0\r\n\r\n{hidden}"
    for name, headers in {
        "length and chunks": f"Content-Length: {len(tail)}\r\nTransfer-Encoding: chunked\r\n",
        "chunks and length": f"Transfer-Encoding: chunked\r\nContent-Length: {len(tail)}\r\n",
        "two lengths": f"Content-Length: 5\r\nContent-Length: {len(tail)}\r\n",
        "list of lengths": f"Content-Length: 5, {len(tail)}\r\n",
        "signed length": f"Content-Length: +{len(tail)}\r\n",
        "space before the colon": f"Transfer-Encoding : chunked\r\nContent-Length: {len(tail)}\r\n",
        "unknown encoding": f"Transfer-Encoding: xchunked\r\nContent-Length: {len(tail)}\r\n",
        "two encodings": f"Transfer-Encoding: chunked, identity\r\nContent-Length: {len(tail)}\r\n",
        "folded header": f"Transfer-Encoding:\r\n chunked\r\nContent-Length: {len(tail)}\r\n",
        "bare line feed": f"X: y\nTransfer-Encoding: chunked\r\nContent-Length: {len(tail)}\r\n",
        "bare carriage return": f"X: y\rTransfer-Encoding: chunked\r\nContent-Length: {len(tail)}\r\n",
        "connection names length": f"Connection: content-length\r\nContent-Length: {len(tail)}\r\n",
        "null byte": f"X: \0\r\nTransfer-Encoding: chunked\r\nContent-Length: {len(tail)}\r\n",
    }.items():
        head = f"POST http://{targets['listed']}/{name.replace(' ', '-')} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"
        # A client that pipelines may send two requests; whether the second is one is the server's answer to tell.
        attempts[f"smuggling: {name}"] = lambda head=head: exchange((head + tail).encode()) and False
    split = f"GET http://{targets['listed']}/a%0d%0a%0d%0aGET%20/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    attempts["smuggling: encoded line ends"] = lambda: exchange(split.encode()) and False


def model_paths() -> None:
    for path in (
        "/v1/files", "/v1/messages/batches", "/v1/organizations/api_keys", "/v1/messages/../files",
        "/v1/messages/..%2ffiles",         "//v1/files", "/v1/messages%2f..%2ffiles", "/../../v1/files",
    ):  # fmt: skip
        for method in ("GET", "POST", "TRACE", "PUT"):
            attempts[f"model: {method} {path}"] = http(f"{method} /model/anthropic{path}", "Content-Length: 0")
    attempts["model: other provider"] = http("GET /model/../model/x/v1/models")
    attempts["host without credential"] = http("GET /host/127.0.0.1/")


def main() -> None:
    targets = json.loads(Path(sys.argv[1]).read_text())
    kernel(targets)
    proxy(targets)
    smuggling(targets)
    model_paths()
    processes()
    through = []
    for name, attempt in attempts.items():
        try:
            if attempt():
                through.append(name)
        except (OSError, ValueError):
            continue
    report = Path(sys.argv[2])
    report.with_suffix(".new").write_text(json.dumps({"through": through, "tried": list(attempts)}))
    report.with_suffix(".new").rename(report)


if __name__ == "__main__":
    main()
