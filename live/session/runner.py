"""The live loop: a step at every close of a candle, a look at the fills in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from core.errors import (
    AccountError,
    CredentialsError,
    DataError,
    GridError,
    NetworkError,
    RateLimitError,
    ReplyError,
    RestrictedError,
    StateError,
)
from engine.contract import Moment, View
from live.exchange.port import Clock
from live.exchange.types import Usage
from live.execution.books import LiveSession
from live.execution.broker import Broker
from live.feed.candles import CandleSource
from live.feed.funding_rates import FundingRates
from live.health.alerts import Verdict
from live.health.events import Events, StepDone
from live.health.monitor import HealthMonitor, StepInfo
from live.session.shutdown import Ending, Shutdown, StopRequest, withdraw_once

HOPELESS: Final = (StateError, AccountError)
"""Errors that trying again does not mend: they end the session, a restriction excepted."""
OUTAGE: Final = (NetworkError, RateLimitError, ReplyError, DataError)
"""Errors that say the exchange does not answer as it should, or not yet: they end no session."""
KEYS_PATIENCE_S: Final = 600.0
"""How long the keys must be refused before that ends the session."""
ENTRIES_OFF_AFTER_S: Final = 30.0
"""How long an outage lasts before the entries that can be reached are taken off."""
CLOCK_JUMP_MS: Final = 30_000
"""So much more or less time than was slept is a clock that somebody has set."""
LEAST_PAUSE_S: Final = 1.0
"""Between two looks at the account, also where the first took longer than they should be apart."""
EQUITY_MS: Final = 60_000
"""Between two prices asked for only to know what is left, where nothing was traded meanwhile.

