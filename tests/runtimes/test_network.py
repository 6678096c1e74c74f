"""The network of a sandboxed agent, and the forwarder that connects it with sockets outside."""

import socket

from contract import Lab, eventually
from test_isolation import PYTHON, inside, succeeding

from hive.runtimes import network


def test_host_network_is_reached_only_with_network_host(sandboxed_lab: Lab):
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        assert inside(sandboxed_lab, succeeding(connect), network="host") == [connect]
        assert inside(sandboxed_lab, succeeding(connect)) == []


def test_own_network_has_loopback_alone_and_two_agents_share_a_port(sandboxed_lab: Lab):
    code = "import socket\none = socket.create_server(('127.0.0.1', 8000))\nprint('listens', flush=True)\none.accept()"
    other = sandboxed_lab.container(PYTHON, "-c", code, name="other")
    sandboxed_lab.start(other)
    eventually(lambda: sandboxed_lab.output(other) == ["listens"], "the other agent listens")
    answer = inside(
        sandboxed_lab,
        "import socket\nserver = socket.create_server(('127.0.0.1', 8000))\n"
        "answer = [name for _, name in socket.if_nameindex()]",
    )
    assert answer == ["lo"]


def test_forwarder_connects_loopback_port_with_net_socket_and_back(sandboxed_lab: Lab):
    container = sandboxed_lab.container(
        PYTHON,
        "-c",
        "import socket\nserver = socket.create_server(('127.0.0.1', 8000))\n"
        f"one = socket.create_connection(('127.0.0.1', {network.PORT}))\n"
        "one.sendall(b'out'); one.shutdown(socket.SHUT_WR)\nprint(one.makefile().read(), flush=True)\n"
        "two, _ = server.accept()\nprint(two.recv(10).decode()); two.sendall(b'answer')",
    )
    broker = socket.create_server(str(container.socket_folder / network.NET_SOCKET_NAME), family=socket.AF_UNIX)
    with broker:
        sandboxed_lab.start(container)
        came, _ = broker.accept()
        assert came.makefile().read() == "out"
        came.sendall(b"back")
        came.close()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(container.record / network.FORWARD_SOCKET_NAME))
            client.sendall(b"8000\nin")
            assert client.recv(10) == b"answer"
    sandboxed_lab.ended(container)
    assert sandboxed_lab.output(container) == ["back", "in"]
