"""Trade records and equity as people read them: dicts, columns, frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from core.kama import REGIME_NAMES
from engine.types import DIRECTION_NAMES, LABEL_NAMES, NO_REGIME

if TYPE_CHECKING:
    import pandas as pd

Records = npt.NDArray[Any]
TRADE_FIELDS: Final = (
    "bar",
    "timestamp",
    "price",
    "qty",
    "label",
    "regime",
    "pnl",
    "fee",
    "direction",
    "fill_id",
)
FILE_COLUMNS: Final = (*TRADE_FIELDS[:2], "datetime", *TRADE_FIELDS[2:])
"""Of files of trades; ``datetime`` is the timestamp as text, UTC."""
CYCLE_FIELDS: Final = ("cycle", "slot")
"""Fields that the records of a strategy with cycles have besides."""
_REGIMES: Final = {**REGIME_NAMES, NO_REGIME: "NONE"}


def trade_columns(trades: Records) -> dict[str, list[Any]]:
    """Return the trade records as columns of plain values, in the public names and order."""
    more = [name for name in CYCLE_FIELDS if name in (trades.dtype.names or ())]
    columns = {
        "bar": trades["bar"].tolist(),
        "timestamp": trades["ts_ms"].tolist(),
        "price": trades["price"].tolist(),
        "qty": trades["qty"].tolist(),
        "label": [LABEL_NAMES[code] for code in trades["label"].tolist()],
        "regime": [_REGIMES[code] for code in trades["regime"].tolist()],
        "pnl": trades["pnl"].tolist(),
        "fee": trades["fee"].tolist(),
        "direction": [
            DIRECTION_NAMES[code] if code >= 0 else "" for code in trades["direction"].tolist()
        ],
        "fill_id": trades["fill_id"].tolist(),
    }
    return columns | {name: trades[name].tolist() for name in more}


def trade_dicts(trades: Records) -> list[dict[str, Any]]:
    """Return the trade records as a list of dicts."""
    columns = trade_columns(trades)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def trade_frame(trades: Records) -> pd.DataFrame:
    """Return trade records as a frame of the fields of a trade dict, a row each.

    ``time`` comes first: the open of the trade's bar, UTC. ``label``, ``regime`` and ``direction``
    are categories: they compare with text and group like it.
    """
    import pandas as pd  # noqa: PLC0415 - only whoever wants a frame needs it

    plain = trades.dtype.names or ()
    names = {
        "label": LABEL_NAMES,
        "regime": list(_REGIMES.values()),
        "direction": [*DIRECTION_NAMES, ""],
    }
    regimes = np.array(list(_REGIMES), np.int64)
    order = np.argsort(regimes)
    codes: dict[str, Any] = {
        "label": trades["label"],
        "regime": order[np.searchsorted(regimes, trades["regime"], sorter=order)],
        "direction": np.where(trades["direction"] >= 0, trades["direction"], len(DIRECTION_NAMES)),
    }
    columns: dict[str, Any] = {"time": pd.to_datetime(trades["ts_ms"], unit="ms", utc=True)}
    for name in (*TRADE_FIELDS, *(name for name in CYCLE_FIELDS if name in plain)):
        if name in codes:
            columns[name] = pd.Categorical.from_codes(
                np.array(codes[name], np.int64), pd.Index(names[name])
            )
        else:
            columns[name] = np.array(trades["ts_ms" if name == "timestamp" else name])
    return pd.DataFrame(columns)


def equity_series(
    times_ms: npt.NDArray[np.int64], equity: npt.NDArray[np.float64]
) -> pd.Series[float]:
    """Return ``equity`` at every close, quote, by the open of its bar (UTC).

    Args:
        times_ms: open times of the bars, ms UTC, shape (n_bars,).
        equity: shape (n_bars,).
    """
    import pandas as pd  # noqa: PLC0415 - only whoever wants a series needs it

    index = pd.DatetimeIndex(pd.to_datetime(times_ms, unit="ms", utc=True), name="time")
    return pd.Series(equity, index=index, name="equity")
