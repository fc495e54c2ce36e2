# ruff: noqa: D101, D102 - the definition names each of them
"""The ledger of one symbol as a plain fold of fills in whole units of 1e-8, and its debt."""

from __future__ import annotations

from dataclasses import dataclass, field

DAY_NS = 24 * 3600 * 10**9


@dataclass
class Fold:
    unit: int
    cap: int
    held: int = 0
    cost: int = 0
    entry_fees: int = 0
    funding_open: int = 0
    pnl: int = 0
    fees: int = 0
    funding: int = 0
    debts: list[list[int]] = field(default_factory=list)  # [time, amount], oldest first
    d_in: int = 0
    d_paid: int = 0
    d_forgiven: int = 0
    nets: list[int] = field(default_factory=list)

    def sell(self, ticks: int, steps: int, fee: int) -> None:
        self.held += steps
        self.cost += ticks * steps * self.unit
        self.entry_fees += fee
        self.fees += fee

    def buy(self, t: int, ticks: int, steps: int, fee: int) -> None:
        def part(amount: int) -> int:
            return amount if steps == self.held else amount * steps // self.held

        cost, entry_fee, funding = (part(self.cost), part(self.entry_fees), part(self.funding_open))
        pnl = cost - ticks * steps * self.unit
        self.cost -= cost
        self.entry_fees -= entry_fee
        self.funding_open -= funding
        self.held -= steps
        self.pnl += pnl
        self.fees += fee
        net = pnl - fee - entry_fee + funding
        self.nets.append(net)
        self.owe(t, net)

    def fund(self, amount: int) -> None:
        self.funding += amount
        if self.held:
            self.funding_open += amount

    def owe(self, t: int, net: int) -> None:
        old = [debt for debt in self.debts if debt[0] < t - DAY_NS]
        self.d_forgiven += sum(amount for _, amount in old)
        self.debts = self.debts[len(old) :]
        if net < 0:
            self.debts.append([t, -net])
            self.d_in += -net
            self.d_forgiven += self.take(max(0, self.debt - self.cap))
        else:
            self.d_paid += self.take(net)

    def take(self, amount: int) -> int:
        left = amount
        for debt in self.debts:
            taken = min(left, debt[1])
            debt[1] -= taken
            left -= taken
        self.debts = [debt for debt in self.debts if debt[1] > 0]
        return amount - left

    @property
    def debt(self) -> int:
        return sum(amount for _, amount in self.debts)
