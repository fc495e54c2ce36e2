"""Which processes take part in a shared search, and which of them are alive.

Every process enters itself in a companion study: one trial per process, running while the process
takes part. Optuna numbers trials atomically, so the numbers are in the order of arrival. A thread
counts the entry's heartbeat up every few seconds. Clocks of machines differ, so nobody compares
times: whoever wants to know watches the count, and a count that stands still for too long is a
process that has died. Then its entry is failed, once and for all; if the process was only asleep
(a closed laptop), it notices and enters anew. The entry of a process that leaves is pruned.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from enum import Enum
from types import TracebackType
from typing import Final, NamedTuple, Self

from optuna.trial import FrozenTrial, TrialState

from backtest.optimize.search.trial_store import StoredStudy, running_trial
from core.errors import ConfigError

BEAT_S: Final = 3.0
STALE_S: Final = 30.0
"""Ten heartbeats: longer than a database takes to come back from a restart."""

_log: Final = logging.getLogger(__name__)
_BEAT: Final = "beat"
_CAMPAIGN: Final = "campaign"


class Life(Enum):
    """State of a process: its heartbeat was seen, or has stopped, or neither yet."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


class Rhythm(NamedTuple):
    """How often hearts beat and when they are taken to have stopped, seconds."""

    beat_s: float = BEAT_S
    stale_s: float = STALE_S


class _Watched(NamedTuple):
    beat: int
    since: float
    """When this count was seen first, seconds of the monotonic clock."""
    moved: bool
    """Whether the count has changed while it was watched."""


class Processes:
    """The processes of a shared search, this one among them while the context is open.

    Attributes:
        own: number of this process.
        rhythm: of everybody's heart.
    """

    def __init__(self, study: StoredStudy, rhythm: Rhythm) -> None:
        """Use ``study``, which holds nothing but processes."""
        self.own = -1
        self._study = study
        self.rhythm = rhythm
        self._campaign: int | None = None
        self._entries: dict[int, FrozenTrial] = {}
        self._watched: dict[int, _Watched] = {}
        self._leaving = threading.Event()
        self._lost = threading.Event()
        self._entering = threading.Lock()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._enter()
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leaving.set()
        self._heart.join()
        with contextlib.suppress(*([] if kind is None else [ConfigError])):
            self._study.end(self.own, TrialState.PRUNED)

    def look(self) -> None:
        """Read all heartbeats; end the entries of those that have stopped."""
        if self._lost.is_set():
            self._enter()
        self._entries = {trial.number: trial for trial in self._study.trials()}
        now = time.monotonic()
        for number, trial in self._entries.items():
            if trial.state is TrialState.RUNNING:
                self._watch(number, trial.user_attrs[_BEAT], now)

    def life(self, number: int) -> Life:
        """Return what is known of process ``number`` since the last look."""
        trial = self._entries.get(number)
        if number == self.own:
            return Life.ALIVE
        if trial is None or trial.state is not TrialState.RUNNING or number not in self._watched:
            return Life.GONE
        return Life.ALIVE if self._watched[number].moved else Life.UNKNOWN

    def before(self) -> dict[int, Life]:
        """Return the processes that came before this one and are not known to be gone."""
        lives = {number: self.life(number) for number in self._entries if number < self.own}
        return {number: life for number, life in lives.items() if life is not Life.GONE}

    def campaign(self, number: int) -> int | None:
        """Return the campaign process ``number`` takes part in, None if it has not said."""
        campaign: int | None = self._entries[number].user_attrs.get(_CAMPAIGN)
        return campaign

    def take_part(self, campaign: int) -> None:
        """Say which campaign this process takes part in."""
        self._campaign = campaign
        self._study.set_trial_attribute(self.own, _CAMPAIGN, campaign)

    def describe(self, number: int) -> str:
        """Return where process ``number`` runs."""
        attrs = self._entries[number].user_attrs
        return f"process {attrs['pid']} on {attrs['host']}"

    def _enter(self) -> None:
        attrs = {"host": socket.gethostname(), "pid": os.getpid(), _BEAT: 0}
        if self._campaign is not None:
            attrs[_CAMPAIGN] = self._campaign
        with self._entering:
            self.own = self._study.add(running_trial(attrs))
            self._lost.clear()

    def _beat(self) -> None:
        beat = 0
        while not self._leaving.wait(self.rhythm.beat_s):
            beat += 1
            try:
                with self._entering:
                    if not self._study.set_trial_attribute(self.own, _BEAT, beat):
                        self._lost.set()
            except ConfigError as error:  # the search itself will meet it, if it lasts
                _log.warning("heartbeat not written: %s", error)

    def _watch(self, number: int, beat: int, now: float) -> None:
        watched = self._watched.get(number)
        if watched is None:
            self._watched[number] = _Watched(beat, now, moved=False)
        elif watched.beat != beat:
            self._watched[number] = _Watched(beat, now, moved=True)
        elif number != self.own and now - watched.since > self.rhythm.stale_s:
            self._study.end(number, TrialState.FAIL)
            del self._watched[number]
