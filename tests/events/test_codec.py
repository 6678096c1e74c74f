"""Upcasting of older event versions, with event types defined in this test."""

from typing import Any, ClassVar

import pytest

from hive.errors import CorruptState
from hive.events.base import Event
from hive.events.codec import Codec


class Planted(Event, frozen=True, kw_only=True):
    """Version 3. Version 1 had `tree`, version 2 `kind`; version 3 has `kind` and `height_mm`."""

    version: ClassVar[int] = 3
    kind: str
    height_mm: int


class Watered(Event, frozen=True, kw_only=True):
    """Version 1 with a later field that has a default."""

    litres: int
    by_hand: bool = True


def named(fields: dict[str, Any]) -> dict[str, Any]:
    return {"kind": fields.pop("tree"), **fields}


def measured(fields: dict[str, Any]) -> dict[str, Any]:
    return {"height_mm": fields.pop("height_cm", 0) * 10, **fields}


CODEC = Codec({"Planted": Planted, "Watered": Watered}, {("Planted", 1): named, ("Planted", 2): measured})
OAK = Planted(kind="oak", height_mm=120)


@pytest.mark.parametrize(
    "data",
    [
        '{"tree":"oak","height_cm":12}',
        '{"_v":1,"tree":"oak","height_cm":12}',
        '{"_v":2,"kind":"oak","height_cm":12}',
        '{"_v":3,"kind":"oak","height_mm":120}',
    ],
)
def test_every_stored_version_of_an_event_is_decoded(data: str) -> None:
    assert CODEC.decode("Planted", data) == OAK


def test_event_is_encoded_in_newest_version_with_version_key() -> None:
    assert CODEC.encode(OAK) == '{"_v":3,"kind":"oak","height_mm":120}'
    assert CODEC.decode("Planted", CODEC.encode(OAK)) == OAK


def test_first_version_has_no_version_key_and_omits_defaults() -> None:
    assert CODEC.encode(Watered(litres=3)) == '{"litres":3}'
    assert CODEC.encode(Watered(litres=3, by_hand=False)) == '{"litres":3,"by_hand":false}'
    assert CODEC.decode("Watered", '{"litres":3}') == Watered(litres=3)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("Felled", "{}", "'Felled'"),
        ("Planted", '{"_v":4,"kind":"oak"}', "version 4"),
        ("Planted", '{"_v":3,"kind":"oak"}', "height_mm"),
        ("Planted", '{"_v":2', "Planted"),
        ("Watered", '{"litres":"many"}', "litres"),
        ("Watered", "[]", "Watered"),
        ("Watered", "", "Watered"),
    ],
)
def test_undecodable_row_raises_corrupt_state(name: str, data: str, says: str) -> None:
    with pytest.raises(CorruptState, match="The log holds") as refusal:
        CODEC.decode(name, data)
    assert says in str(refusal.value)
