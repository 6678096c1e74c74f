"""Three real hives and a cluster of three real NATS servers, and what happens to hosts and networks.

After each failure nothing is lost or doubled, order per pair holds, logs verify, and no agent runs twice.
"""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from missing_tool import missing_tool
from system.hive_process import eventually

from hive.demo.hosts import network
from hive.errors import Unavailable

from .cluster import AGENT, STALE_S, Cluster, cluster, pause, resume

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def swarm() -> Iterator[Cluster]:
    try:
        with network():
            pass
    except Unavailable as error:
        missing_tool(str(error))
    with cluster("tokyo", "berlin", "oslo") as made:
        yield made


def test_server_of_a_stranger_cannot_join(swarm: Cluster) -> None:
    """It knows every member, but none knows its hive."""
    rome = swarm.add_stranger("rome").start()
    refused = re.compile(rf"\[ERR\] {re.escape(rome.address)}:.*TLS route handshake error")
    for place in swarm.places.values():
        eventually(lambda: refused.search(place.server.log.read_text()), f"{place.name} refuses it")  # noqa: B023
    swarm.check()


def test_killed_leader(swarm: Cluster) -> None:
    leader = swarm.leader_of_inbox("berlin")
    swarm.send()
    leader.server.kill()
    swarm.send()
    leader.server.start()
    swarm.check()


def test_two_of_three_servers_killed_and_back(swarm: Cluster) -> None:
    """One server cannot agree on a write. The hives go on alone, and say what does not leave."""
    for place in (swarm.berlin, swarm.oslo):
        place.server.kill()
    swarm.send()
    for place in swarm.places.values():
        eventually(lambda: "The NATS servers store nothing" in place.hive.run("swarm", "status"), place.name)  # noqa: B023
        assert all(row["owed"] for row in place.hive.ask("swarm")["peers"])
    assert "The NATS servers store nothing" in swarm.tokyo.status()
    for place in (swarm.berlin, swarm.oslo):
        place.server.start()
    swarm.check()
    assert "store nothing" not in swarm.tokyo.status()


def test_partition(swarm: Cluster) -> None:
    """Berlin's host keeps its own server, but reaches no other. A move that begins meanwhile ends in one place."""
    swarm.tokyo.hive.spawn("walker")
    with swarm.berlin.unplugged(), ThreadPoolExecutor() as beside:
        swarm.send()
        said = beside.submit(swarm.tokyo.hive.try_run, "deny", "1", "--hive", "berlin")
        with swarm.tokyo.hive.host() as host:
            host.send("move", name="walker", hive="berlin")
            swarm.tokyo.hive.event("MoveBegun", agent="walker")
        swarm.tokyo.await_stale("berlin")
        swarm.berlin.await_stale("tokyo")
        swarm.send()
        assert (swarm.tokyo.age_of("oslo") or 0) < STALE_S
        assert len(swarm.arrived("tokyo", "oslo")) == len(swarm.sent("tokyo", "oslo"))
        assert said.result().returncode == 1
        assert "berlin has not answered yet. The decision is on its way" in said.result().stderr
    swarm.check()
    done = swarm.tokyo.hive.event("DecisionDone", hive="berlin")
    assert "There is no approval 1" in done["error"]
    eventually(lambda: swarm.berlin.hive.running("walker"), "the agent runs where it moved")
    assert swarm.tokyo.hive.running("walker") is None


def test_paused_processes(swarm: Cluster) -> None:
    """First a daemon stands still, then a server that its hive is connected to."""
    pause(swarm.berlin.hive.daemon)
    swarm.send_from(swarm.tokyo)
    swarm.tokyo.await_stale("berlin")
    resume(swarm.berlin.hive.daemon)
    swarm.check()
    leader = swarm.leader_of_inbox("berlin")
    pause(leader.server.process)
    swarm.send()
    resume(leader.server.process)
    swarm.check()


def test_deleted_streams(swarm: Cluster) -> None:
    """All three servers lose everything: the logs have it."""
    before = [place.hive.head() for place in swarm.places.values()]
    for place in swarm.places.values():
        place.server.kill()
        place.server.wipe()
    swarm.send()
    for place in swarm.places.values():
        place.server.start()
    swarm.check()
    for place, head in zip(swarm.places.values(), before, strict=True):
        assert swarm.restored(place.name) >= head


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk")
def test_full_disk_of_a_server(swarm: Cluster) -> None:
    """The server that leads Berlin's inbox cannot write; the other two go on."""
    full = swarm.leader_of_inbox("berlin")
    full.fill_disk()
    swarm.send(100)
    swarm.check()
    assert "no space left on device" in full.server.log.read_text()
    full.free_disk()
    full.server.kill()
    full.server.start()
    swarm.check()


@pytest.mark.parametrize("offset_s", [3_600, -3_600])
def test_clock_an_hour_off(swarm: Cluster, offset_s: int) -> None:
    """A daemon with a wrong clock shows the right ages, and does not end a peer's question early."""
    tokyo, berlin, oslo = swarm.tokyo, swarm.berlin, swarm.oslo
    oslo.hive.kill()
    tokyo.await_stale("oslo")
    berlin.restart(clock_ahead_s=offset_s)
    ahead_s = datetime.fromisoformat(berlin.hive.events("Booted")[-1]["at"]).timestamp() - time.time()
    assert abs(ahead_s - offset_s) < abs(offset_s) / 2
    age_s = eventually(lambda: berlin.age_of("oslo"), "the screen of a hive that is away")
    assert STALE_S < age_s < 2 * (tokyo.age_of("oslo") or 0)
    with tokyo.hive.agent(AGENT) as agent:
        question = agent.ask("ask", to=f"{AGENT}@berlin", question="What time is it?", ttl_seconds=1_800)["id"]
    asked = berlin.hive.event("QuestionAdded", asker=f"{AGENT}@tokyo", origin_id=question)
    swarm.send()
    with berlin.hive.agent(AGENT) as agent:
        agent.ask("answer", id=asked["id"], answer="Late.")
    assert tokyo.hive.event("QuestionResolved", id=question)["answer"] == "Late."
    berlin.restart()
    oslo.hive.up()
    swarm.check()
