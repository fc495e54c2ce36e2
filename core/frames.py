"""Candles and funding rates as people have them: what is read, what is refused, in which words.

One reading for files, for frames handed over in Python, and for what is downloaded. Instants are
integer milliseconds since 1970-01-01 UTC, the open of a candle or the minute of a settlement.
Works on anything that has named columns: pandas, polars and arrow frames, dicts of lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.errors import DataError
from core.times import HOUR_MS, MINUTE_MS, SECOND_MS, format_span, format_time

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CANDLE_COLUMNS: Final = ("timestamp", "open", "high", "low", "close", "volume")
FUNDING_COLUMNS: Final = ("timestamp", "rate")
TIME_NAMES: Final = (
    "timestamp",
    "open_time",
    "opentime",
    "time",
    "unix",
    "datetime",
    "date",
    "fundingtime",
    "funding_time",
    "calc_time",
)
RATE_NAMES: Final = ("rate", "fundingrate", "funding_rate", "last_funding_rate")
SYMBOL_NAMES: Final = ("symbol", "pair", "ticker", "instrument", "instrument_id", "coin")
NO_VOLUME: Final = "has no volume: taken as 0, so the rule about thin volume never acts"

_PRICES: Final = CANDLE_COLUMNS[1:5]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS_FROM: Final = 10**11
_CANDLE_RULES: Final = (
    ("low", "<=", "0", "low {low:g} must be above 0"),
    ("high", "<", "low", "high {high:g} is below low {low:g}"),
    ("open", "<", "low", "open {open:g} is below low {low:g}"),
    ("open", ">", "high", "open {open:g} is above high {high:g}"),
    ("close", "<", "low", "close {close:g} is below low {low:g}"),
    ("close", ">", "high", "close {close:g} is above high {high:g}"),
    ("volume", "<", "0", "volume {volume:g} is negative"),
)
_COMPARE: Final = {"<": np.less, ">": np.greater, "<=": np.less_equal}
_FEWEST_FOR_A_STEP: Final = 4
"""Rows from which on the commonest step means something: fewer may just have gaps."""
_DOUBLED_MS: Final = HOUR_MS // 2
"""No exchange settles twice within half an hour."""
_HIGHEST_RATE: Final = 0.05
"""No exchange settles more at once; in percent most records exceed it."""
_USUAL_PERCENT: Final = (0.01, 0.005)
"""The rate that funding mostly rests at, 0.0001 or 0.00005, written in percent."""
_SHARE_OF_USUAL: Final = 0.1
_FEWEST_FOR_A_HABIT: Final = 8
_FEWEST_DIGITS: Final = 9
"""Of a text that counts seconds or parts of them; eight digits are a date."""
_FEW_DIGITS: Final = {"float16": 3, "float32": 7}
"""Significant digits of types that round prices."""
_KNOWN_OF_FUNDING: Final = frozenset({"fundingtime", "funding_time", "funding_interval_hours"})
_FEWEST_CHANGES: Final = 12
"""Rates that change every few hours hardly do so at these hours alone so often."""
_USUAL_SETTLEMENT_MS: Final = 8 * HOUR_MS


@dataclass(frozen=True, eq=False)
class Candles:
    """Candles that have passed all checks.

    Attributes:
        columns: ``timestamp`` (int64, ms UTC) and ``open high low close volume`` (float64), each
            of shape (n_bars,).
        rates: settlements among them, ``timestamp`` and ``rate``, empty where there are none.
        notices: what was repaired or assumed.
    """

    columns: dict[str, npt.NDArray[Any]]
    rates: dict[str, npt.NDArray[Any]]
    notices: tuple[str, ...] = ()


def read_candles(frame: Any, where: str, bar_ms: int | None) -> Candles:
    """Return the candles of a frame, and the funding rates in it.

    Args:
        frame: a row per candle; times in a column or as its index, in any unit or as text, column
            names in any case; without volume it is 0. ``fundingRate``: settled at that bar's open,
            empty where none was.
        where: file or name for messages.
        bar_ms: length of a candle; None: of any.

    Raises:
        DataError: the candles or rates cannot be used as they are.
    """
    columns = named_columns(frame, where)
    notices = []
    if "volume" not in columns and set(_PRICES) <= set(columns):
        notices.append(f"{where}: {NO_VOLUME}")
        notices += _not_read(columns, where, "vol", "volume in the base coin is named volume")
        columns["volume"] = np.zeros(len(columns["timestamp"]))
    notices += _not_read(columns, where, "fund", f"rates are named {' or '.join(RATE_NAMES[:2])}")
    notices += _rounded(columns, where)
    check_candles(columns, where, bar_ms)
    times = np.asarray(columns["timestamp"], dtype=np.int64)
    prices = {name: as_numbers(columns[name]) for name in CANDLE_COLUMNS[1:]}
    rates = empty_rates()
    if any(name in columns for name in RATE_NAMES):
        rates = read_rates(columns, where, settled_only=True)
    return Candles({"timestamp": times, **prices}, rates, tuple(notices))


def _not_read(columns: Mapping[str, Any], where: str, word: str, remedy: str) -> list[str]:
    """Return which columns have ``word`` in their name and are not read."""
    read = {*CANDLE_COLUMNS, *RATE_NAMES, *TIME_NAMES, *_KNOWN_OF_FUNDING}
    unread = [name for name in columns if word in name and name not in read]
    rates = [name for name in RATE_NAMES if name in columns]
    unread += rates[1:] if word == "fund" else []
    return [f"{where}: column {name} is not read; {remedy}" for name in unread]


def _rounded(columns: Mapping[str, Any], where: str) -> list[str]:
    """Return that prices are of a type that rounds them, where they are."""
    kinds = {str(columns[name].dtype) for name in _PRICES if name in columns}
    return [
        f"{where}: prices are {kind}: rounded to {_FEW_DIGITS[kind]} digits, so they may lie "
        "beside the tick; use float64"
        for kind in sorted(kinds & set(_FEW_DIGITS))
    ]


def foreign_symbol(frame: Any, where: str, coin: str) -> None:
    """Refuse rows that say themselves that they are of another coin.

    Args:
        frame: as ``read_candles`` takes it.
        where: file or name for the message.
        coin: base coin it is read for.

    Raises:
        DataError: a column of symbols names another one.
    """
    own = rf"{re.escape(coin.upper())}([^A-Z0-9]?(USDT|PERP).*)?"
    for name in _names_of(frame, where):
        if str(name).strip().lower().replace(" ", "_") not in SYMBOL_NAMES:
            continue
        for symbol in dict.fromkeys(_values(frame[name]).tolist()):
            if not re.fullmatch(own, str(symbol).strip().upper()):
                raise DataError(
                    f"{where}: column {str(name).lower()} says {symbol}, but the rows are read for "
                    f"{coin}; keep the rows of one market, in a file of its name"
                )


def read_rates(frame: Any, where: str, *, settled_only: bool) -> dict[str, npt.NDArray[Any]]:
    """Return ``timestamp`` (cut to the minute) and ``rate`` of the settlements in a frame.

    Args:
        frame: a row per settlement, or per candle.
        where: file or name for messages.
        settled_only: pass over rows without a rate.

    Raises:
        DataError: there is no column of rates, or they cannot have been settled.
    """
    columns = named_columns(frame, where)
    named = next((name for name in RATE_NAMES if name in columns), None)
    if named is None:
        raise DataError(
            f"{where}: has no column named {' or '.join(RATE_NAMES)}; found: {', '.join(columns)}"
        )
    times, rates = np.asarray(columns["timestamp"], dtype=np.int64), columns[named]
    if settled_only:
        given = ~_is_empty(rates)
        times, rates = times[given], np.asarray(rates)[given]
    settled = {"timestamp": times - times % MINUTE_MS, "rate": rates}
    check_funding(settled, where)
    found = {"timestamp": settled["timestamp"], "rate": as_numbers(rates)}
    _check_fractions(found["rate"], found["timestamp"], where)
    _check_hours(found["timestamp"], where)
    return found


def empty_rates() -> dict[str, npt.NDArray[Any]]:
    """Return no settlements."""
    return {"timestamp": np.empty(0, np.int64), "rate": np.empty(0)}


def named_columns(frame: Any, where: str) -> dict[str, Any]:
    """Return the columns of a frame by lower-case name, its times in ms as ``timestamp``.

    Raises:
        DataError: it has no columns, two of one name, or no readable times.
    """
    if hasattr(frame, "collect") and hasattr(frame, "lazy"):  # polars, not computed yet
        frame = frame.collect()
    names = _names_of(frame, where)
    lower = [str(name).strip().lower().replace(" ", "_") for name in names]
    if len(set(lower)) < len(lower):
        raise DataError(f"{where}: columns are named twice: {', '.join(lower)}")
    columns: dict[str, Any] = {
        small: _values(frame[name]) for small, name in zip(lower, names, strict=True)
    }
    named = next((name for name in TIME_NAMES if name in columns), None)
    index = getattr(frame, "index", None)
    if named is not None:
        times = columns[named]
    elif index is not None and type(index).__name__ != "RangeIndex" and len(names):
        times = _values(index)
    else:
        raise DataError(
            f"{where}: has no time column; found: {', '.join(lower)}; "
            f"must have one of: {', '.join(TIME_NAMES)}"
        )
    return {**columns, "timestamp": to_ms(times, where)}


def _names_of(frame: Any, where: str) -> list[Any]:
    names = frame.keys() if isinstance(frame, Mapping) else getattr(frame, "columns", None)
    names = getattr(frame, "column_names", names)  # of arrow
    if names is None:
        raise DataError(
            f"{where}: is {type(frame).__name__}, must be a data frame with the columns "
            f"{', '.join(CANDLE_COLUMNS)}"
        )
    return list(names)


def _values(column: Any) -> npt.NDArray[Any]:
    """Return a column as an array; times that know their zone in UTC."""
    times = getattr(column, "dt", column)  # of a pandas Series, or an index itself
    if getattr(times, "tz", None) is not None and hasattr(times, "tz_convert"):
        column = times.tz_convert(None)
    if hasattr(column, "to_numpy"):
        return np.asarray(column.to_numpy())
    return np.asarray(column)


def to_ms(times: Any, where: str) -> Ints:
    """Return times of any unit or spelling as milliseconds UTC.

    Numbers count seconds until the year 5138, milliseconds from 1973 on, then micro- and
    nanoseconds: their size tells which. Text is ISO 8601; without a zone it is UTC.

    Raises:
        DataError: a time cannot be read; the text names its row.
    """
    values = np.asarray(times)
    if values.dtype.kind == "M":
        broken = np.isnat(values)
        if not broken.any():
            milliseconds: Ints = values.astype("datetime64[ms]").astype(np.int64)
            return milliseconds
    elif values.dtype.kind in "iuf":
        broken = ~np.isfinite(values.astype(np.float64))
        if not broken.any():
            return _counts_to_ms(values)
    else:
        listed = [_count_in(value) for value in values.tolist()]
        moments = [_moment_ms(value) for value in listed]
        broken = np.array([moment is None for moment in moments], dtype=np.bool_)
        if not broken.any():
            if all(isinstance(value, int | float) for value in listed):
                return _counts_to_ms(np.array(listed))
            return np.array(moments, dtype=np.int64)
    row = int(np.argmax(broken))
    raise DataError(
        f"{where}: row {row}: time '{values[row]}' must be milliseconds or seconds since "
        "1970, or ISO text like 2024-01-01 00:15"
    )


def _count_in(value: Any) -> Any:
    """Return the number that a text of digits is, anything else as it is."""
    if (
        isinstance(value, str)
        and value.strip().isdecimal()
        and len(value.strip()) >= _FEWEST_DIGITS
    ):
        return int(value)
    return value


def _moment_ms(value: Any) -> int | None:
    """Return one time in ms, None where it is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        try:
            moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            count: Any = (moment - _EPOCH) // timedelta(milliseconds=1)
        except (ValueError, TypeError):  # pandas' NaT passes for a datetime
            return None
        return int(count) if isinstance(count, int) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        return None
    return int(value)


