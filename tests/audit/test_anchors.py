"""The anchor file shows a truncated or rewritten log; damage to the file itself is not a failure of the log."""

from pathlib import Path

import pytest

from hive.audit import anchors
from hive.audit.anchor_check import AnchorComparison, refuse_truncated
from hive.audit.chain import Verification, verify_log
from hive.audit.reading import log_reader
from hive.errors import CorruptState
from hive.events.daemon import Warned
from hive.events.log import EventLog, Head
from hive.paths import Paths

from . import story
from .test_chain import edit

HEAD = len(story.EVENTS)
NOW_MS = story.BEGIN_MS
BEYOND = b'{"seq":9223372036854775808,"hash":"%s","at":"2026-01-31T09:30:00.000Z"}\n' % (b"0" * 64)
"""An impossible position."""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A stopped hive with an anchor at 10 and one at the end."""
    paths = Paths(tmp_path / "state", tmp_path / "run")
    story.write(paths.state)
    for seq in (10, HEAD):
        note(paths, seq)
    return paths


def note(paths: Paths, seq: int) -> None:
    log = EventLog(paths.state)
    found = log.hash_at(seq)
    log.close()
    assert found is not None
    anchors.add(paths.anchors, Head(seq, found), NOW_MS)


def verified(paths: Paths) -> tuple[Verification, AnchorComparison]:
    result = verify_log(paths, lambda _: None)
    return result, next(one for one in result.anchors if one.where == "anchors.jsonl")


def rewrite(paths: Paths, tmp_path: Path, from_seq: int) -> None:
    """Another valid log that is equal up to some event."""
    forged = tmp_path / "forged"
    changed = ("agent:manager", Warned(source="x", text="y"))
    forged.mkdir()
    log = EventLog(forged)
    with log_reader(paths) as reader:
        log.append_verified(list(reader.rows(1, from_seq - 1)))
    story.append(log, [changed, *story.EVENTS[from_seq:]])
    log.close()
    (forged / "events.db").rename(paths.events)


def test_anchors_of_intact_log_agree(paths: Paths) -> None:
    result, comparison = verified(paths)
    assert result.ok
    assert (comparison.state, comparison.anchors, comparison.seq, comparison.note) == ("agrees", 2, HEAD, None)
    assert refuse_truncated(paths) is None
    assert paths.anchors.stat().st_mode & 0o777 == 0o600


def test_truncation_is_detected_by_anchor_file(paths: Paths) -> None:
    edit(paths.events, "DELETE FROM events WHERE seq > 15")
    paths.projections.unlink()
    result, comparison = verified(paths)
    assert (result.ok, result.events, result.bad_seq) == (False, 15, 16)
    assert result.why is not None
    assert "anchors.jsonl has seen events up to 20" in result.why
    assert (comparison.state, comparison.seq) == ("contradicts", 10)
    with pytest.raises(CorruptState, match=r"ends at event 15, not 20 as anchors.jsonl .*hive audit verify.*removing"):
        refuse_truncated(paths)


def test_rewritten_chain_is_detected(paths: Paths, tmp_path: Path) -> None:
    rewrite(paths, tmp_path, 8)
    paths.projections.unlink()
    result, comparison = verified(paths)
    assert (result.ok, result.events, result.bad_seq) == (False, HEAD, 10)
    assert (comparison.state, comparison.seq) == ("contradicts", None)
    with pytest.raises(CorruptState, match="has another event 20"):
        refuse_truncated(paths)


def test_earliest_contradiction_is_reported(paths: Paths, tmp_path: Path) -> None:
    rewrite(paths, tmp_path, 14)
    result, comparison = verified(paths)
    assert result.bad_seq == HEAD
    assert comparison.seq == 10
    assert {one.state for one in result.anchors} == {"contradicts"}


def test_deleted_log_is_not_silently_recreated(paths: Paths) -> None:
    paths.events.unlink()
    with pytest.raises(CorruptState, match="ends at event 0, not 20"):
        refuse_truncated(paths)
    paths.anchors.unlink()
    with pytest.raises(CorruptState, match=r"not 20 as projections\.db has seen it"):
        refuse_truncated(paths)
    paths.projections.unlink()
    assert refuse_truncated(paths) is None


def test_truncation_is_detected_by_projections(paths: Paths) -> None:
    """A start would refold them and lose the recorded position."""
    paths.anchors.unlink()
    edit(paths.events, "DELETE FROM events WHERE seq > 15")
    with pytest.raises(CorruptState, match=r"ends at event 15, not 20 as projections\.db"):
        refuse_truncated(paths)
    paths.projections.write_bytes(b"nothing that counts")
    assert refuse_truncated(paths) is None


def test_log_beyond_its_anchor_is_accepted(paths: Paths) -> None:
    log = EventLog(paths.state)
    story.append(log, [("actor:x", Warned(source="x", text="y"))])
    log.close()
    assert refuse_truncated(paths) is None
    assert verified(paths)[0].ok


def test_broken_log_is_compared_up_to_the_break(paths: Paths) -> None:
    edit(paths.events, "UPDATE events SET data = '{}' WHERE seq = 14")
    result, comparison = verified(paths)
    assert (result.ok, result.bad_seq) == (False, 14)
    assert (comparison.state, comparison.seq) == ("agrees", 10)


def test_missing_anchor_file_is_reported_without_failure(paths: Paths) -> None:
    paths.anchors.unlink()
    result, comparison = verified(paths)
    assert result.ok
    assert comparison.state == "missing"


@pytest.mark.parametrize(
    "damage", [b"garbage\n", b'{"seq":20,"hash":"00","at":"x"}\n', b"\xff\xfe\n", b'{"seq":-1}\n', b"\n", BEYOND]
)
def test_damaged_anchor_line_is_reported_and_skipped(paths: Paths, damage: bytes) -> None:
    first, second = paths.anchors.read_bytes().splitlines(keepends=True)
    paths.anchors.write_bytes(first + damage + second)
    result, comparison = verified(paths)
    assert result.ok
    assert (comparison.state, comparison.anchors, comparison.note) == ("agrees", 2, "damaged lines, not compared: 2")
    said = refuse_truncated(paths)
    assert said is not None
    assert said.endswith("damaged lines, not compared: 2")


def test_unfinished_anchor_line_is_ignored(paths: Paths) -> None:
    whole = paths.anchors.read_bytes()
    paths.anchors.write_bytes(whole + whole.splitlines()[0][:50])
    assert refuse_truncated(paths) is None
    assert verified(paths)[1].note is None
    note(paths, HEAD)
    assert [one.seq for one in anchors.read(paths.anchors).anchors] == [10, HEAD, HEAD]


def test_long_anchor_file_is_thinned(tmp_path: Path) -> None:
    path, sizes = tmp_path / "anchors.jsonl", set()
    count = 3 * anchors.FILE_MAX_BYTES // 100
    for seq in range(1, count + 1):
        anchors.add(path, Head(seq, bytes(32)), NOW_MS)
        sizes.add(path.stat().st_size)
    assert max(sizes) < anchors.FILE_MAX_BYTES + 1_000
    seqs = [one.seq for one in anchors.read(path).anchors]
    assert seqs == sorted(seqs)
    assert (seqs[0] < 100, seqs[-1]) == (True, count)
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600
