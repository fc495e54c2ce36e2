"""Where the files of a search go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backtest.results.files import check_writable
from config import BACKTEST_CONFIG

DATA_DIR: Final = Path("data")
RESULTS: Final = "optimizer_results_robust.json"
BEST: Final = "best_params_v4.json"
PAGE: Final = "optimizer_report.html"


@dataclass(frozen=True)
class ResultFolders:
    """Where the files of a search go.

    Attributes:
        data: results and ledger.
        charts: pictures.
        pages: the HTML report.
    """

    data: Path
    charts: Path
    pages: Path

    @classmethod
    def chosen(cls, output: Path | None) -> ResultFolders:
        """Return one folder for all files, or the settings' folders if it is None."""
        if output is not None:
            return cls(output, output, output)
        charts, pages = (Path(str(BACKTEST_CONFIG[key])) for key in ("chart_dir", "output_dir"))
        return cls(DATA_DIR, charts, pages)

    def check_writable(self, *, plot: bool) -> None:
        """Make sure files can be written before time is spent on a search.

        Raises:
            DataError: they cannot.
        """
        for folder in dict.fromkeys([self.data, *([self.charts, self.pages] if plot else [])]):
            check_writable(folder)
