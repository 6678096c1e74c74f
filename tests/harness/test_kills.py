"""Kills harness, CLI and daemon at random times: no message is lost, and no acked message is redelivered."""

import contextlib
import json
import os
import random
import signal
import time

import pytest

from hive.scripted_model import Answer, Conversation, call, say

from .conftest import Run

pytestmark = pytest.mark.system

MESSAGES = 30
SEED = 20260131


def decide(conversation: Conversation) -> Answer | None:
    """Each turn does some work first, so that a kill can hit any phase."""
    return say("done", wait_s=0.05) if conversation.results else call("Bash", command="true", description="work")


def test_no_message_is_lost_and_no_acked_message_redelivered(run: Run) -> None:
    chance = random.Random(SEED)
    run.start(decide)
    ids: list[int] = []
    while len(set(run.peer.acked)) < MESSAGES:
        if len(ids) < MESSAGES:
            ids.append(run.peer.put(f"message {len(ids)}"))
        # The random delay is the test: kills must hit any moment.
        time.sleep(chance.uniform(0.1, 0.5))
        match chance.choice(["harness", "cli", "daemon", "nothing", "nothing", "nothing"]):
            case "harness" if len(ids) < MESSAGES:
                run.kill()
                run.start()
            case "cli" if len(ids) < MESSAGES:
                for pid in run.cli_pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            case "daemon":
                run.peer.down()
                run.peer.up()
    assert sorted(run.peer.acked) == ids, "each acked once"
    assert not run.peer.in_flight
    acked: set[int] = set()
    for request in run.peer.requests:
        if request["cmd"] == "turn_started":
            assert not acked & set(request["message_ids"]), json.dumps(request)
        elif request["cmd"] == "ack":
            acked |= set(request["ids"])
