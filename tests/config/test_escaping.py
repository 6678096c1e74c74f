"""Escaping of untrusted text for display."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from hive.config.escaping import escaped


@given(st.text() | st.binary())
def test_escaped_text_has_only_visible_characters(text: str | bytes):
    for character in escaped(text):
        assert character in "\n\t" or unicodedata.category(character)[0] in "LMNPSZ"
        assert character not in "\u2028\u2029\u3164\u2800\ufe0f"


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_plain_ascii_is_unchanged(text: str):
    assert escaped(text) == escaped(text.encode()) == text


def test_other_scripts_are_unchanged():
    text = "für Ωμέγα 漢字 ✓ é\n\tend"
    assert escaped(text) == text


def test_escapes_of_control_and_bidirectional_characters():
    assert escaped("\x1b[2K\r\u202e\u2066\ufeff\U000e0041\x7f") == "\\x1b[2K\\x0d\\u202e\\u2066\\ufeff\\U000e0041\\x7f"
    assert escaped(b"a\xffb\xc3\xa9") == "a\\xffbé"
