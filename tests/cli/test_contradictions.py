"""A log whose chain is valid but whose events contradict each other: every reader ends with one clear line."""

import pytest
from audit import story

from hive.events.agents import AgentAdded
from hive.events.base import MessageId
from hive.events.log import EventLog
from hive.events.messages import MessageDelivered
from hive.paths import Paths

from .conftest import Run


@pytest.fixture
def contradictory(paths: Paths) -> Paths:
    log = EventLog(paths.state)
    story.append(
        log,
        [
            ("actor:daemon", AgentAdded(agent="coder", slot=1)),
            ("actor:daemon", MessageDelivered(id=MessageId(99), to="coder")),
        ],
        story.BEGIN_MS,
    )
    log.close()
    return paths


@pytest.mark.parametrize(
    "command",
    [
        "audit replay",
        "projections rebuild",
        "up --runtime process --no-dashboard",
    ],
)
def test_contradictory_log_ends_a_replay_with_one_line(hive: Run, contradictory: Paths, command: str) -> None:
    done = hive(*command.split())
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith("hive: Event 2 (MessageDelivered) contradicts earlier events")
    assert "Restore the state folder from a backup" in done.stderr


def test_contradictory_log_has_a_valid_chain(hive: Run, contradictory: Paths) -> None:
    assert hive("audit", "verify", "--no-journal").returncode == 0
