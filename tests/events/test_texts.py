"""Which fields of events are text, and what is left when they are erased."""

import msgspec
import pytest

from hive.events import EVENT_TYPES
from hive.events.texts import ERASED, TEXT_FIELDS, erased_data, texts_of

TEXT_LIKE = frozenset({"body", "text", "question", "options", "answer", "message", "note", "error", "description"})
"""Field names that stand for something somebody wrote."""


def test_every_text_field_of_an_event_is_known() -> None:
    """An event with such a field and no entry in `TEXT_FIELDS` could never be erased."""
    fields = {
        (name, field.encode_name)
        for name, cls in EVENT_TYPES.items()
        for field in msgspec.structs.fields(cls)
        if field.encode_name in TEXT_LIKE
    }
    assert fields <= {(name, field) for name, known in TEXT_FIELDS.items() for field in known}
    assert set(TEXT_FIELDS) <= set(EVENT_TYPES)


NOTICE = msgspec.json.encode(
    {"event": "operator_answered", "id": 7, "question": "Which key?", "answer": "sk-1", "answerer": "operator"}
).decode()


@pytest.mark.parametrize(
    ("type_", "data", "left", "texts"),
    [
        ("MessageSent", {"id": 1, "from": "a", "to": "b", "body": "x"}, {"body": ERASED}, ["x"]),
        (
            "MessageSent",
            {"id": 1, "from": "system", "to": "b", "body": NOTICE},
            {"body": NOTICE.replace("Which key?", ERASED).replace("sk-1", ERASED)},
            ["Which key?", "sk-1"],
        ),
        ("MessageSent", {"id": 1, "from": "a", "to": "b", "body": NOTICE}, {"body": ERASED}, [NOTICE]),
        ("MessageSent", {"id": 1, "from": "system", "to": "b", "body": "plain"}, {"body": ERASED}, ["plain"]),
        (
            "QuestionAdded",
            {"id": 1, "asker": "a", "target": None, "question": "?", "options": ["A", "B"]},
            {"question": ERASED, "options": [ERASED, ERASED]},
            ["?", "A", "B"],
        ),
        ("QuestionResolved", {"id": 1, "answer": "[expired]"}, {}, []),
        ("ApprovalRequested", {"id": 1, "description": None}, {}, []),
        ("CommandKeyed", {"key": "k", "first_seq": 8, "count": 1}, {"key": "[erased] 8"}, ["k"]),
        ("Started", {"agent": "a"}, {}, []),
    ],
)
def test_texts_are_replaced_and_everything_else_stays(
    type_: str, data: dict[str, object], left: dict[str, object], texts: list[str]
) -> None:
    text = msgspec.json.encode(data).decode()
    assert msgspec.json.decode(erased_data(type_, text)) == {**data, **left}
    assert list(texts_of(type_, text)) == texts
    assert erased_data(type_, erased_data(type_, text)) == erased_data(type_, text)
