"""Results of the short grid as files: fills as CSV, the account by the second, figures as JSON."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from backtest.results.files import json_bytes
from backtest.runs.ticks import TickResult, reason_of
from core.version import VERSION
from engine.registry import SHORT_GRID
from engine.short_grid.slots import ENTRY
from engine.short_grid.types import E8
from engine.short_grid.venue import QueueModel

NAME: Final = "short_grid"


def tick_files(result: TickResult, folder: Path) -> dict[Path, bytes]:
    """Return the bodies of all files of a result by path; charts aside."""
    bodies = {folder / f"{NAME}_summary.json": json_bytes(tick_document(result))}
    for model in result.outcomes:
        name = model.name.lower()
        bodies[folder / f"{NAME}_fills_{name}.csv"] = fills_csv(result, model)
        bodies[folder / f"{NAME}_account_{name}.csv"] = account_csv(result, model)
    return bodies


def tick_document(result: TickResult) -> dict[str, Any]:
    """Return the figures of a result, as ``short_grid_summary.json`` holds them."""
    return {
        "strategy": NAME,
        "verdict": result.verdict,
        "headline": result.headline.name.lower(),
        "models": {model.name.lower(): dict(figures) for model, figures in result.figures.items()},
        "latency_ms": {
            "up": result.latency.up,
            "down": result.latency.down,
            "feed": result.latency.feed,
        },
        "recordings": [
            {
                "name": part.name,
                "symbols": list(part.symbols),
                "events": len(part.events),
                "start_ns": int(part.events["t_ns"][0]),
                "end_ns": int(part.events["t_ns"][-1]),
                "notes": list(part.notes),
            }
            for part in result.recordings
        ],
        "parameters": result.params.to_dict(),
        "notices": list(result.notices),
        "program_version": VERSION,
        "code_fingerprint": SHORT_GRID.fingerprint,
    }


def fills_csv(result: TickResult, model: QueueModel) -> bytes:
    """Return every fill under a model: times ns UTC, money quote, quantity base."""
    frames = []
    for part, outcome in zip(result.recordings, result.outcomes[model], strict=True):
        fills = outcome.fills
        ticks = np.array([float(rules.tick_size) for rules in part.rules])[fills["symbol"]]
        steps = np.array([float(rules.step_size) for rules in part.rules])[fills["symbol"]]
        frames.append(
            pd.DataFrame(
                {
                    "recording": part.name,
                    "t_ns": fills["t_ns"],
                    "datetime": pd.to_datetime(fills["t_ns"], unit="ns").strftime(
                        "%Y-%m-%d %H:%M:%S.%f"
                    ),
                    "symbol": np.array(part.symbols)[fills["symbol"]],
                    "side": np.where(fills["slot"] == ENTRY, "SELL", "BUY"),
                    "reason": [reason_of(fill) for fill in fills],
                    "price": np.round(fills["ticks"] * ticks, 10),
                    "qty": np.round(fills["steps"] * steps, 10),
                    "fee": fills["fee_e8"] / E8,
                    "net": fills["net_e8"] / E8,
                    "held": np.round(fills["held"] * steps, 10),
                    "layers": fills["layers"],
                    "mid": fills["mid"],
                    "order": fills["order"],
                    "trade_id": fills["trade_id"],
                }
            )
        )
    return _csv(pd.concat(frames, ignore_index=True))


def account_csv(result: TickResult, model: QueueModel) -> bytes:
    """Return the account at every second under a model, quote."""
    frames = [
        pd.DataFrame(
            {
                "recording": part.name,
                "t_ns": outcome.account["t_ns"],
                "realized": outcome.account["realized_e8"] / E8,
                "open": outcome.account["open_e8"] / E8,
                "exposure": outcome.account["exposure_e8"] / E8,
                "positions": outcome.account["positions"],
            }
        )
        for part, outcome in zip(result.recordings, result.outcomes[model], strict=True)
    ]
    return _csv(pd.concat(frames, ignore_index=True))


def _csv(frame: pd.DataFrame) -> bytes:
    body = io.StringIO()
    frame.to_csv(body, index=False, lineterminator="\n")
    return body.getvalue().encode()
