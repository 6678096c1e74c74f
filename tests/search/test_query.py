"""What somebody types becomes a query in which nothing is an operator."""

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive.errors import BadRequest
from hive.search.query import Query


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("parser", '"parser"'),
        ("parser error", '"parser" AND "error"'),
        ('"parser error" fix', '"parser error" AND "fix"'),
        ("pars*", '"pars" *'),
        ("sk-leaked", '"sk leaked"'),
        ('un"closed', '"un closed"'),
        ("a AND NOT b OR (c)", '"a" AND "AND" AND "NOT" AND "b" AND "OR" AND "c"'),
    ],
)
def test_words_and_phrases_are_quoted(text: str, match: str) -> None:
    assert Query.parsed(text).match() == match


@pytest.mark.parametrize("text", ["", "   ", '""', "*", "-", "x" * 501])
def test_query_without_a_word_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        Query.parsed(text)


@given(st.text(max_size=200))
def test_any_text_is_a_valid_query_or_refused(text: str) -> None:
    db = apsw.Connection(":memory:")
    db.execute("CREATE VIRTUAL TABLE words USING fts5(text, content='', contentless_delete=1)")
    try:
        query = Query.parsed(text)
    except BadRequest:
        return
    db.execute("SELECT rowid FROM words WHERE words MATCH ?", (query.match(),)).fetchall()


def test_snippet_is_cut_around_the_match() -> None:
    text = "before " * 100 + "the parser\nfails here" + " after" * 100
    snippet = Query.parsed("PARSER").snippet(text, 60)
    assert "the parser fails here" in snippet
    assert snippet.startswith("…")
    assert snippet.endswith("…")
    assert len(snippet) == 62
    assert Query.parsed("short").snippet("a short text", 60) == "a short text"
