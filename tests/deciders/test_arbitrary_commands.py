"""For any command a rule returns events or refuses; its events can be folded, encoded and decoded."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive.deciders import RULES, decide
from hive.deciders.base import Answered, Command
from hive.errors import HiveError

from .check import NOW, Shelf, digests, folded, grow
from .commands import arbitrary, fitting
from .everything import EVERYTHING

EXAMPLES = 60
"""Of each command."""


@pytest.mark.parametrize("command_type", RULES, ids=lambda rule: rule.__name__)
def test_every_rule_decides_or_refuses_arbitrary_commands(command_type: type[Command], tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(command=st.one_of(arbitrary(command_type), fitting(command_type)))
    def holds(command: Command) -> None:
        hive = folded(EVERYTHING)
        try:
            decision = decide(command, hive, NOW)
        except HiveError:
            return
        for event in decision.events if isinstance(decision, Answered) else decision:
            grow(hive, event)
        if hive.seq > len(EVERYTHING):
            assert digests(shelf.put_and_take(hive)) == digests(hive)

    holds()
