"""Public facts: candles, funding rates, the rules of the symbol."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from live.simulated.bar_path import Bar
from live.simulated.filters import MAX_OPEN_ORDERS, MAX_OPEN_STOPS, Filters, exact, plain
from live.simulated.orders import Json

MINUTE_MS: Final = 60_000
FUNDING_EVERY_MS: Final = 8 * 60 * MINUTE_MS
INTERVALS: Final = {
    60_000: "1m",
    180_000: "3m",
    300_000: "5m",
    900_000: "15m",
    1_800_000: "30m",
    3_600_000: "1h",
    14_400_000: "4h",
    86_400_000: "1d",
}
OTHER_COIN: Final = "BNB"


class Candles:
    """The candles the price follows, and those before.

    Attributes:
        times: open times, ms UTC, shape (n_bars,).
        step_ms: length of a candle.
    """

    def __init__(self, source: Any) -> None:
        """Read a frame or table with named columns, or rows of ts, O, H, L, C, V.

        Args:
            source: columns ``timestamp`` (or ``ts_ms``), open, high, low, close, volume.

        Raises:
            ValueError: the candles have a hole, or are of a length that has no name.
        """
        names = getattr(source, "columns", None)
        if names is None:
            names = getattr(getattr(source, "dtype", None), "names", None)
        if names is None:
            rows = list(source)
        else:
            time = "timestamp" if "timestamp" in names else "ts_ms"
            columns = (time, "open", "high", "low", "close", "volume")
            rows = list(zip(*(source[name].tolist() for name in columns), strict=True))
        self._rows: list[Sequence[float]] = rows
        self.times = [int(row[0]) for row in rows]
        gaps = {later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)}
        self.step_ms = gaps.pop() if gaps else 900_000
        if gaps or self.step_ms not in INTERVALS:
            raise ValueError(f"candles must follow each other at one known step, were {gaps}")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Bar:
        row = self._rows[index]
        return Bar(self.times[index], *(exact(value) for value in row[1:6]))

    def kline(self, bar: Bar) -> list[Json]:
        """Return ``bar`` as the exchange spells it."""
        prices = [plain(value) for value in bar[1:6]]
        quote = plain((bar.volume * bar.close).quantize(Decimal("0.01")))
        return [bar.ts_ms, *prices, bar.ts_ms + self.step_ms - 1, quote, 100, "0", "0", "0"]

    def klines(
        self, forming: Bar, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[list[Json]]:
        """Return candles by time; without a start the latest ones.

        Args:
            forming: the newest candle as far as it has come.
            start_ms: earliest open time.
            end_ms: latest open time.
            limit: most candles of an answer.
        """
        newest = bisect_left(self.times, forming.ts_ms)
        last = newest if end_ms is None else min(newest, bisect_right(self.times, end_ms) - 1)
        if start_ms is None:
            first = max(0, last + 1 - limit)
        else:
            first = bisect_left(self.times, start_ms)
            last = min(last, first + limit - 1)
        return [
            self.kline(forming if index == newest else self[index])
            for index in range(first, last + 1)
        ]


class FundingSchedule:
    """Funding settlements: raw times as the history tells them, due at the full minute."""

    def __init__(self, rates: Sequence[tuple[int, float]]) -> None:
        """Take (settlement time ms, rate), by time."""
        self._raw = [(int(time), exact(rate)) for time, rate in rates]
        self._due = [time // MINUTE_MS * MINUTE_MS for time, _ in self._raw]

    def between(self, after_ms: int, until_ms: int) -> list[tuple[int, Decimal]]:
        """Return (time due, rate) in ``(after_ms, until_ms]``."""
        first, last = bisect_right(self._due, after_ms), bisect_right(self._due, until_ms)
        return [(self._due[k], self._raw[k][1]) for k in range(first, last)]

    def next_due(self, now_ms: int) -> tuple[int, Decimal]:
        """Return time and rate of the coming settlement; beyond the known ones every 8 h at 0."""
        k = bisect_right(self._due, now_ms)
        if k < len(self._due):
            return self._due[k], self._raw[k][1]
        return (now_ms // FUNDING_EVERY_MS + 1) * FUNDING_EVERY_MS, Decimal(0)

    def history(
        self, symbol: str, now_ms: int, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[dict[str, Json]]:
        """Return what has been settled, by time; without a start the latest ones."""
        known = bisect_right(self._due, now_ms)
        rows = [
            {"symbol": symbol, "fundingTime": time, "fundingRate": plain(rate), "markPrice": ""}
            for time, rate in self._raw[:known]
            if (start_ms is None or time >= start_ms) and (end_ms is None or time <= end_ms)
        ]
        return rows[-limit:] if start_ms is None else rows[:limit]


def symbol_view(coin: str, filters: Filters, status: str, liquidation_fee: str) -> dict[str, Json]:
    """Return one symbol's entry of ``exchangeInfo``."""
    lot = {
        "stepSize": plain(filters.step),
        "minQty": plain(filters.min_qty),
        "maxQty": plain(filters.max_qty),
    }
    at_market = lot | {"maxQty": plain(filters.max_market_qty)}
    return {
        "symbol": f"{coin}USDT",
        "pair": f"{coin}USDT",
        "contractType": "PERPETUAL",
        "deliveryDate": 4_133_404_800_000,
        "onboardDate": 1_569_398_400_000,
        "status": status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": coin,
        "quoteAsset": "USDT",
        "marginAsset": "USDT",
        "pricePrecision": filters.price_digits,
        "quantityPrecision": filters.qty_digits,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "triggerProtect": "0.0500",
        "liquidationFee": liquidation_fee,
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10_000,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": plain(filters.tick),
                "maxPrice": "10000000",
                "tickSize": plain(filters.tick),
            },
            {"filterType": "LOT_SIZE", **lot},
            {"filterType": "MARKET_LOT_SIZE", **at_market},
            {"filterType": "MAX_NUM_ORDERS", "limit": MAX_OPEN_ORDERS},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": MAX_OPEN_STOPS},
            {"filterType": "MIN_NOTIONAL", "notional": plain(filters.min_notional)},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": plain(1 + filters.price_band),
                "multiplierDown": plain(1 - filters.price_band),
                "multiplierDecimal": "4",
            },
        ],
        "orderTypes": [
            "LIMIT",
            "MARKET",
            "STOP",
            "STOP_MARKET",
            "TAKE_PROFIT",
            "TAKE_PROFIT_MARKET",
            "TRAILING_STOP_MARKET",
        ],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }
