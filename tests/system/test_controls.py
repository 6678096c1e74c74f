"""Controls over a daemon crash: what was acknowledged is done, anything else is refused."""

import os
import signal
import threading

import pytest

from hive.sockets.client import Declined, Unreachable

from .hive_process import HiveProcess, eventually

pytestmark = pytest.mark.system


def test_controls_are_not_lost_with_the_daemon(hive: HiveProcess) -> None:
    hive.spawn("coder")
    eventually(lambda: hive.replayed().agents.all["coder"].hello, "the harness is connected")
    hive.ask("control", name="coder", action="cancel")  # Taken at once, although there is no turn.
    run = hive.running("coder")
    assert run is not None
    os.kill(run.pid, signal.SIGSTOP)
    with pytest.raises(Declined, match="did not take this"):
        hive.ask("control", name="coder", action="cancel")
    hive.ask("control", name="coder", action="model", value="model-x")
    outcome: list[type[Exception]] = []

    def cancel() -> None:
        try:
            hive.ask("control", name="coder", action="cancel")
        except (Declined, Unreachable) as error:
            outcome.append(type(error))

    asking = threading.Thread(target=cancel)
    asking.start()
    hive.kill()
    asking.join()
    assert outcome == [Unreachable], "not acknowledged"
    hive.up()
    with hive.agent("coder") as lines:  # In place of the stopped harness.
        lines.ask("hello", incarnation=run.incarnation)
        control = lines.ask("next_control", done="")["control"]
        assert (control["action"], control["value"]) == ("model", "model-x")
        assert "control" not in lines.ask("next_control", done=control["id"])
        lines.ask("hello", incarnation=run.incarnation)
        assert "control" not in lines.ask("next_control", done=control["id"])
    os.kill(run.pid, signal.SIGCONT)
