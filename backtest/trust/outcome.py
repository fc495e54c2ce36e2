"""A check's answer, its budget, and the first difference of two tables of a run."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]  # no stubs installed

from core.errors import ConfigError

T = TypeVar("T")
_BAR_DELAY_SECONDS: Final = 1.0
_MOST: Final = 1_000_000
_FIRST_ROUND: Final = 8


@dataclass(frozen=True)
class CheckOutcome:
    """The answer of one check on one coin.

    Attributes:
        summary: what was done, in one line.
        difference: the first difference found; None: the check passed.
        table: lines to print below, if any.
    """

    summary: str
    difference: str | None = None
    table: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no difference was found."""
        return self.difference is None


@dataclass(frozen=True)
class Budget:
    """How much a check may do.

    Attributes:
        count: cuts, restarts or bars looked at; at least 1; None: as many as the time allows.
        seconds: time at most, or None; the item under way is finished.
    """

    count: int | None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Return ``200`` (a count) or ``30s`` (seconds) as a budget.

        Raises:
            ConfigError: it is neither.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(s?)", text.strip())
        value = float(match[1]) if match else 0.0
        if match and match[2] and value > 0.0:
            return cls(None, value)
        if match and not match[2] and value == int(value) and 1 <= value <= _MOST:
            return cls(int(value))
        raise ConfigError(
            f"budget = {text!r} must be a number of cuts or restarts from 1 to {_MOST:,}, such as "
            "200, or a time such as 30s"
        )

    def spend(self, items: Sequence[T], title: str) -> Iterator[T]:
        """Yield of ``items`` the first, and more while the time lasts, under a progress bar.

        The bar stands on standard error, if that is a terminal and it takes long.
        """
        started = time.monotonic()
        for item in tqdm(items, desc=title, delay=_BAR_DELAY_SECONDS, leave=False, disable=None):
            yield item
            if self.seconds is not None and time.monotonic() - started >= self.seconds:
                return


DEFAULT_BUDGET: Final = Budget(200, 60.0)


def coarse_to_fine(count: int, budget: Budget) -> list[int]:
    """Return as many of the indexes 0 to ``count - 1`` as ``budget`` has, spread evenly.

    They come in rounds, each ascending and spread over all, so that the first few are spread too.
    """
    chosen = spread(count, budget.count or count)
    order: list[int] = []
    taken: set[int] = set()
    wanted = _FIRST_ROUND
    while len(order) < len(chosen):
        fresh = [chosen[i] for i in spread(len(chosen), wanted) if chosen[i] not in taken]
        taken.update(fresh)
        order += fresh
        wanted *= 2
    return order


def spread(count: int, wanted: int) -> list[int]:
    """Return ``wanted`` of the indexes 0 to ``count - 1``, evenly spread, the last among them."""
    if wanted >= count:
        return list(range(count))
    if wanted == 1:
        return [count - 1]
    return [i * (count - 1) // (wanted - 1) for i in range(wanted)]
