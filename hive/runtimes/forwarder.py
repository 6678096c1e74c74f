"""Connects loopback ports inside a container with sockets outside: it copies bytes and knows no protocol.

Runs inside as the agent. The agent may kill or replace it and gains nothing: the broker identifies the agent by the
socket and checks every request. Stdlib only. `init.Forwarding` forks it, in every runtime with isolation.

    program inside → 127.0.0.1:PORT → net.sock → broker
    operator → forward.sock (outside the agent's reach) → 127.0.0.1:PORT inside
"""

import contextlib
import errno
import select
import socket
import time

CONNECTIONS_MAX = 512
"""A further connection waits in the listener's backlog."""
CHUNK_BYTES = 65536
"""Each direction buffers one chunk at most."""
PORT_LINE_BYTES = 8
CONNECT_FOR_S = 10.0
"""How long to retry a socket that is missing or full: the daemon is starting, or the broker is busy."""
RETRY_S = 0.05
AWAY = (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN)


class _Link:
    """Two connected sockets, each written what the other sends."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.sides = (near, far)
        self.unsent = [b"", b""]
        """For each side, what could not be written to it yet."""
        self.ended = [False, False]
        """For each side, whether it has sent everything."""

    def interest(self, side: int) -> int:
        reads = not self.ended[side] and not self.unsent[1 - side]
        return (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if self.unsent[side] else 0)

    def move(self, side: int) -> None:
        """Write to this side, then read from it. Raises OSError: the connection is broken."""
        self._write(side)
        other = 1 - side
        if self.ended[side] or self.unsent[other]:
            return
        try:
            data = self.sides[side].recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        if data:
            self.unsent[other] = data
        else:
            self.ended[side] = True
        self._write(other)

    def _write(self, side: int) -> None:
        if self.unsent[side]:
            with contextlib.suppress(BlockingIOError):
                sent = self.sides[side].send(self.unsent[side])
                self.unsent[side] = self.unsent[side][sent:]
        if self.ended[1 - side] and not self.unsent[side]:
            with contextlib.suppress(OSError):
                self.sides[side].shutdown(socket.SHUT_WR)

    def is_over(self) -> bool:
        return all(self.ended) and not any(self.unsent)


class Forwarder:
    """Serves one container from its listeners until the process ends."""

    def __init__(self, outward: socket.socket, net_socket: str, inward: socket.socket | None) -> None:
        """`outward`: listener inside, connected to `net_socket`. `inward`: listener outside, see `hive forward`."""
        self._net_socket = net_socket
        self._outward = outward
        self._listeners = {one.fileno(): one for one in (outward, inward) if one is not None}
        self._poll = select.epoll()
        self._links: dict[int, tuple[_Link, int]] = {}
        self._interest: dict[int, int] = {}
        self._calling: list[tuple[socket.socket, float]] = []
        """Accepted inside and not connected to the broker yet, with the time to give up."""
        self._asking: dict[int, socket.socket] = {}
        """Accepted outside; the line with the port is awaited."""
        self._accepts = False

    def serve(self) -> None:
        for listener in self._listeners.values():
            listener.setblocking(False)
        while True:
            self._accept_or_not()
            for fd, _ in self._poll.poll(RETRY_S if self._calling else None):
                self._on_event(fd)
            for near, until in self._take_calling():
                self._call(near, until)

    def _take_calling(self) -> list[tuple[socket.socket, float]]:
        calling, self._calling = self._calling, []
        return calling

    def _accept_or_not(self) -> None:
        may = len(self._links) // 2 + len(self._calling) + len(self._asking) < CONNECTIONS_MAX
        if may == self._accepts:
            return
        self._accepts = may
        for fd in self._listeners:
            self._poll.register(fd, select.EPOLLIN) if may else self._poll.unregister(fd)

    def _on_event(self, fd: int) -> None:
        if fd in self._listeners:
            self._accept(self._listeners[fd])
        elif fd in self._asking:
            self._answer(self._asking.pop(fd))
        elif fd in self._links:
            link, side = self._links[fd]
            try:
                link.move(side)
            except OSError:
                self._close(link)
            else:
                self._follow(link)

    def _accept(self, listener: socket.socket) -> None:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        near.setblocking(False)
        if listener is self._outward:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._call(near, time.monotonic() + CONNECT_FOR_S)
        else:
            self._asking[near.fileno()] = near
            self._poll.register(near.fileno(), select.EPOLLIN)

    def _call(self, near: socket.socket, until: float) -> None:
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        far.setblocking(False)
        try:
            far.connect(self._net_socket)
        except OSError as error:
            far.close()
            if error.errno in AWAY and time.monotonic() < until:
                self._calling.append((near, until))
            else:
                near.close()
            return
        self._join(near, far)

    def _answer(self, near: socket.socket) -> None:
        """Connect to the port inside that the first line names. The line arrives in one piece."""
        self._poll.unregister(near.fileno())
        try:
            line = near.recv(PORT_LINE_BYTES, socket.MSG_PEEK)
            port, newline, _ = line.partition(b"\n")
            near.recv(len(port) + len(newline))
            far = socket.create_connection(("127.0.0.1", int(port)), CONNECT_FOR_S)
        except (OSError, ValueError):
            near.close()
            return
        far.setblocking(False)
        self._join(near, far)

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        link = _Link(near, far)
        for side, one in enumerate(link.sides):
            self._links[one.fileno()] = (link, side)
            self._interest[one.fileno()] = 0
        self._follow(link)

    def _follow(self, link: _Link) -> None:
        if link.is_over():
            self._close(link)
            return
        for side, one in enumerate(link.sides):
            fd, wanted = one.fileno(), link.interest(side)
            known = self._interest[fd]
            if wanted == known:
                continue
            if not known:
                self._poll.register(fd, wanted)
            elif not wanted:
                self._poll.unregister(fd)  # A hang-up would be reported again and again.
            else:
                self._poll.modify(fd, wanted)
            self._interest[fd] = wanted

    def _close(self, link: _Link) -> None:
        for one in link.sides:
            fd = one.fileno()
            del self._links[fd]
            if self._interest.pop(fd):
                self._poll.unregister(fd)
            one.close()


def serve(outward: int, net_socket: str, inward: int) -> None:
    """Serve open listeners, given as descriptors, until the process ends."""
    Forwarder(socket.socket(fileno=outward), net_socket, socket.socket(fileno=inward)).serve()
