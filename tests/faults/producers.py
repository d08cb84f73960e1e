"""
Producers of a row: threads that append and write down what became of it (JSON lines: event_id, level,
outcome).
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import redis

from aurastream.streams import (
    Ack,
    ClipViewsObserved,
    Codec,
    Event,
    Server,
    Settings,
    StreamError,
    open_stream,
)

STREAM = "clips"
NOON = datetime(2026, 4, 15, 12, tzinfo=UTC)


class Producer:
    """Appends in a thread of its own until stopped, and writes down what it knows of each event."""

    def __init__(self, file: Path, url: str, seed: float, options: dict[str, Any]) -> None:
        """file: for what it knows of its events; its name is the producer's."""
        self.name, self.url, self.path = file.stem, url, file
        self._dice = random.Random(seed)
        self._level = Ack(options.pop("level", "memory"))
        self._batch_max, self._pace_s = options.pop("batch_max", 12), options.pop("pace_s", 0.002)
        self._events_max = options.pop("events_max", 1_000_000)
        self._made: Callable[..., Event] = options.pop("made", ClipViewsObserved)
        codec = Codec((self._made,)) if isinstance(self._made, type) else options.pop("codec")
        self._settings = Settings(ack=self._level, **{"server_wait_s": 0, **options})
        self._over = threading.Event()
        self.sent = self.acked = 0
        self.acked_at: list[float] = [time.monotonic()]
        self.refused: Counter[str] = Counter()
        self.error: BaseException | None = None
        self._stream = open_stream(Server(url), STREAM, codec=codec, settings=self._settings)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        batches: list[list[Event]] = []
        try:
            with self.path.open("w") as file:
                while not self._over.is_set() and self.sent < self._events_max:
                    if batches and self._dice.random() < 0.1:
                        batch = self._dice.choice(batches)
                    else:
                        batch = [self._event() for _ in range(self._dice.randint(1, self._batch_max))]
                        batches = [*batches[-20:], batch]
                    self._append(batch, file)
                    self._over.wait(self._dice.uniform(0, 2 * self._pace_s))
        except BaseException as error:
            self.error = error

    def _append(self, batch: list[Event], file: Any) -> None:
        try:
            self._stream.append(batch)
            outcome = "acked"
            self.acked += len(batch)
            self.acked_at.append(time.monotonic())
        except (StreamError, redis.RedisError, OSError) as error:
            outcome = "unknown"
            self.refused[kind_of(error)] += 1
            self._stream.close()
        for event in batch:
            file.write(
                json.dumps({"event_id": event.event_id, "level": self._level.value, "outcome": outcome})
                + "\n"
            )
        file.flush()

    def _event(self) -> Event:
        self.sent += 1
        dice = self._dice
        return self._made(
            event_id=f"{self.name}:{self.sent}",
            subject=f"clip-{dice.randrange(40)}",
            occurred_at=NOON + timedelta(seconds=dice.randrange(86_400)),
            views=dice.randrange(1_000),
            category=dice.choice(("", "chess", "music", "a|b:c")),
        )

    def stop(self) -> None:
        """End after the append under way."""
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "a producer did not end"
        if self.error is not None:
            raise self.error

    def gap_s(self) -> float:
        """The longest time without an acknowledgement."""
        return max((later - earlier for earlier, later in pairwise(self.acked_at)), default=0.0)


def kind_of(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, redis.RedisError) else error
    return type(cause if type(error).__name__ == "UnknownOutcome" else error).__name__
