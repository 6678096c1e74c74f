"""Every event that was ever written can be read: one file a type, written once and never edited."""

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


def test_every_type_has_a_golden_file_and_every_file_a_type() -> None:
    """A new type needs a new file; a file without a type is an event that old logs hold and nobody can read."""
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(EVENT_TYPES)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_what_was_written_once_is_read_and_written_the_same(name: str) -> None:
    event = CODEC.decode(name, text(name))
    assert type(event).__name__ == name
    assert CODEC.encode(event) == text(name)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_a_key_that_a_newer_hive_added_is_passed_over(name: str) -> None:
    more = {**msgspec.json.decode(text(name)), "added_later": {"x": [1]}}
    assert CODEC.decode(name, msgspec.json.encode(more).decode()) == CODEC.decode(name, text(name))


def test_a_turns_row_has_every_key_and_unknown_is_null() -> None:
    written = msgspec.json.decode(CODEC.encode(TurnEnded(agent="coder")))
    assert written.pop("agent") == "coder"
    assert list(written) == [name for name in TurnEnded.__struct_fields__ if name != "agent"]
    assert set(written.values()) == {None}


def test_a_message_has_from_and_to_and_a_question_its_target() -> None:
    assert '"from":"operator","to":"a"' in text("MessageSent")
    to_operator = QuestionAdded(id=QuestionId(1), asker="a", target=None, question="?")
    assert '"target":null' in CODEC.encode(to_operator)
