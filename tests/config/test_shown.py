"""Nothing that a stranger writes can hide or move what stands beside it."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from hive.config.shown import shown


@given(st.text() | st.binary())
def test_only_plain_visible_characters_are_left(text: str | bytes):
    for character in shown(text):
        assert character in "\n\t" or unicodedata.category(character)[0] in "LMNPSZ"
        assert character not in "\u2028\u2029\u3164\u2800\ufe0f"


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_plain_text_is_left_as_it_is(text: str):
    assert shown(text) == shown(text.encode()) == text


def test_other_scripts_stay_readable():
    text = "für Ωμέγα 漢字 ✓ é\n\tend"
    assert shown(text) == text


def test_what_is_escaped_and_how():
    assert shown("\x1b[2K\r\u202e\u2066\ufeff\U000e0041\x7f") == "\\x1b[2K\\x0d\\u202e\\u2066\\ufeff\\U000e0041\\x7f"
    assert shown(b"a\xffb\xc3\xa9") == "a\\xffbé"
