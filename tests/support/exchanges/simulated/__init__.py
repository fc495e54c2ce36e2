"""A simulated Binance USDT-M futures exchange that speaks the real REST protocol.

The client under test is the real ccxt, down to the socket: ``LoopbackAdapter`` sends its requests
to a ``SimServer`` on this machine, which answers for a ``SimExchange``. Time is virtual; it goes on
where somebody sleeps on a ``SimClock`` (or a ``RemoteClock``, from another process)::

    exchange = SimExchange(candles, rules=rules, wallet=10_000.0)
    with SimServer(exchange) as server:
        client = ccxt.binanceusdm({"apiKey": exchange.api_key, "secret": exchange.secret})
        attach(client, server.port, SimClock(exchange))

One symbol, one account in hedge mode, no spread, no depth: a limit fills at its price when the
candle's path trades there, a market order at the path's price with slippage.
"""

from tests.support.clocks.simulated import RemoteClock, SimClock
from tests.support.exchanges.simulated.adapter import InProcessAdapter, LoopbackAdapter, attach
from tests.support.exchanges.simulated.exchange import SimExchange
from tests.support.exchanges.simulated.faults import (
    CANCEL,
    ORDER,
    READ,
    SETUP,
    Fault,
    FaultKind,
    FaultPlan,
)
from tests.support.exchanges.simulated.filters import ApiError
from tests.support.exchanges.simulated.server import SimServer

__all__ = [
    "CANCEL",
    "ORDER",
    "READ",
    "SETUP",
    "ApiError",
    "Fault",
    "FaultKind",
    "FaultPlan",
    "InProcessAdapter",
    "LoopbackAdapter",
    "RemoteClock",
    "SimClock",
    "SimExchange",
    "SimServer",
    "attach",
]
