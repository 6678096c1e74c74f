"""Every event type has a golden file, written once and never edited."""

from pathlib import Path

import msgspec
import pytest

from hive.events import EVENT_TYPES
from hive.events.base import QuestionId
from hive.events.codec import Codec
from hive.events.questions import QuestionAdded
from hive.events.turns import TurnEnded

GOLDEN = Path(__file__).parent / "golden"
CODEC = Codec()


def text(name: str) -> str:
    return (GOLDEN / f"{name}.json").read_text().removesuffix("\n")


FILES = sorted(path.stem for path in GOLDEN.glob("*.json"))
"""`Type.json` is the first form of an event. `Type+field.json` has a field that was added later."""


def type_of(name: str) -> str:
    return name.partition("+")[0]


def test_every_type_has_a_golden_file() -> None:
    """A new type needs a new file. A file without a type is an event in old logs that cannot be decoded."""
    assert {name for name in FILES if "+" not in name} == set(EVENT_TYPES)
    assert {type_of(name) for name in FILES} == set(EVENT_TYPES)


@pytest.mark.parametrize("name", FILES)
def test_golden_event_round_trips(name: str) -> None:
    event = CODEC.decode(type_of(name), text(name))
    assert type(event).__name__ == type_of(name)
    assert msgspec.json.decode(CODEC.encode(event)) == msgspec.json.decode(text(name)), "but for key order"
    added = name.partition("+")[2]
    assert not added or getattr(event, added) is not None


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_unknown_key_is_ignored(name: str) -> None:
    more = {**msgspec.json.decode(text(name)), "added_later": {"x": [1]}}
    assert CODEC.decode(name, msgspec.json.encode(more).decode()) == CODEC.decode(name, text(name))


def test_turn_ended_has_every_key_and_null_for_unknown() -> None:
    written = msgspec.json.decode(CODEC.encode(TurnEnded(agent="coder")))
    assert written.pop("agent") == "coder"
    assert list(written) == [name for name in TurnEnded.__struct_fields__ if name != "agent"]
    assert set(written.values()) == {None}


def test_message_has_from_and_to_and_question_has_target() -> None:
    assert '"from":"operator","to":"a"' in text("MessageSent")
    to_operator = QuestionAdded(id=QuestionId(1), asker="a", target=None, question="?")
    assert '"target":null' in CODEC.encode(to_operator)
