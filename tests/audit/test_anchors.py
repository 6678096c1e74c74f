"""The anchor file: it shows a log that was cut or rewritten, and what becomes of it itself is no failure of the log."""

from pathlib import Path

import pytest

from hive.audit import anchors
from hive.audit.chain import Verification, verify_log
from hive.audit.witnesses import Witness, refuse_cut
from hive.errors import CorruptState
from hive.events.daemon import Warned
from hive.events.log import EventLog, Head
from hive.paths import Paths

from . import story
from .test_chain import edit

HEAD = len(story.EVENTS)
NOW_MS = story.BEGIN_MS
BEYOND = b'{"seq":9223372036854775808,"hash":"%s","at":"2026-01-31T09:30:00.000Z"}\n' % (b"0" * 64)
"""A position that no log can have."""


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


def verified(paths: Paths) -> tuple[Verification, Witness]:
    result = verify_log(paths, lambda _: None)
    return result, next(one for one in result.anchors if one.where == "anchors.jsonl")


def rewrite(paths: Paths, tmp_path: Path, from_seq: int) -> None:
    """Another log whose chain holds, the same up to some event."""
    forged = tmp_path / "forged"
    changed = ("agent:manager", Warned(source="x", text="y"))
    story.write(forged, [*story.EVENTS[: from_seq - 1], changed, *story.EVENTS[from_seq:]])
    (forged / "events.db").rename(paths.events)


def test_the_anchors_of_a_sound_log_agree(paths: Paths) -> None:
    result, witness = verified(paths)
    assert result.ok
    assert (witness.state, witness.anchors, witness.seq, witness.note) == ("agrees", 2, HEAD, None)
    assert refuse_cut(paths) is None
    assert paths.anchors.stat().st_mode & 0o777 == 0o600


def test_a_cut_tail_is_seen_without_the_projections_too(paths: Paths) -> None:
    edit(paths.events, "DELETE FROM events WHERE seq > 15")
    paths.projections.unlink()
    result, witness = verified(paths)
    assert (result.ok, result.events, result.bad_seq) == (False, 15, 16)
    assert result.why is not None
    assert "anchors.jsonl has seen events up to 20" in result.why
    assert (witness.state, witness.seq) == ("contradicts", 10)
    with pytest.raises(CorruptState, match=r"ends at event 15, not 20 as anchors.jsonl .*hive audit verify.*removing"):
        refuse_cut(paths)


def test_a_chain_made_anew_is_seen(paths: Paths, tmp_path: Path) -> None:
    rewrite(paths, tmp_path, 8)
    paths.projections.unlink()
    result, witness = verified(paths)
    assert (result.ok, result.events, result.bad_seq) == (False, HEAD, 10)
    assert (witness.state, witness.seq) == ("contradicts", None)
    with pytest.raises(CorruptState, match="has another event 20"):
        refuse_cut(paths)


def test_what_both_see_is_named_by_its_first_event(paths: Paths, tmp_path: Path) -> None:
    rewrite(paths, tmp_path, 14)
    result, witness = verified(paths)
    assert result.bad_seq == HEAD
    assert witness.seq == 10
    assert {one.state for one in result.anchors} == {"contradicts"}


def test_a_log_that_is_gone_is_not_begun_anew_in_silence(paths: Paths) -> None:
    paths.events.unlink()
    with pytest.raises(CorruptState, match="ends at event 0, not 20"):
        refuse_cut(paths)
    paths.anchors.unlink()
    with pytest.raises(CorruptState, match=r"not 20 as projections\.db has seen it"):
        refuse_cut(paths)
    paths.projections.unlink()
    assert refuse_cut(paths) is None


def test_a_cut_log_is_not_gone_on_with_where_only_the_projections_have_seen_it(paths: Paths) -> None:
    """They would be folded anew, and what they had seen would be gone."""
    paths.anchors.unlink()
    edit(paths.events, "DELETE FROM events WHERE seq > 15")
    with pytest.raises(CorruptState, match=r"ends at event 15, not 20 as projections\.db"):
        refuse_cut(paths)
    paths.projections.write_bytes(b"nothing that counts")
    assert refuse_cut(paths) is None


def test_a_log_that_went_on_after_its_anchor_is_sound(paths: Paths) -> None:
    log = EventLog(paths.state)
    story.append(log, [("actor:x", Warned(source="x", text="y"))])
    log.close()
    assert refuse_cut(paths) is None
    assert verified(paths)[0].ok


def test_a_log_that_is_broken_is_compared_as_far_as_it_holds(paths: Paths) -> None:
    edit(paths.events, "UPDATE events SET data = '{}' WHERE seq = 14")
    result, witness = verified(paths)
    assert (result.ok, result.bad_seq) == (False, 14)
    assert (witness.state, witness.seq) == ("agrees", 10)


def test_a_missing_file_is_said_and_no_failure(paths: Paths) -> None:
    paths.anchors.unlink()
    result, witness = verified(paths)
    assert result.ok
    assert witness.state == "missing"


@pytest.mark.parametrize(
    "damage", [b"garbage\n", b'{"seq":20,"hash":"00","at":"x"}\n', b"\xff\xfe\n", b'{"seq":-1}\n', b"\n", BEYOND]
)
def test_a_damaged_line_is_said_and_the_others_count(paths: Paths, damage: bytes) -> None:
    first, second = paths.anchors.read_bytes().splitlines(keepends=True)
    paths.anchors.write_bytes(first + damage + second)
    result, witness = verified(paths)
    assert result.ok
    assert (witness.state, witness.anchors, witness.note) == ("agrees", 2, "damaged lines, not compared: 2")
    said = refuse_cut(paths)
    assert said is not None
    assert said.endswith("damaged lines, not compared: 2")


def test_a_line_whose_writer_died_is_none_and_spoils_no_other(paths: Paths) -> None:
    whole = paths.anchors.read_bytes()
    paths.anchors.write_bytes(whole + whole.splitlines()[0][:50])
    assert refuse_cut(paths) is None
    assert verified(paths)[1].note is None
    note(paths, HEAD)
    assert [one.seq for one in anchors.read(paths.anchors).anchors] == [10, HEAD, HEAD]


def test_a_long_file_is_thinned_and_keeps_its_span(tmp_path: Path) -> None:
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
