"""Topics: life-cycle news for whoever looks at the server as a whole (telemetry, the dashboard).

Not the log: nothing here is stored or replayed, and who subscribes late has missed what was before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, get_args

Topic = Literal["generation", "engine", "model"]
"""``generation``: admitted, ended. ``engine``: up, down. ``model``: loaded, unloaded."""
News = Mapping[str, Any]
Subscriber = Callable[[News], None]

MAX_SUBSCRIBERS = 1000
"""Subscribers of one topic; more are refused."""

_logger = logging.getLogger("headrace.streams")


class Topics:
    """Subscribers by topic, called in the order they came. On the event loop thread only."""

    def __init__(self) -> None:
        # topic -> subscriber -> whether it is for one time only
        self._subscribers: dict[str, dict[Subscriber, bool]] = {
            topic: {} for topic in get_args(Topic)
        }

    def subscribe(self, topic: Topic, subscriber: Subscriber) -> None:
        """Call ``subscriber`` with all news of ``topic``; twice is once. Raises ``ValueError`` for an
        unknown topic and above ``MAX_SUBSCRIBERS``."""
        self._add(topic, subscriber, once=False)

    def once(self, topic: Topic, subscriber: Subscriber) -> None:
        """Like :meth:`subscribe`, for the next news only."""
        self._add(topic, subscriber, once=True)

    def unsubscribe(self, topic: Topic, subscriber: Subscriber) -> None:
        """Call no more; idempotent."""
        self._subscribers[topic].pop(subscriber, None)

    def wanted(self, topic: Topic) -> bool:
        """Whether anybody listens, so that news need not be made for nobody."""
        return bool(self._subscribers[topic])

    def subscribers(self, topic: Topic) -> Collection[Subscriber]:
        """Who listens, now and later: for who asks often whether anybody does."""
        return self._subscribers[topic].keys()

    def publish(self, topic: Topic, news: News) -> None:
        """Tell all subscribers of ``topic``. One that fails is logged; it harms nobody else."""
        subscribers = self._subscribers[topic]
        for subscriber, once in tuple(subscribers.items()):
            if subscriber not in subscribers:
                continue  # an earlier one unsubscribed it
            if once:
                del subscribers[subscriber]
            try:
                subscriber(news)
            except Exception:
                _logger.exception("a subscriber of topic %r failed", topic)

    def _add(self, topic: Topic, subscriber: Subscriber, *, once: bool) -> None:
        subscribers = self._subscribers.get(topic)
        if subscribers is None:
            raise ValueError(f"there is no topic {topic!r}; topics: {', '.join(self._subscribers)}")
        if len(subscribers) >= MAX_SUBSCRIBERS and subscriber not in subscribers:
            raise ValueError(f"topic {topic!r} has {MAX_SUBSCRIBERS} subscribers already")
        subscribers[subscriber] = once
