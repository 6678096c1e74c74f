"""Each verb of an agent's socket keeps its published form: a golden request and reply, never edited."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from system.hive_process import HiveProcess

from hive.sockets.manager_verbs import MANAGER_VERBS

from .agent_story import GOLDEN, WHOLE_STATE, told

pytestmark = pytest.mark.system

FILES = sorted(path.stem for path in GOLDEN.glob("*.json"))


@pytest.fixture(scope="module")
def said() -> Iterator[dict[str, dict[str, Any]]]:
    hive = HiveProcess()
    try:
        hive.up()
        hive.ask("set_paused", name="manager", paused=True)
        yield told(hive)
    finally:
        hive.close()


def test_every_verb_has_a_golden_request_and_reply() -> None:
    assert set(FILES) == set(MANAGER_VERBS) - WHOLE_STATE


@pytest.mark.parametrize("name", FILES)
def test_verb_matches_its_golden_reply(said: dict[str, dict[str, Any]], name: str) -> None:
    """Additions are allowed: the reply must contain the golden reply; nothing else is compared."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    assert said[name]["request"] == golden["request"]
    assert _within(golden["reply"], said[name]["reply"]) is None
    assert next(iter(said[name]["reply"])) == "ok"


def _within(golden: Any, today: Any, where: str = "reply") -> str | None:
    """Paths where the reply does not contain the golden value."""
    if isinstance(golden, dict) and isinstance(today, dict):
        gone = sorted(set(golden) - set(today))
        if gone:
            return f"{where} has no {gone[0]}"
        return next((found for key in golden if (found := _within(golden[key], today[key], f"{where}.{key}"))), None)
    if isinstance(golden, list) and isinstance(today, list) and len(golden) == len(today):
        pairs = enumerate(zip(golden, today, strict=True))
        return next((found for at, (one, two) in pairs if (found := _within(one, two, f"{where}[{at}]"))), None)
    return None if golden == today else f"{where} was {golden!r} and is {today!r}"