def _counts_to_ms(counts: npt.NDArray[Any]) -> Ints:
    milliseconds: Ints = counts.astype(np.int64)
    largest = int(np.abs(milliseconds).max()) if milliseconds.size else 0
    if largest < _MILLISECONDS_FROM:
        exact = np.round(counts * SECOND_MS) if counts.dtype.kind == "f" else None
        return milliseconds * SECOND_MS if exact is None else exact.astype(np.int64)
    while largest >= 1_000 * _MILLISECONDS_FROM:
        milliseconds, largest = milliseconds // 1_000, largest // 1_000
    return milliseconds


def as_numbers(values: Any) -> Floats:
    """Return values as float64, NaN where they are no numbers."""
    array = np.asarray(values)
    if array.dtype.kind in "iufb":
        return np.array(array, dtype=np.float64)
    numbers = np.full(array.shape, np.nan)
    for row, value in enumerate(array.tolist()):
        try:
            numbers[row] = float(value)
        except (TypeError, ValueError):
            continue
    return numbers


def _is_empty(values: Any) -> npt.NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype.kind == "f":
        return np.array(np.isnan(array), dtype=np.bool_)
    if array.dtype.kind in "iub":
        return np.zeros(array.shape, np.bool_)
    return np.array([_is_nothing(value) for value in array.tolist()], dtype=np.bool_)


