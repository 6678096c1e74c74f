"""An exported log imports as an equal log; anything else is refused."""

import io
import json
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.audit import anchors
from hive.audit.chain import verify_log
from hive.audit.reading import log_reader
from hive.audit.transfer import UNDER_WAY_NAME, export, import_log
from hive.errors import BadRequest, CorruptState, HiveError, Refused
from hive.events.base import MessageId
from hive.events.chain import GENESIS, Head, chained, content_hash
from hive.events.codec import Codec
from hive.events.daemon import Warned
from hive.events.log import EventLog
from hive.events.messages import MessageSent
from hive.paths import Paths

from . import story
from .test_chain import edit

HEAD = len(story.EVENTS)
ODD = [
    "",
    "\u202e\u2066bidi\u2069",
    "\x00\x1b[31m\x7f\x9b\u2028\ufeff",
    '"\\ / \b\f\n\r\t',
    "ü 👍 e\u0301 \ud7ff\ue000\U0010ffff",
    '{"_v": 2}',
    "</script>",
]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    story.write(tmp_path / "state")
    return Paths(tmp_path / "state", tmp_path / "run")


@pytest.fixture
def other(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "other", tmp_path / "run")


def exported(paths: Paths) -> bytes:
    out = io.BytesIO()
    with log_reader(paths) as reader:
        head = export(reader, out, lambda _: None)
        assert head == reader.head()
    return out.getvalue()


def imported(paths: Paths, lines: bytes, head: str | None = None) -> Head:
    return import_log(paths, io.BytesIO(lines), story.BEGIN_MS, lambda _: None, head)


def rows(paths: Paths) -> list[object]:
    with log_reader(paths) as reader:
        return list(reader.rows(1))


def messages(state: Path, bodies: list[str]) -> None:
    story.write(
        state,
        [
            ("operator:mära uid=0 way=cli", MessageSent(id=MessageId(id), sender="operator", to="coder", body=body))
            for id, body in enumerate(bodies, 1)
        ],
    )


def test_imported_log_equals_exported_log(paths: Paths, other: Paths) -> None:
    lines = exported(paths)
    head = imported(other, lines)
    assert rows(other) == rows(paths)
    assert exported(other) == lines
    result = verify_log(other, lambda _: None)
    assert (result.ok, result.events, result.head) == (True, HEAD, head.hash.hex())
    assert [one.seq for one in anchors.read(other.anchors).anchors] == [HEAD]
    assert sorted(path.name for path in other.state.iterdir()) == ["anchors.jsonl", "daemon.lock", "events.db"]
    assert stat.S_IMODE(other.events.stat().st_mode) == 0o600


def test_exported_line_has_fixed_key_order(paths: Paths) -> None:
    with log_reader(paths) as reader:
        for line, row in zip(exported(paths).splitlines(), reader.rows(1), strict=True):
            found = json.loads(line)
            assert list(found) == ["seq", "at", "type", "data", "by", "hash", "salt"]
            assert f'"data":{row.data},"by"'.encode() in line, "the very text that is hashed"


