"""No kill loses an event or repeats one. The long campaign is ``make kill-test``."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.kill.arena import log_faults
from tests.kill.campaign import campaign


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_witnesses_see_every_event_once_however_the_server_dies() -> None:
    seed = random.SystemRandom().randint(1, 10**6)
    assert campaign(kills=16, seed=seed) == []


def _log(texts: list[str]) -> list[dict[str, Any]]:
    tokens = [
        {"seq": place, "type": "token", "payload": {"text": text}}
        for place, text in enumerate(texts, 1)
    ]
    return [*tokens, {"seq": len(texts) + 1, "type": "finish", "payload": {}}]


def test_the_comparison_finds_a_lost_a_repeated_and_a_changed_event() -> None:
    whole = _log(["a", "b", "c"])
    assert log_faults(whole, "abc") == []
    assert log_faults(whole[:1] + whole[2:], "abc")
    assert log_faults(whole[:2] + whole[1:], "abc")
    assert log_faults(whole, "abd")
    assert log_faults(whole[:-1], "abc")
