"""A simulated exchange that speaks Binance's REST protocol, with virtual time and faults on demand.

The client under test or measurement is the real one, down to the socket: an adapter sends its
requests to a ``SimServer`` on this machine, which answers for a ``SimExchange``. Time goes on where
somebody sleeps on a ``SimClock`` (or a ``RemoteClock``, from another process)::

    exchange = SimExchange(candles, rules=rules, wallet=10_000.0)
    with SimServer(exchange) as server:
        session.mount("https://", LoopbackAdapter(server.port))
        executor = open_exchange("BTC", clock=SimClock(exchange), session=session, ...)

Accounts in hedge mode, no spread, no depth: a limit fills at its price when the candle's path
trades there, a market order at the path's price with slippage. No session imports it.
"""