def test_unusual_text_keeps_its_hash(tmp_path: Path, other: Paths) -> None:
    messages(tmp_path / "state", ODD)
    paths = Paths(tmp_path / "state", tmp_path)
    imported(other, exported(paths))
    assert rows(other) == rows(paths)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_text_keeps_its_hash(tmp_path_factory: pytest.TempPathFactory, bodies: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    messages(folder / "state", bodies)
    paths, other = Paths(folder / "state", folder), Paths(folder / "other", folder)
    imported(other, exported(paths))
    assert rows(other) == rows(paths)


def test_older_event_version_keeps_its_text(tmp_path: Path, other: Paths) -> None:
    """Text of an older hive stays unchanged: spaces, key order, removed fields."""
    state = tmp_path / "state"
    state.mkdir()
    log = EventLog(state)
    data = '{ "text" : "\\u0079",\t"gone": 1.50e+2, "source":"x" }'
    log.append([("2026-01-31T09:30:00.000Z", "Warned", data, "actor:x")])
    log.close()
    imported(other, exported(Paths(state, state)))
    assert rows(other) == rows(Paths(state, state))


@pytest.mark.parametrize("dump", [{"ensure_ascii": True}, {"ensure_ascii": False, "separators": (" ,", " : ")}])
def test_reformatted_lines_are_imported(tmp_path: Path, other: Paths, dump: dict[str, object]) -> None:
    messages(tmp_path / "state", ODD)
    paths = Paths(tmp_path / "state", tmp_path)
    lines = b"".join(json.dumps(json.loads(line), **dump).encode() + b"\n" for line in exported(paths).splitlines())  # type: ignore[arg-type]
    assert lines != exported(paths)
    imported(other, lines)
    assert rows(other) == rows(paths)


def changed(number: int, change: Callable[[dict[str, object]], object]) -> Callable[[list[bytes]], list[bytes]]:
    """One line, decoded, changed and encoded again."""

    def edited(lines: list[bytes]) -> list[bytes]:
        row = json.loads(lines[number - 1])
        change(row)
        return [*lines[: number - 1], msgspec.json.encode(row) + b"\n", *lines[number:]]

    return edited


def forged(lines: list[bytes]) -> list[bytes]:
    """An unknown first event with a valid hash."""
    at, data, by = "2026-01-31T09:30:00.000Z", "{}", "actor:x"
    salt = b"\0" * 8
    hash_ = chained(GENESIS, 1, at, "FromTheFuture", by, content_hash(salt, data)).hex()
    row = {"seq": 1, "at": at, "type": "FromTheFuture", "data": {}, "by": by, "hash": hash_, "salt": salt.hex()}
    return [msgspec.json.encode(row) + b"\n"]


@pytest.mark.parametrize(
    ("edited", "said"),
    [
        (lambda lines: lines[1:], r"Line 1 holds event 2: lines are missing"),
        (lambda lines: [*lines[:6], *lines[7:]], r"Line 7 holds event 8"),
        (lambda lines: [*lines[:6], lines[5], *lines[6:]], r"Line 7 holds event 6"),
        (lambda lines: [*lines[:-1], lines[-1][:-1]], r"Line 20 has no end: the file was cut there"),
        (lambda lines: [*lines[:-1], lines[-1][:40]], r"Line 20 has no end"),
        (lambda lines: [], r"There is no event in it"),
        (lambda lines: [*lines[:3], b"\n", *lines[3:]], r"Line 4 is no event"),
        (lambda lines: [*lines[:3], b"\xff\xfe\n"], r"Line 4 is no event"),
        (lambda lines: [*lines[:3], b"[1, 2]\n"], r"Line 4 is no event"),
        (lambda lines: [b"SQLite format 3\0\n"], r"Line 1 is no event"),
        (lambda lines: [lines[0].replace(b'"data":{', b'"data":' + b"[" * 100_000 + b"{")], r"Line 1 is no event"),
        (lambda lines: [lines[0].replace(b'"seq":1', b'"seq":' + b"9" * 5_000)], r"Line 1 (is no event|holds event)"),
        (lambda lines: [lines[0].replace(b'"seq":1', b'"seq":1.0')], r"Line 1"),
        (changed(5, lambda row: row.pop("by")), r"Line 5 is no event .*`by`"),
        (changed(5, lambda row: row.update(hash="xy")), r"Line 5 is no event"),
        (changed(5, lambda row: row.update(hash="00" * 32)), r"Line 5: event 5 does not match its hash"),
        (changed(5, lambda row: row.update(at="2026-01-31T09:30:00.001Z")), r"Line 5: event 5 does not match"),
        (changed(5, lambda row: row.update(at="noon")), r"Line 5 is no event .*is not a time"),
        (changed(5, lambda row: row.update(type="Killed")), r"Line 5: event 5 does not match"),
        (changed(5, lambda row: row.update(by="operator:eve")), r"Line 5: event 5 does not match"),
        (changed(5, lambda row: row.update(salt="00" * 8)), r"Line 5: event 5 does not match"),
        (changed(5, lambda row: row.pop("salt")), r"Line 5: event 5 does not match"),
        (changed(5, lambda row: row.update(content="00" * 32)), r"Line 5: event 5 does not match"),
        (changed(11, lambda row: row["data"].update(body="x")), r"Line 11: event 11 does not match"),  # type: ignore[attr-defined]
        (forged, r"Line 1: .*'FromTheFuture', which this hive does not know.*use the hive that wrote it"),
    ],
)
def test_invalid_line_is_refused_with_its_number(
    paths: Paths, other: Paths, edited: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    lines = edited(exported(paths).splitlines(keepends=True))
    with pytest.raises(BadRequest, match=said):
        imported(other, b"".join(lines))
    assert [path.name for path in other.state.iterdir()] == ["daemon.lock"]
    assert imported(other, exported(paths)).seq == HEAD, "what failed is in nobody's way"


def test_missing_last_lines_are_detected_by_head(paths: Paths, other: Paths) -> None:
    lines = exported(paths).splitlines(keepends=True)
    head = json.loads(lines[-1])["hash"]
    with pytest.raises(BadRequest, match="not the head you gave"):
        imported(other, b"".join(lines[:-1]), head)
    assert not other.events.exists()
    assert imported(other, b"".join(lines), head.upper()).seq == HEAD


@pytest.mark.parametrize("name", ["events.db", "projections.db", "agents", "notes.txt"])
def test_used_folder_is_refused_and_unchanged(paths: Paths, other: Paths, name: str) -> None:
    other.state.mkdir()
    (other.state / name).write_text("precious")
    with pytest.raises(Refused, match=rf"is not empty, it holds {name}"):
        imported(other, exported(paths))
    assert (other.state / name).read_text() == "precious"
    assert not (other.state / UNDER_WAY_NAME).exists()


def test_settings_and_killed_import_do_not_block_import(paths: Paths, other: Paths) -> None:
    (other.state / UNDER_WAY_NAME).mkdir(parents=True)
    (other.state / UNDER_WAY_NAME / "events.db").write_text("half")
    other.settings.write_text("")
    assert imported(other, exported(paths)).seq == HEAD
    assert not (other.state / UNDER_WAY_NAME).exists()


def test_concurrent_import_is_refused(paths: Paths, other: Paths) -> None:
    class Second(io.BytesIO):
        """Lines that start a second import into the same folder halfway."""

        def readline(self, size: int | None = -1, /) -> bytes:
            with pytest.raises(CorruptState, match="already runs"):
                imported(other, exported(paths))
            return super().readline(size)

    lines = exported(paths).splitlines(keepends=True)[0]
    assert import_log(other, Second(lines), story.BEGIN_MS, lambda _: None).seq == 1


def test_broken_log_is_exported_up_to_the_break(paths: Paths) -> None:
    edit(paths.events, "UPDATE events SET data = '{}' WHERE seq = 7")
    out = io.BytesIO()
    with log_reader(paths) as reader, pytest.raises(HiveError, match="Event 7 does not match its hash"):
        export(reader, out, lambda _: None)
    assert len(out.getvalue().splitlines()) == 6


def test_log_with_gap_is_not_exported(paths: Paths) -> None:
    edit(paths.events, "DELETE FROM events WHERE seq = 7")
    with log_reader(paths) as reader, pytest.raises(HiveError, match="Event 7 is missing"):
        export(reader, io.BytesIO(), lambda _: None)


def test_import_spans_many_commits(tmp_path: Path, other: Paths) -> None:
    story.write(tmp_path / "state", [("actor:x", Warned(source="x", text="y"))] * 4_500)
    paths = Paths(tmp_path / "state", tmp_path)
    told: list[int] = []
    lines = exported(paths)
    import_log(other, io.BytesIO(lines), story.BEGIN_MS, told.append)
    assert rows(other) == rows(paths)
    assert told == sorted(told)
    assert told[-1] == len(lines)
    with log_reader(other) as reader:
        assert Codec().decode("Warned", next(iter(reader.rows(4_500))).data) == Warned(source="x", text="y")
