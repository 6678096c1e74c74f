"""Metered model use by agent, hour and model, and the prices that turn tokens into money."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from hive.clock import TimeMs
from hive.events.egress import ModelUsed, PricesSet
from hive.names import AgentName
from hive.projections.table import Projection, Recorded, Table
from hive.projections.turns import HOUR_MS, HOURS_KEPT, Hour
from hive.turn_columns import TOKEN_KINDS, MeteredUse, Price, TokenCounts, token_counts

TOKENS_PER_PRICE = 1_000_000
"""Prices are dollars per million tokens."""


class ModelHour(MeteredUse, frozen=True):
    """Sums over the metered requests of one agent to one model in one hour."""

    agent: AgentName
    hour: int
    """Hours since 1970."""
    model: str

    @property
    def tokens(self) -> TokenCounts:
        return token_counts(self)


class ModelPrice(msgspec.Struct, frozen=True):
    """The price of one model."""

    model: str
    price: Price


class Usage(Projection):
    NAME = "usage"
    VERSION = 2

    def __init__(self) -> None:
        self.hours: Table[tuple[AgentName, int, str], ModelHour] = Table("model_hours", ModelHour, key_parts=3)
        self.price_rows: Table[str, ModelPrice] = Table("prices", ModelPrice)
        self._by_hour: dict[tuple[AgentName, int], dict[str, ModelHour]] = {}
        self._newest_hour = 0

    def handlers(self) -> dict[type, object]:
        return {ModelUsed: self._on_used, PricesSet: self._on_prices}

    def restored(self) -> None:
        self._by_hour = {}
        for row in self.hours:
            self._by_hour.setdefault((row.agent, row.hour), {})[row.model] = row
        self._newest_hour = max((row.hour for row in self.hours), default=0)

    @property
    def prices(self) -> dict[str, Price]:
        return {row.model: row.price for row in self.price_rows}

    def metered(self, agent: AgentName, hour: int) -> dict[str, ModelHour]:
        """An agent's metered sums of one hour, by model; empty if nothing was metered."""
        return self._by_hour.get((agent, hour), {})

    def metered_hours(self, agent: AgentName) -> list[int]:
        """The hours in which anything of the agent was metered."""
        return [hour for name, hour in self._by_hour if name == agent]

    def _on_used(self, event: ModelUsed, recorded: Recorded) -> None:
        hour = recorded.at_ms // HOUR_MS
        if hour > self._newest_hour:
            self._newest_hour = hour
            for key in [key for key in self.hours.rows if key[1] <= hour - HOURS_KEPT]:
                self.hours.drop(key)
                self._by_hour.pop(key[:2], None)
        old = self.hours.get((event.agent, hour, event.model)) or ModelHour(event.agent, hour, event.model)
        row = old.plus(event)
        self.hours.put((event.agent, hour, event.model), row)
        self._by_hour.setdefault((event.agent, hour), {})[event.model] = row

    def _on_prices(self, event: PricesSet, _: Recorded) -> None:
        for model in [row.model for row in self.price_rows if row.model not in event.prices]:
            self.price_rows.drop(model)
        for model, price in event.prices.items():
            self.price_rows.put(model, ModelPrice(model, price))


def price_of(prices: Mapping[str, Price], model: str) -> Price | None:
    """The price of a model: of its name, or of its name without a date such as `-20260131`."""
    found = prices.get(model)
    if found is None:
        name, _, date = model.rpartition("-")
        found = prices.get(name) if len(date) == 8 and date.isdigit() else None
    return found


class Use(NamedTuple):
    """What an agent used. In an hour in which anything was metered, only what was metered counts."""

    reported: TokenCounts
    metered: TokenCounts | None
    """None: nothing was metered."""
    counted: dict[str, TokenCounts]
    """By model."""

    @property
    def tokens(self) -> TokenCounts:
        return sum(self.counted.values(), TokenCounts())

    @property
    def differs(self) -> bool:
        """Whether the harness reported other figures than the broker metered."""
        return self.metered is not None and self.metered != self.reported


def use_since(hours: Mapping[tuple[AgentName, int], Hour], usage: Usage, agent: AgentName, since: TimeMs) -> Use:
    """The use of an agent since the hour of that time."""
    reported, metered, counted = TokenCounts(), None, dict[str, TokenCounts]()
    first = since // HOUR_MS
    told = {hour: row for (name, hour), row in hours.items() if name == agent and hour >= first}
    for hour in {*told, *(hour for hour in usage.metered_hours(agent) if hour >= first)}:
        row, by_model = told.get(hour), {model: one.tokens for model, one in usage.metered(agent, hour).items()}
        if row is not None:
            reported += sum(row.models.values(), TokenCounts())
        if by_model:
            metered = sum(by_model.values(), metered or TokenCounts())
        for model, tokens in (by_model or (row.models if row is not None else {})).items():
            counted[model] = counted.get(model, TokenCounts()) + tokens
    return Use(reported, metered, counted)


def cost(prices: Mapping[str, Price], by_model: Mapping[str, TokenCounts]) -> float | None:
    """Dollars for these tokens; None if a price is unknown. A kind of which no token was used needs no price."""
    if not prices:
        return None
    costs = [_cost(price_of(prices, model) or Price(), tokens) for model, tokens in by_model.items()]
    known = [one for one in costs if one is not None]
    return sum(known) if len(known) == len(costs) else None


def cost_at_most(prices: Mapping[str, Price], by_model: Mapping[str, TokenCounts]) -> float:
    """Dollars for a budget: a kind without a price counts at the highest price that is listed for any model.

    Otherwise an agent could evade its budget with a model that has no price.
    """
    listed = list(prices.values())
    highest = Price(**{kind: _highest(getattr(price, kind) for price in listed) for kind in Price.__struct_fields__})
    total = 0.0
    for model, tokens in by_model.items():
        price = price_of(prices, model) or Price()
        known = {kind: dollars for kind, dollars in msgspec.structs.asdict(price).items() if dollars is not None}
        filled = msgspec.structs.replace(highest, **known)
        total += _cost(filled, tokens) or 0.0
    return total


def _highest(prices: Iterable[float | None]) -> float:
    return max((price for price in prices if price is not None), default=0.0)


def _cost(price: Price, tokens: TokenCounts) -> float | None:
    total = 0.0
    for column, kind in TOKEN_KINDS.items():
        count, dollars = getattr(tokens, column), getattr(price, kind.price)
        if count and dollars is None:
            return None
        total += count * (dollars or 0.0) / TOKENS_PER_PRICE
    return total