def _is_nothing(value: Any) -> bool:
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    return bool(value == "" or value != value)  # noqa: PLR0124 - NaN


def check_candles(frame: Any, where: str, bar_ms: int | None) -> None:
    """Refuse candles no backtest could be believed on.

    Args:
        frame: the candles by column, times as ``to_ms`` answers; gaps of whole bars are allowed.
        where: file, address or name for the message.
        bar_ms: length of a candle, ms; None: of any.

    Raises:
        DataError: columns are missing, a value is missing, times are unsorted, repeated or not
            ``bar_ms`` apart, a price is not positive or outside its bar's range, or a volume is
            negative. The text names row (counted from 0) and time.
    """
    times = _checked_times(frame, CANDLE_COLUMNS, where)
    if bar_ms is not None:
        _check_steps(times, where, bar_ms)
    values = {name: _numbers(frame, name, times, where) for name in CANDLE_COLUMNS[1:]}
    values["0"] = np.zeros(1)
    for left, sign, right, text in _CANDLE_RULES:
        broken = _COMPARE[sign](values[left], values[right])
        if broken.any():
            row = {name: float(values[name][broken.argmax()]) for name in CANDLE_COLUMNS[1:]}
            raise _row_error(where, times, broken, text.format(**row))


def check_funding(frame: Any, where: str) -> None:
    """Refuse funding rates that cannot have been settled.

    Raises:
        DataError: columns or values are missing, times are unsorted or repeated, or rates stand
            between settlements: filled into bars, or doubled.
    """
    names = _names_of(frame, where)
    if set(FUNDING_COLUMNS) <= set(names) and len(frame["timestamp"]) == 0:
        return
    times = _checked_times(frame, FUNDING_COLUMNS, where)
    rates = _numbers(frame, "rate", times, where)
    steps = np.diff(times)
    if len(times) >= _FEWEST_FOR_A_STEP:
        common = _commonest(steps)
        changes = times[np.flatnonzero(np.diff(rates)) + 1]
        filled = common < _USUAL_SETTLEMENT_MS and len(changes) >= _FEWEST_CHANGES
        filled = filled and not (changes % _USUAL_SETTLEMENT_MS).any()
        if common < HOUR_MS or filled:
            but = "" if common < HOUR_MS else ", but change at 00, 08 and 16 UTC only"
            raise DataError(
                f"{where}: funding rates stand {format_span(common)} apart{but}, which no "
                "settlements do; give the rate at its settlement only and leave the other rows "
                "empty"
            )
    doubled = np.append(np.False_, steps < _DOUBLED_MS)
    if doubled.any():
        text = (
            f"a rate {format_span(int(steps[doubled[1:].argmax()]))} after the one before: keep one"
        )
        raise _row_error(where, times, doubled, text)


