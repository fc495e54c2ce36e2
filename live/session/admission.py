"""Who may begin to trade: what is looked at before account or files are changed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final

from core.errors import AccountError, CapitalError, KeyRightsError
from core.orders import OrderKind
from live.exchange.port import Exchange
from live.exchange.types import KeyRights, MarketFacts, Usage
from live.execution.order_desk import shared_symbol_error
from live.execution.order_register import OUR_IDS, id_prefix
from live.store.state_file import LoadedState


def refuse_closed_market(facts: MarketFacts) -> None:
    """Refuse a symbol that does not trade at present.

    Raises:
        AccountError: it does not.
    """
    if not facts.is_trading:
        raise AccountError(f"{facts.symbol} is not open for trading at the exchange")


def refuse_wrong_clock(settings: Mapping[str, Any], usage: Usage) -> None:
    """Refuse to begin with a clock that would misdate candles and fills.

    Args:
        settings: their ``clock_warn_ms`` is the most it may be off.
        usage: of the exchange, after a first request.

    Raises:
        AccountError: it is off by more.
    """
    most_ms = float(settings["clock_warn_ms"])
    if abs(usage.clock_offset_ms) > most_ms:
        raise AccountError(
            f"this machine's clock is {usage.clock_offset_ms:+d} ms off the exchange's, more than "
            f"{most_ms:g} ms: have an NTP service set it, then start again"
        )


WITHDRAWALS, TRANSFERS, ANY_ADDRESS = "withdrawals", "transfers", "any-address"
RIGHTS: Final = (WITHDRAWALS, TRANSFERS, ANY_ADDRESS)
"""Rights of a key besides trading; each must be accepted by its name."""


def refuse_key_rights(rights: KeyRights, accepted: Collection[str] = ()) -> None:
    """Refuse a key whose thief could do more harm than trade, and one that cannot trade.

    Args:
        rights: of the key, as the exchange lists them.
        accepted: of ``RIGHTS``: said in words to be meant.

    Raises:
        KeyRightsError: it may do something that was not accepted, or may not trade futures.
    """
    lacking = [
        name
        for name, is_given in (("reading", rights.may_read), ("futures", rights.may_trade_futures))
        if not is_given
    ]
    if lacking:
        raise KeyRightsError(
            f"the key lacks the right to {' and '.join(lacking)}: allow it at the exchange, in the "
            "settings of the API key"
        )
    risks = {
        WITHDRAWALS: (rights.may_withdraw, "it may withdraw money"),
        TRANSFERS: (rights.may_transfer, "it may move money between accounts"),
        ANY_ADDRESS: (not rights.is_bound_to_addresses, "it works from every address"),
    }
    found = [name for name, (is_there, _) in risks.items() if is_there and name not in accepted]
    if found:
        listed = ", ".join(risks[name][1] for name in found)
        raise KeyRightsError(
            f"real money is not traded with this key: {listed}; "
            "change that at the exchange, in the settings of the API key, or say that it is meant: "
            f"--accept-key-rights {' '.join(found)}"
        )


def allowed_capital(
    settings: Mapping[str, Any], wanted: float | None, wallet: float, log: logging.Logger
) -> float:
    """Return the capital a session starts with, quote.

    Args:
        settings: their ``max_capital_pct`` is the most it may be, of the wallet.
        wanted: quote; None: as much as that allows.
        wallet: quote.
        log: where less than was wanted is reported.

    Raises:
        CapitalError: the wallet is empty.
    """
    share = float(settings["max_capital_pct"])
    most = share * wallet
    if most <= 0.0:
        raise CapitalError(
            f"the futures wallet holds {wallet:g} USDT: transfer some from the spot wallet first"
        )
    if wanted is not None and wanted > most:
        log.warning(
            "capital %g is more than %g %% of the wallet of %g USDT; %g are used",
            wanted,
            100.0 * share,
            wallet,
            most,
        )
    return most if wanted is None else min(wanted, most)


def refuse_shared_symbol(
    exchange: Exchange, loaded: LoadedState | None, instance: str, symbol: str
) -> None:
    """Refuse a symbol that somebody else trades on this account.

    In hedge mode there is one position a side, whoever opened it, and a stop closes all of it.

    Args:
        exchange: the account.
        loaded: what the session goes on from; None: it is a new one.
        instance: of ``LIVE_CONFIG``.
        symbol: such as BTCUSDT.

    Raises:
        AccountError: an order of this program is not in ``loaded``, or the account holds a
            position and the session has not traded yet.
    """
    known = {order["client_id"] for order in loaded.session["orders"]} if loaded else set()
    start_ms = int(loaded.session["progress"]["start_ms"]) if loaded else 0
    prefix = id_prefix(instance, symbol, start_ms)
    for order in exchange.open_orders():
        is_own = order.client_id.startswith(prefix)
        if loaded is not None and order.kind is OrderKind.STOP and is_own:
            continue  # it may be one that a full disk kept out of the state
        if OUR_IDS.match(order.client_id) and order.client_id not in known:
            raise shared_symbol_error(order.client_id)
    if loaded is not None and loaded.session["progress"]["bar"] >= 0:
        return  # what is held may be its own
    held = [f"{name} {side.qty:g}" for name, side in exchange.positions().items() if side.qty > 0.0]
    if held:
        raise AccountError(
            f"the account holds {' and '.join(held)} of this coin already, which this session's "
            "stop would close too: close it, or trade in a sub-account"
        )


def refuse_other_programs(exchange: Exchange, prefix: str) -> None:
    """Refuse a symbol on which another session of this program has orders.

    Args:
        exchange: the account.
        prefix: of the client ids that are this session's.

    Raises:
        AccountError: there are such orders.
    """
    for order in exchange.open_orders():
        if OUR_IDS.match(order.client_id) and not order.client_id.startswith(prefix):
            raise shared_symbol_error(order.client_id)
