"""Faust's conductor, for apps that add topics while they run."""

from __future__ import annotations

from typing import Any

from faust.transport import base


class Conductor(base.Conductor):
    """Takes up new topics soon: here a subscription concerns nobody else, so there is no need to collect
    changes for 45 s.
    """

    _resubscribe_sleep_lock_seconds = 0.2

    def notice_missed(self) -> None:
        """Faust forgets a topic that was added while it rebalanced (faust 0.15.3,
        transport/conductor.py:267).
        """
        topics: Any = list(self)
        if any(self._topic_contain_unsubscribed_topics(topic) for topic in topics):
            self._flag_changes()
