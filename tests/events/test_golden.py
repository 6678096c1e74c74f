"""Every event that was ever written can be read: one file a type, written once and never edited."""

from pathlib import Path

import pytest

from hive.events import EVENT_TYPES
from hive.events.codec import Codec

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
    more = text(name)[:-1].rstrip("{") + ("," if len(text(name)) > 2 else "") + '"added_later":{"x":[1]}}'
    more = more if more.startswith("{") else "{" + more
    assert CODEC.decode(name, more) == CODEC.decode(name, text(name))


def test_a_turns_row_has_every_key_and_unknown_is_null() -> None:
    event = CODEC.decode("TurnEnded", '{"agent":"coder"}')
    written = CODEC.encode(event)
    for column in ("model", "wake_from", "result_kind", "started_at", "ended_at", "duration_ms", "input_tokens"):
        assert f'"{column}":null' in written
    for column in ("output_tokens", "cache_read_tokens", "cache_creation_tokens", "tool_call_count", "note"):
        assert f'"{column}":null' in written
    for column in ("tool_calls_json", "open_threads_count", "open_reminders_count"):
        assert f'"{column}":null' in written


def test_a_message_has_from_and_to_and_a_question_its_target() -> None:
    assert '"from":"operator"' in text("MessageSent")
    assert '"target":null' in CODEC.encode(
        CODEC.decode("QuestionAdded", '{"id":1,"asker":"a","target":null,"question":"?"}')
    )
