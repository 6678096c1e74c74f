"""Whatever one agent does to the broker, the others have their turns, and memory stays bounded."""

import asyncio
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive.broker import wire
from hive.broker.pace import STEPS_PER_ROUND, Pace

from . import attacks
from .lab import BrokerLab, Client, Web, anthropic, exchange

REQUESTS = 15
BOUND = 20
"""How much longer a request of another agent may take, at the median. A loop that is blocked takes hundreds of times
longer; the rest is a processor that all tests share."""
ROUNDS = 3
"""Measured again if the machine was busy with something else."""
MEMORY_MAX_MIB = 64
BODY = json.dumps({"model": "m", "messages": []}).encode()
REQUEST = (
    b"POST /model/anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    % (len(BODY), BODY)
)


@pytest.fixture(scope="module")
def beside() -> Iterator[BrokerLab]:
    """A second broker, which nobody attacks."""
    one = BrokerLab()
    yield one
    one.close()


def took_s(path: Path) -> float:
    began = time.perf_counter()
    assert b" 200 " in exchange(path, REQUEST)
    return time.perf_counter() - began


def rss_mib(lab: BrokerLab) -> float:
    pages = Path(f"/proc/{lab.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096 / 1024**2


@contextlib.contextmanager
def attacked(lab: BrokerLab, name: str) -> Iterator[None]:
    """An agent that does this until the end, over 200 connections, in a process of its own."""
    agent = f"attacks {name}"
    path = lab.agent(agent.replace(" ", "-"), mode="none")
    command = [sys.executable, attacks.__file__, name, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        model = anthropic(f"http://127.0.0.1:{port}")
        lab.policy(path.stem, mode="listed", allow=(f"127.0.0.1:{port}", "*.invalid"), providers=(model,))
        process.stdin.write("\n")
        process.stdin.flush()
        try:
            process.stdout.readline()  # Every connection was begun.
            yield
        finally:
            process.kill()
            wire.send(lab.channel, wire.Forget(agent=path.stem))


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_request_of_another_agent_takes_its_turn_under_attack(lab: BrokerLab, beside: BrokerLab, name: str) -> None:
    """Compared, in the same moments, with a broker that is not attacked."""
    ratios = []
    with Web() as web:
        calm, alone = (one.agent(f"calm-{web.port}", providers=(anthropic(web.url),)) for one in (lab, beside))
        took_s(calm), took_s(alone)
        before = rss_mib(lab)
        with attacked(lab, name):
            while len(ratios) < ROUNDS and min(ratios, default=BOUND) >= BOUND:
                pairs = [(took_s(calm), took_s(alone)) for _ in range(REQUESTS)]
                together, usual = (statistics.median(times) for times in zip(*pairs, strict=True))
                ratios.append(together / usual)
            assert rss_mib(lab) - before < MEMORY_MAX_MIB
    assert min(ratios) < BOUND, ratios


def test_steps_of_many_connections_leave_each_round_to_other_agents() -> None:
    async def run() -> list[list[str]]:
        busy, calm = Pace(), Pace()
        rounds: list[list[str]] = [[]]

        async def step(pace: Pace, name: str) -> None:
            await pace.step()
            rounds[-1].append(name)

        tasks = [asyncio.ensure_future(step(busy, "busy")) for _ in range(100)]
        for number in range(60):
            if number % 10 == 5:
                tasks.append(asyncio.ensure_future(step(calm, "calm")))
            await asyncio.sleep(0)
            rounds.append([])
        await asyncio.gather(*tasks)
        return rounds

    rounds = asyncio.run(run())
    assert all(round.count("busy") <= STEPS_PER_ROUND for round in rounds)
    assert [number for number, round in enumerate(rounds) if "calm" in round] == [5, 15, 25, 35, 45, 55]
    assert sum(round.count("busy") for round in rounds) == 100


def test_head_of_many_lines_is_refused(lab: BrokerLab) -> None:
    path = lab.agent("lines", mode="open")
    said = exchange(path, b"GET http://a.invalid/ HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 300 + b"\r\n")
    assert said.split()[1] == b"431"


def test_head_over_its_limit_is_refused(lab: BrokerLab) -> None:
    path = lab.agent("heads", mode="open")
    with Client(path) as client, contextlib.suppress(BrokenPipeError):
        client.send(b"GET http://a.invalid/ HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 90_000)
        client.send(b"y" * 90_000)
        client.socket.shutdown(socket.SHUT_WR)
        said = client.all()
        assert said == b"" or said.split()[1] == b"431", said
