"""What is shown has exactly its own ids, whatever is held back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.engines.spoken import Spoken

TEXTS = {1: "a", 2: "b", 3: "ab", 4: "", 5: "é", 6: "c"}


def shown_of(
    tokens: list[int], stops: tuple[str, ...]
) -> tuple[list[tuple[str, tuple[int, ...]]], Spoken]:
    spoken = Spoken(TEXTS.__getitem__, stops)
    shown = []
    for token in tokens:
        shown.append(spoken.feed(token))
        if spoken.found is not None:
            return shown, spoken
    return [*shown, spoken.rest()], spoken


@given(
    tokens=st.lists(st.sampled_from(sorted(TEXTS)), max_size=12),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_nothing_is_lost_and_ids_are_those_of_the_text(
    tokens: list[int], stops: tuple[str, ...]
) -> None:
    shown, spoken = shown_of(tokens, stops)
    text = "".join(piece for piece, _ in shown)
    ids = [token for _, piece in shown for token in piece]
    whole, places = "", list[int]()
    for token in tokens:
        if not places:  # the first that comes ends it, though a longer one may have begun before
            whole += TEXTS[token]
            places = [whole.find(stop) for stop in stops if stop in whole]
    assert text == (whole[: min(places)] if places else whole)
    assert (spoken.found is not None) == bool(places)
    assert ids == tokens[: len(ids)]
    for at in range(len(shown) - bool(places)):  # who goes on from here goes on from this text
        so_far = "".join(piece for piece, _ in shown[: at + 1])
        assert so_far == "".join(TEXTS[one] for _, some in shown[: at + 1] for one in some)


def test_a_part_of_a_character_waits_for_the_rest() -> None:
    assert shown_of([4, 5, 4], ())[0] == [("", ()), ("é", (4, 5)), ("", ()), ("", (4,))]
