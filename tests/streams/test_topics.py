"""``Topics``: life-cycle news."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from headrace.streams.topics import MAX_SUBSCRIBERS, Topics


def test_subscribers_hear_their_topic_once_ones_only_once() -> None:
    topics, always, first = Topics(), [], []  # type: ignore[var-annotated]
    assert not topics.wanted("engine")
    topics.subscribe("engine", always.append)
    topics.once("engine", first.append)
    assert topics.wanted("engine")
    for state in ("up", "down"):
        topics.publish("engine", {"state": state})
        topics.publish("model", {"state": state})
    assert [news["state"] for news in always] == ["up", "down"]
    assert [news["state"] for news in first] == ["up"]
    assert not topics.wanted("model")


def test_one_that_unsubscribed_hears_nothing_even_if_another_did_it_for_it() -> None:
    topics, heard = Topics(), []  # type: ignore[var-annotated]
    hear = heard.append

    def unsubscribe_it(news: Any) -> None:
        topics.unsubscribe("model", hear)
        topics.unsubscribe("model", hear)

    topics.subscribe("model", unsubscribe_it)
    topics.subscribe("model", hear)
    topics.publish("model", {})
    assert heard == []


def test_a_failing_subscriber_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    topics, heard = Topics(), []  # type: ignore[var-annotated]

    def fail(news: Any) -> None:
        raise RuntimeError("broken subscriber")

    topics.subscribe("generation", fail)
    topics.subscribe("generation", heard.append)
    with caplog.at_level(logging.ERROR):
        topics.publish("generation", {"id": "gen_a"})
    assert heard == [{"id": "gen_a"}]
    assert "broken subscriber" in caplog.text


def test_unknown_topics_and_too_many_subscribers_are_refused() -> None:
    topics = Topics()
    with pytest.raises(ValueError, match="no topic 'weather'"):
        topics.subscribe("weather", print)  # type: ignore[arg-type]
    for number in range(MAX_SUBSCRIBERS):
        topics.subscribe("engine", lambda news, number=number: None)  # type: ignore[misc]
    with pytest.raises(ValueError, match="subscribers already"):
        topics.subscribe("engine", print)
