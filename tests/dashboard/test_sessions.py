"""Sessions, login links and wrong tokens, with a manual clock."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hive.errors import LimitReached
from hive.sockets.sessions import (
    FAILURE_WINDOW_MS,
    FAILURES_MAX,
    IDLE_MAX_MS,
    LINK_MAX_MS,
    SESSION_MAX_MS,
    SESSIONS_MAX,
    Sessions,
    SignedOut,
    hashed,
)

START_MS = 1_800_000_000_000


class SetClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = START_MS

    def now_ms(self) -> int:
        return self.now

    def call_at(self, _at: int, _then: Callable[[], object]) -> Callable[[], None]:
        raise AssertionError("nothing here waits")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def sessions(tmp_path: Path, clock: SetClock) -> Sessions:
    return Sessions(tmp_path / "sessions.json", clock)


def test_session_belongs_to_its_opener(sessions: Sessions) -> None:
    secret = sessions.open("mara", "a" * 64)
    assert sessions.holder(secret).name == "mara"
    for other in (None, "", "x", secret + "x", hashed(secret)):
        with pytest.raises(SignedOut):
            sessions.holder(other)


def test_idle_session_expires(sessions: Sessions, clock: SetClock) -> None:
    secret = sessions.open("mara", None)
    clock.now += IDLE_MAX_MS - 1
    sessions.holder(secret)
    clock.now += IDLE_MAX_MS - 1
    sessions.holder(secret, background=True)
    clock.now += 1
    with pytest.raises(SignedOut):
        sessions.holder(secret)


def test_session_expires_at_its_maximum_age(sessions: Sessions, clock: SetClock) -> None:
    secret = sessions.open("mara", None)
    while clock.now + IDLE_MAX_MS // 2 < START_MS + SESSION_MAX_MS:
        clock.now += IDLE_MAX_MS // 2
        sessions.holder(secret)
    clock.now = START_MS + SESSION_MAX_MS
    with pytest.raises(SignedOut):
        sessions.holder(secret)


def test_sign_out_everywhere_ends_all_sessions_of_the_operator(sessions: Sessions) -> None:
    first, second, other = sessions.open("mara", None), sessions.open("mara", None), sessions.open("noor", None)
    hung_up: list[str] = []
    sessions.on_end(sessions.holder(second), lambda: hung_up.append("second"))
    assert sessions.close_all("mara") == 2
    assert hung_up == ["second"]
    for secret in (first, second):
        with pytest.raises(SignedOut):
            sessions.holder(secret)
    assert sessions.holder(other).name == "noor"


def test_sessions_survive_a_restart_and_their_file_holds_no_secret(tmp_path: Path, clock: SetClock) -> None:
    path = tmp_path / "sessions.json"
    before = Sessions(path, clock)
    kept, revoked = before.open("mara", "a" * 64), before.open("noor", "b" * 64)
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept not in path.read_text()
    after = Sessions(path, clock)
    after.forget_unknown(frozenset({"a" * 64}))
    assert after.holder(kept).name == "mara"
    with pytest.raises(SignedOut):
        after.holder(revoked)


def test_damaged_session_file_ends_all_sessions(tmp_path: Path, clock: SetClock) -> None:
    path = tmp_path / "sessions.json"
    path.write_text("{")
    with pytest.raises(SignedOut):
        Sessions(path, clock).holder("x")


def test_session_limit_ends_the_oldest(sessions: Sessions, clock: SetClock) -> None:
    first = sessions.open("mara", None)
    for _ in range(SESSIONS_MAX):
        clock.now += 1
        sessions.open("mara", None)
    assert sessions.count("mara") == SESSIONS_MAX
    with pytest.raises(SignedOut):
        sessions.holder(first)


def test_login_link_works_once_and_expires(sessions: Sessions, clock: SetClock) -> None:
    secret = sessions.new_link("mara")
    assert sessions.take_link(secret) == "mara"
    assert sessions.take_link(secret) is None
    late = sessions.new_link("mara")
    clock.now += LINK_MAX_MS + 1
    assert sessions.take_link(late) is None


def test_wrong_tokens_are_limited_per_source(sessions: Sessions, clock: SetClock) -> None:
    for _ in range(FAILURES_MAX):
        sessions.refuse_flood("here")
        sessions.note_failure("here")
    with pytest.raises(LimitReached):
        sessions.refuse_flood("here")
    sessions.refuse_flood("there")
    clock.now += FAILURE_WINDOW_MS + 1
    sessions.refuse_flood("here")