def _check_fractions(rates: Floats, times: Ints, where: str) -> None:
    too_high = np.abs(rates) > _HIGHEST_RATE
    if too_high.any():
        text = f"rate {rates[too_high.argmax()]:g} must be a fraction (0.0001 is 0.01 %), at most "
        raise _row_error(where, times, too_high, f"{text}{_HIGHEST_RATE:g}; divide percent by 100")
    usual = np.isclose(np.abs(rates)[:, None], _USUAL_PERCENT, rtol=0.0, atol=1e-12).any(axis=1)
    if len(rates) >= _FEWEST_FOR_A_HABIT and np.mean(usual) >= _SHARE_OF_USUAL:
        raise DataError(
            f"{where}: funding rates look like percent ({int(usual.sum())} of {len(rates)} are "
            "0.01 or 0.005, the usual rate in percent); must be fractions (0.0001 is 0.01 %): "
            "divide them by 100"
        )


def _check_hours(times: Ints, where: str) -> None:
    """Refuse settlements beside the exchange's hours: every n hours, counted from midnight UTC."""
    if len(times) < _FEWEST_FOR_A_HABIT:
        return
    step = min(_commonest(np.diff(times)), _USUAL_SETTLEMENT_MS)
    step = step if step % HOUR_MS == 0 else HOUR_MS
    late = times % step
    if np.mean(late != 0) > 0.5:  # noqa: PLR2004 - most of them
        text = f"most settlements stand {format_span(_commonest(late))} after the exchange's"
        raise _row_error(
            where,
            times,
            late != 0,
            f"{text} (every {format_span(step)} from 00:00 UTC): times must be UTC, and a rate "
            "stands where it was settled",
        )