One at every look would be a quarter of the request weight that a coin may use.
"""


class LiveRunner:
    """Runs one session.

    Args:
        session: strategy, orders and what is kept.
        broker: carries decisions out.
        candles: closed candles and their signals.
        rates: settled funding rates.
        monitor: judges how it goes.
        events: every step that has ended is published there.
        clock: for the time and for waiting.
        stop: set when the process is asked to end.
        settings: ``LIVE_CONFIG``.
        usage: how much of the exchange's limits is used.
        measure_clock: asks the exchange once what time it is; may raise ``GridError``.
    """

    def __init__(
        self,
        *,
        session: LiveSession,
        broker: Broker,
        candles: CandleSource,
        rates: FundingRates,
        monitor: HealthMonitor,
        events: Events,
        clock: Clock,
        stop: StopRequest,
        settings: Mapping[str, Any],
        usage: Any = None,
        measure_clock: Callable[[], None] | None = None,
    ) -> None:
        self._session, self._broker = session, broker
        self._bar_ms = session.bar_ms
        self._candles, self._rates = candles, rates
        self._monitor, self._events, self._clock, self._stop = monitor, events, clock, stop
        self._shutdown = Shutdown(broker, monitor, clock, stop, session.log)
        self._poll_s = float(settings["poll_s"])
        self._grace_ms = int(1_000 * float(settings["candle_grace_s"]))
        self._usage, self._measure_clock = usage, measure_clock
        self._reported_too_small = False
        self._ban_s = 0.0
        self._refused_ms: int | None = None
        """Since when the keys are refused, ms UTC."""
        self._clock_warn_ms = float(settings["clock_warn_ms"])
        self._is_clock_doubted = False
        """Whether our clock may have been set since the exchange's time was measured."""
        self._turn_ms = clock.now_ms()
        """When the newest look at the account began, ms UTC."""
        self._valued_ms: int | None = None
        self._n_valued = 0
        """Trades booked by this process when equity was judged last."""
        self._is_behind = True
        """Whether the account has not been looked at since the process started."""

    # --- the loop ---------------------------------------------------------------------------------

    def run(self, *, once: bool = False) -> Ending:
        """Run until asked to stop, or for one step; errors are counted and lived with.

        A defect of the program ends it too: it is reported and raised, entries go, stops stay.

        Args:
            once: end after the step of the present candle.
        """
        try:
            return self._run(once=once)
        except Exception as defect:
            self._monitor.note_defect(defect)
            self.withdraw()
            raise

    def _run(self, *, once: bool) -> Ending:
        ending = self._judge()  # what was saved may forbid another step
        if ending is not None:
            return ending
        while not self._stop.is_set:
            try:
                stepped = self._turn()
                self._monitor.ok()
                self._refused_ms = None
            except GridError as error:
                stepped = False
                if not self._lives_with(error):
                    return self._shutdown.give_up(error)
            ending = self._judge()
            if ending is not None:
                return ending
            if once and stepped:
                return Ending.ASKED
            self._wait()
        return self._shutdown.as_asked()

    def _lives_with(self, error: GridError) -> bool:
        """Take a failure in; return whether the session goes on."""
        if isinstance(error, CredentialsError):
            return self._waits_for_keys(error)
        if isinstance(error, HOPELESS) and not isinstance(error, RestrictedError):
            return False
        if isinstance(error, RateLimitError) and error.retry_after > 0.0:
            self._ban_s = error.retry_after
        if isinstance(error, OUTAGE):
            self._monitor.outage(error)
        else:
            self._monitor.error(error)
        return True

    def _waits_for_keys(self, error: CredentialsError) -> bool:
        """Return whether refused keys may still be accepted again: once is no proof."""
        now_ms = self._clock.now_ms()
        if self._refused_ms is None or now_ms < self._refused_ms:
            self._refused_ms = now_ms
        if now_ms - self._refused_ms >= 1e3 * KEYS_PATIENCE_S:
            return False
        self._monitor.outage(error)
        return True

    def withdraw(self) -> bool:
        """See :meth:`live.session.shutdown.Shutdown.withdraw`."""
        return self._shutdown.withdraw()

    def read_history(self) -> None:
        """Have candles and signals before the start: what lacks shows, what takes long is done.

        Where that fails the entries of a saved session are cancelled as far as one try can.

        Raises:
            DataError: there are not enough.
            GridError: the exchange could not be asked.
        """
        bar = self._clock.now_ms() // self._bar_ms - 1
        try:
            self._candles.update(bar)
        except GridError:
            if self._session.orders.alive():
                withdraw_once(self._broker, self._session.log)
            raise
        self._candles.signal(bar)

    def _turn(self) -> bool:
        """Do what is due; where it fails positions have their stops all the same."""
        self._turn_ms = self._clock.now_ms()
        self._broker.hold_entries(off=False)
        try:
            return self._do_due()
        except (StateError, RateLimitError):
            raise
        except GridError:
            self._broker.hold_entries(off=self._monitor.outage_s() >= ENTRIES_OFF_AFTER_S)
            self._secure()
            raise

    def _do_due(self) -> bool:
        """Do the step that is due, else look at the fills; return whether it was a step."""
        progress, now_ms = self._session.progress, self._now_ms()
        bar = now_ms // self._bar_ms
        is_owed = bar > progress.bar or not progress.done
        self._session.look_at_flags()
        if is_owed and now_ms - bar * self._bar_ms >= self._grace_ms:
            self.step(bar)
            self._is_behind = False
            return True
        if self._is_behind:
            self._catch_up()
        else:
            self._broker.watch()
        self._note_equity()
        return False

    def _secure(self) -> None:
        """Have every position its stop, as far as the exchange can be reached."""
        try:
            self._broker.secure()
        except (StateError, RateLimitError):
            raise
        except GridError as error:
            self._session.log.info("looking after the stops: %s", error)

    def _note_equity(self) -> None:
        """Let the monitor know what is left, so that the loss limit is judged at this look.

        With a price that the look has asked for anyway, and without one where nothing is held.
        Else one is asked for where trades were booked, and once in ``EQUITY_MS``.
        """
        strategy, n_trades = self._session.strategy, len(self._session.trades)
        view, now_ms = strategy.view(), self._turn_ms
        if view.has_position:
            price = self._broker.price_since(self._turn_ms)
            if price is None:
                is_fresh = self._valued_ms is not None and 0 <= now_ms - self._valued_ms < EQUITY_MS
                if is_fresh and n_trades == self._n_valued:
                    return
                price = self._broker.mark()
            view = strategy.view(price)
        self._monitor.note_equity(view.equity)
        self._valued_ms, self._n_valued = now_ms, n_trades

    def _now_ms(self) -> int:
        """Return the time that steps follow, ms UTC: the exchange's where ours is set wrong.

        Where our clock may have been set the exchange's time is measured first.

        Raises:
            GridError: it cannot be: which step is due is not known.
        """
        if self._is_clock_doubted and self._measure_clock is not None:
            self._measure_clock()
        self._is_clock_doubted = False
        return self._known_ms()

    def _known_ms(self) -> int:
        """Return that time as far as it is known; asks nothing."""
        now_ms = self._clock.now_ms()
        if self._usage is None:
            return now_ms
        offset_ms = int(self._usage().clock_offset_ms)
        return now_ms - offset_ms if abs(offset_ms) > self._clock_warn_ms else now_ms

    def _catch_up(self) -> None:
        """Take in what happened while the process was away within a candle."""
        now_ms = self._clock.now_ms()
        self._rates.update(now_ms)
        self._broker.watch()
        self._is_behind = False

    def _judge(self) -> Ending | None:
        """Let the monitor judge; return an ending if there must be one."""
        if self._usage is not None:
            usage: Usage = self._usage()
            self._monitor.note_usage(usage)
        verdict = self._monitor.check()
        if verdict is Verdict.EMERGENCY:
            return self._shutdown.close_everything()
        if verdict is Verdict.SHUTDOWN:
            self.withdraw()
            return Ending.FAILED
        if self._session.strategy.ended:
            self._session.log.critical("nothing is left of the capital; the session ends")
            self.withdraw()
            return Ending.RUINED
        if self._session.strategy.stopped and self._session.progress.done:
            self._session.log.critical("the stop price was reached: all is closed, it ends")
            self.withdraw()
            return Ending.EMERGENCY
        return None

    def _wait(self) -> None:
        """Sleep until the next look or the next step, whichever comes first.

        Looks begin ``poll_s`` apart: what fills during a long one waits no longer for its stop.
        """
        now_ms = self._known_ms()
        next_step = ((now_ms - self._grace_ms) // self._bar_ms + 1) * self._bar_ms + self._grace_ms
        took_s = max(0.0, (self._clock.now_ms() - self._turn_ms) / 1e3)
        poll_s = max(self._poll_s - took_s, min(self._poll_s, LEAST_PAUSE_S))
        if self._ban_s:
            self._sleep_through(self._ban_s)
        else:
            self._sleep(min(poll_s, self._broker.patience_s(), (next_step - now_ms) / 1e3))
        self._ban_s = 0.0

    def _sleep(self, pause_s: float) -> None:
        """Sleep, and keep running what would take the entries off if this process died."""
        left_s = pause_s
        while left_s > 0.0 and not self._stop.is_set:
            part_s = min(left_s, max(1.0, self._broker.renew_in_s()))
            slept_s = self._sleep_through(part_s)
            if slept_s < part_s - 1e-3 or self._is_clock_doubted:
                return  # woken, or the clock was set
            left_s -= slept_s
            if left_s > 0.0:
                self._broker.renew()

    def _sleep_through(self, seconds: float) -> float:
        """Sleep; return how long by our clock, which is doubted where that cannot be."""
        before_ms = self._clock.now_ms()
        self._clock.sleep(seconds)
        slept_ms = self._clock.now_ms() - before_ms
        is_possible = -CLOCK_JUMP_MS <= slept_ms <= 1e3 * seconds + CLOCK_JUMP_MS
        self._is_clock_doubted = self._is_clock_doubted or not is_possible
        return slept_ms / 1e3

    # --- a step -----------------------------------------------------------------------------------

    def step(self, bar: int) -> None:
        """Do step ``bar``, or what is left of it where the process was killed in it.

        Raises:
            StateError: the disk does not take the state.
            GridError: the exchange could not be asked; the step is taken up again.
        """
        self.settle(bar)
        if self._session.progress.bar != bar:
            self._open(bar)
        self._decide()
        self._broker.lay_out()
        self._broker.check_positions()
        self._end(bar)

    def settle(self, bar: int) -> None:
        """Have all that is known when ``bar`` opens: candles, rates, fills, funding.

        Raises:
            GridError: the exchange could not be asked, or the disk refused.
        """
        self._candles.update(bar - 1, self._secure)
        self._session.progress.first_bar = self._candles.first_bar
        self._rates.update(bar * self._bar_ms)
        self._broker.settle(bar * self._bar_ms)

    def _open(self, bar: int) -> None:
        """Let the strategy know what is known at the open of ``bar``."""
        session, instant = self._session, bar * self._bar_ms
        signal, before = self._candles.signal(bar - 1), self._candles.candle(bar - 1)
        price = self._broker.price(bar)
        session.begin_step(bar)
        if not signal["ready"]:
            session.progress.phase, session.progress.arranged = session.strategy.phases, True
            session.go_to(instant)
            return
        session.strategy.begin(
            Moment(instant, signal, price, float(before.close), self._rates.known(instant))
        )
        self._broker.open_bar(bar, price)

    def _decide(self) -> None:
        """Ask every phase for its exits and do them, then ``arrange``."""
        session = self._session
        strategy, progress = session.strategy, session.progress
        self._broker.finish_exits()
        while progress.phase < strategy.phases and not strategy.ended:
            exits = strategy.exits(progress.phase)
            progress.phase += not (exits and strategy.asks_again)
            session.collect()
            if exits:
                self._broker.close(exits)
        if not progress.arranged:
            if not strategy.ended:
                strategy.arrange()
            progress.arranged = True

    def _end(self, bar: int) -> None:
        """Write the step down and report how the account stands."""
        session = self._session
        view, progress = session.strategy.view(), session.progress
        equity = view.equity
        progress.done = True
        progress.start_equity = progress.start_equity or equity
        progress.peak_equity = max(progress.peak_equity, equity)
        session.save(snapshot=True)
        self._report_too_small(view)
        self._events.publish(StepDone(bar * self._bar_ms, view))
        self._monitor.beat(StepInfo(bar, bar * self._bar_ms, equity, self._bar_ms))

    def _report_too_small(self, view: View) -> None:
        """Say once that every order of a grid was under the exchange's minimum."""
        if view.too_small and not self._reported_too_small:
            self._reported_too_small = True
            self._session.log.warning(
                "every order of a grid is under the exchange's minimum: %.0f USDT of capital "
                "would do",
                view.capital_needed,
            )
