"""The dict that a run answers with: as documented, and a little more for whoever looks at it."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, SupportsIndex

if TYPE_CHECKING:
    import pandas as pd

_VIEW: Final = "backtest.report.view"
"""Draws results. It is named, not imported: only whoever wants a picture needs the reports."""


class _Later:
    """Stands for a value that is made when it is first asked for."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


class Shown(Protocol):
    """A typed result as a ``ResultDict`` shows it."""

    def trade_frame(self) -> pd.DataFrame:
        """Return the trade records with their times."""
        ...

    def equity_series(self) -> pd.Series[float]:
        """Return the equity at every close, by time."""
        ...


class ResultDict(dict[str, Any]):
    """A plain dict to whoever uses it as one; entries that cost time are made when first read.

    However it is read (key, ``get``, ``items``, ``**``, ``dict(...)``, ``copy``, ``|``, ``==``,
    ``pickle``, ``json``), a value is the same as if it had been there from the start, and it may be
    changed like any dict. The attributes below show the run itself: they do not follow changes.

    Args:
        source: the typed result.
        entries: keys and values in their order; a callable wrapped by ``later`` makes its value.
    """

    def __init__(self, source: Shown, entries: Mapping[str, Any]) -> None:
        super().__init__(entries)
        self.typed: Any = source
        """The result that the program itself works with: records and figures, typed."""
        self._frames: dict[str, Any] = {}

    # --- what a person looks at ------------------------------------------------------------------

    @property
    def trades(self) -> pd.DataFrame:
        """Trade records, a row each: ``time`` (open of the bar, UTC) and the fields of a trade."""
        if "trades" not in self._frames:
            self._frames["trades"] = self.typed.trade_frame()
        frame: pd.DataFrame = self._frames["trades"]
        return frame

    @property
    def equity(self) -> pd.Series[float]:
        """Equity at the close of every bar, quote, (n_bars,), by the bar's open (UTC)."""
        if "equity" not in self._frames:
            self._frames["equity"] = self.typed.equity_series()
        series: pd.Series[float] = self._frames["equity"]
        return series

    def plot(self, what: str = "equity") -> Any:
        """Return a matplotlib figure, which a notebook shows.

        Args:
            what: ``equity`` (over its drawdown) or ``trades`` (on the price; one coin only).

        Raises:
            ConfigError: it is neither, or there is no such chart of this result.
        """
        return import_module(_VIEW).figure(self.typed, what)

    def report(self, path: str | Path) -> Path:
        """Write the report, one HTML file that opens without a network, and return its path.

        Raises:
            DataError: the file cannot be written.
            ConfigError: the run knows too little of itself for a report.
        """
        written: Path = import_module(_VIEW).write_report(self.typed, Path(path))
        return written

    def _repr_html_(self) -> str:
        """Return the figures and the course of equity, for a notebook."""
        text: str = import_module(_VIEW).html(self.typed)
        return text

    # --- a dict ----------------------------------------------------------------------------------

    def _made(self, key: str, value: Any) -> Any:
        """Return ``value``, made and kept if it was one for later."""
        if isinstance(value, _Later):
            value = value.make()
            super().__setitem__(key, value)
        return value

    def _make_all(self) -> None:
        for key, value in list(super().items()):
            self._made(key, value)

    def __getitem__(self, key: str) -> Any:
        return self._made(key, super().__getitem__(key))

    def __iter__(self) -> Iterator[str]:
        # Overridden, so that dict(result) and ** ask for every value instead of copying the table.
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, ``default`` without one."""
        return self._made(key, super().get(key, default))

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]  # dict_items is one
        """Return keys and values."""
        self._make_all()
        return super().items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # dict_values is one
        """Return the values."""
        self._make_all()
        return super().values()

    def pop(self, key: str, *default: Any) -> Any:
        """Remove ``key`` and return its value."""
        value = super().pop(key, *default)
        return value.make() if isinstance(value, _Later) else value

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the last key and its value."""
        key, value = super().popitem()
        return key, value.make() if isinstance(value, _Later) else value

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, which is ``default`` from now on if there was none."""
        return self._made(key, super().setdefault(key, default))

    def copy(self) -> Self:
        """Return a dict of the same entries, of the same run."""
        return self._with(self)

    def _with(self, entries: Mapping[str, Any]) -> Self:
        self._make_all()
        return type(self)(self.typed, entries)

    def __or__(self, other: Any) -> Any:
        return self._with({**self, **other}) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return {**other, **self} if isinstance(other, dict) else NotImplemented

    def __eq__(self, other: object) -> bool:
        self._make_all()
        if isinstance(other, ResultDict):
            other._make_all()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # as of any dict

    def __repr__(self) -> str:
        self._make_all()
        return super().__repr__()

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, ...]:
        return type(self), (self.typed, dict(self))


def later(make: Callable[[], Any]) -> Any:
    """Return an entry of a ``ResultDict`` whose value ``make`` answers with when it is read."""
    return _Later(make)