def _checked_times(frame: Any, columns: tuple[str, ...], where: str) -> Ints:
    names = _names_of(frame, where)
    if missing := [name for name in columns if name not in names]:
        raise DataError(
            f"{where}: missing columns: {', '.join(missing)}; "
            f"found: {', '.join(map(str, names))}; must have: {', '.join(columns)}"
        )
    times = np.asarray(frame["timestamp"])
    if len(times) == 0:
        raise DataError(f"{where}: has no rows")
    if times.dtype.kind not in "iu":
        raise DataError(f"{where}: timestamp is {times.dtype}, must be int64 ms UTC")
    times = times.astype(np.int64)
    steps = np.diff(times, prepend=times[0] - 1)
    if (steps < 0).any():
        raise _row_error(where, times, steps < 0, "is earlier than the row before; sort by time")
    if (steps == 0).any():
        raise _row_error(where, times, steps == 0, "repeats the time of the row before")
    return times


def _check_steps(times: Ints, where: str, bar_ms: int) -> None:
    if times[0] % SECOND_MS == 999:  # noqa: PLR2004
        raise DataError(
            f"{where}: {format_time(int(times[0]))} looks like a close time; timestamp must be "
            "the time the candle opened"
        )
    if len(times) == 1:
        return
    steps = np.diff(times, prepend=times[0] - bar_ms)
    common = _commonest(steps[1:])
    if common != bar_ms and len(times) >= _FEWEST_FOR_A_STEP:
        raise DataError(
            f"{where}: candles are {format_span(common)} apart, must be {format_span(bar_ms)}"
        )
    odd = steps % bar_ms != 0
    if odd.any():
        step = format_span(int(steps[odd.argmax()]))
        text = f"opens {step} after the row before, must be a multiple of {format_span(bar_ms)}"
        raise _row_error(where, times, odd, text)


def _commonest(steps: Ints) -> int:
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])


def _numbers(frame: Any, column: str, times: Ints, where: str) -> Floats:
    values = as_numbers(frame[column])
    broken = ~np.isfinite(values)
    if broken.any():
        raise _row_error(where, times, broken, f"{column} is missing or not a number")
    return values


def _row_error(where: str, times: Ints, broken: npt.NDArray[np.bool_], text: str) -> DataError:
    row, count = int(broken.argmax()), int(broken.sum())
    more = f" ({count} rows like this)" if count > 1 else ""
    return DataError(f"{where}: row {row} ({format_time(int(times[row]))} UTC): {text}{more}")
