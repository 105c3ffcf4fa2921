from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.engines.token_gap import TokenGaps

SINGLE = {bytes([byte]): 1000 + byte for byte in range(0x80, 0x100)}
VOCABULARY = {
    **SINGLE,
    b"\xf0\x9f": 1,
    b" \xf0\x9f": 2,
    b"\xf0\x9f\x9a": 3,
    b"\x80!": 4,
    b"\x80\xf0\x9f": 5,
}
ROCKET = "🚀".encode()  # f0 9f 9a 80


def find(text, last, missing, at=0):
    return TokenGaps(VOCABULARY).find(text.encode(), at, last, missing)


def test_a_character_of_three_tokens_is_split():
    assert find("🚀", 1000 + 0x80, 2) == ((1, 1000 + 0x9A), 4)


def test_the_number_of_missing_tokens_decides_between_splits():
    assert find("🚀", 1000 + 0x80, 1) == ((3,), 4)
    assert find("🚀", 1000 + 0x80, 3) == ((1000 + 0xF0, 1000 + 0x9F, 1000 + 0x9A), 4)


def test_tokens_may_reach_over_the_characters_bounds():
    assert find(" 🚀!", 4, 2) == ((2, 1000 + 0x9A), 6)


def test_text_of_earlier_tokens_may_stand_before():
    assert find("held 🚀", 1000 + 0x80, 2) == ((1, 1000 + 0x9A), 9)


def test_the_search_begins_where_the_token_before_ended():
    assert find("🚀🚀", 1000 + 0x80, 2, at=4) == ((1, 1000 + 0x9A), 8)


def test_broken_bytes_are_spelled_as_they_were_delivered():
    ids, end = find("\N{REPLACEMENT CHARACTER} a", 77, 1)
    assert (ids, end) == ((1000 + 0xEF, 1000 + 0xBF, 1000 + 0xBD), 3)


def test_without_a_vocabulary_nothing_is_found():
    assert TokenGaps({}).find(ROCKET, 0, 5, 2) == ((), 0)


@given(st.text(min_size=1, max_size=6), st.data())
def test_what_is_found_spells_the_text(text, data):
    """Cut a text's bytes into partial tokens, leave out all but the last, and find them again."""
    raw = text.encode()
    places = data.draw(st.lists(st.integers(1, max(1, len(raw) - 1)), max_size=4, unique=True))
    pieces = [
        raw[a:b] for a, b in zip([0, *sorted(places)], [*sorted(places), len(raw)], strict=True)
    ]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    ids = [vocabulary[piece] for piece in pieces]
    spelled = dict(map(reversed, vocabulary.items()))
    found, end = TokenGaps(vocabulary).find(raw, 0, ids[-1], len(ids) - 1)
    if found:
        assert len(found) == len(ids) - 1
        assert b"".join(spelled[one] for one in (*found, ids[-1])) in raw[:end]
