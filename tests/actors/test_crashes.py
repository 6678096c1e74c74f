"""Crashes of agents with real processes: record, last line, delay, restart, rest."""

import pykka

from hive.actors.agent import LAST_LINE_MAX_CHARACTERS, ContainerEnded
from hive.deciders.axes import ReportLogin
from hive.deciders.lifecycle import CRASHES_MAX, RESTART_FIRST_MS
from hive.events.agents import Crashed
from hive.events.base import agent
from hive.names import MANAGER, OPERATOR
from hive.runtimes.protocol import Ended, Exit

from .containers import Containers
from .journal_environment import JournalEnvironment, eventually

ENDS_AT_ONCE = "exit 3"


def test_crash_is_recorded_and_restarted_after_a_delay_with_a_kick(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    containers.runtime.kill(containers.paths.record("coder"))
    containers.tell_of_the_end(coder)
    eventually(lambda: "Crashed" in env.types(), "the crash is recorded")
    assert containers.row().failure == "signal 9 (SIGKILL)"
    eventually(lambda: env.manual.waits_for() is not None, "the restart waits")
    env.manual.advance(RESTART_FIRST_MS - 1)
    assert not containers.row().running
    env.manual.advance(1)
    eventually(lambda: containers.row().running, "it is started again")
    assert containers.runs()
    eventually(lambda: containers.kicks() == ["crash"], "it is kicked once")


def test_crash_has_the_last_line_of_its_run(containers: Containers, env: JournalEnvironment) -> None:
    coder = start_and_crash(containers, env, r"""printf 'first\n\033[31mlast \377\n\n' >&2; exit 3""")
    assert last_lines(env) == [r"\x1b[31mlast \xff"]
    assert containers.row().last_line == last_lines(env)[0]
    notices = [row.body for row in env.client.read(lambda hive: hive.messages.newest(MANAGER, 5))]
    assert any(r"\\x1b[31mlast" in body and '"event":"crashed"' in body for body in notices)
    containers.provisioner.program = "head -c 5000000 /dev/zero | tr '\\0' 'x'; exit 3"
    crash_again(containers, env, coder)
    assert last_lines(env)[1] == "x" * (LAST_LINE_MAX_CHARACTERS - 1) + "…"
    containers.provisioner.program = "exit 3"
    crash_again(containers, env, coder)
    assert last_lines(env)[2] is None
    assert containers.row().last_line is None


def start_and_crash(containers: Containers, env: JournalEnvironment, program: str) -> "pykka.ActorRef[object]":
    env.spawn(MANAGER)
    containers.provisioner.program = program
    coder = containers.spawned()
    containers.tell_of_the_end(coder)
    eventually(lambda: "Crashed" in env.types(), "the crash is recorded")
    return coder


def crash_again(containers: Containers, env: JournalEnvironment, coder: "pykka.ActorRef[object]") -> None:
    count = env.types().count("Crashed")
    containers.do(coder, "start")
    containers.tell_of_the_end(coder)
    eventually(lambda: env.types().count("Crashed") > count, "the crash is recorded")


def last_lines(env: JournalEnvironment) -> list[str | None]:
    return [event.last_line for event in env.events() if isinstance(event, Crashed)]


def test_repeated_crashes_end_in_rest_until_a_manual_start(containers: Containers, env: JournalEnvironment) -> None:
    containers.provisioner.program = ENDS_AT_ONCE
    coder = containers.spawned()
    for number in range(1, CRASHES_MAX + 1):
        containers.tell_of_the_end(coder)
        eventually(lambda number=number: env.types().count("Crashed") == number, "the crash is recorded")  # type: ignore[misc]
        if number < CRASHES_MAX:
            eventually(lambda: env.manual.waits_for() is not None, "the restart waits")
            env.manual.advance(RESTART_FIRST_MS << (number - 1))
            eventually(lambda: containers.row().running, "it is started again")
    row = containers.row()
    assert (row.running, row.restart_ms, row.failure) == (False, None, "exit code 3")
    told = env.client.read(lambda hive: hive.messages.newest(OPERATOR, 1))[0].body
    assert '"event":"rested"' in told
    containers.provisioner.program = "exec sleep 1000"
    containers.do(coder, "start")
    assert containers.row().crashes == 0
    assert containers.runs()


def test_agent_that_needs_login_is_not_restarted(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    env.ask(ReportLogin(by=agent("coder"), agent="coder", logged_in=False))
    containers.runtime.kill(containers.paths.record("coder"))
    containers.tell_of_the_end(coder)
    eventually(lambda: "Crashed" in env.types(), "the crash is recorded")
    assert containers.row().restart_ms is None


def test_late_report_of_an_older_run_is_ignored(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    before = len(env.rows())
    coder.tell(ContainerEnded("coder", Ended(incarnation="another", exit=Exit(code=1))))
    containers.settle(coder)
    assert env.types()[before:] == []
    assert containers.runs()


def test_stop_cancels_a_scheduled_restart(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    containers.runtime.kill(containers.paths.record("coder"))
    containers.tell_of_the_end(coder)
    eventually(lambda: env.manual.waits_for() is not None, "the restart waits")
    containers.do(coder, "stop")
    env.manual.advance(10 * RESTART_FIRST_MS)
    containers.settle(coder)
    assert not containers.row().running
    assert env.manual.waits_for() is None
