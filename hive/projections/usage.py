"""Metered model use by agent, hour and model, and the prices that turn tokens into money."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from hive.clock import TimeMs
from hive.events.egress import ModelUsed, Price, PricesSet
from hive.names import AgentName
from hive.projections.table import Projection, Recorded, Table
from hive.projections.turns import HOUR_MS, HOURS_KEPT, Hour, Tokens

TOKENS_PER_PRICE = 1_000_000
"""Prices are dollars per million tokens."""


class ModelHour(msgspec.Struct, frozen=True):
    """Sums over the metered requests of one agent to one model in one hour."""

    agent: AgentName
    hour: int
    """Hours since 1970."""
    model: str
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    errors: int = 0

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.input_tokens, self.output_tokens, self.cache_read_tokens, self.cache_creation_tokens)


class ModelPrice(msgspec.Struct, frozen=True):
    """The price of one model."""

    model: str
    price: Price


class Usage(Projection):
    NAME = "usage"
    VERSION = 1

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
        row = with_use(old, event)
        self.hours.put((event.agent, hour, event.model), row)
        self._by_hour.setdefault((event.agent, hour), {})[event.model] = row

    def _on_prices(self, event: PricesSet, _: Recorded) -> None:
        for model in [row.model for row in self.price_rows if row.model not in event.prices]:
            self.price_rows.drop(model)
        for model, price in event.prices.items():
            self.price_rows.put(model, ModelPrice(model, price))


def with_use(hour: ModelHour, event: ModelUsed) -> ModelHour:
    """The sums with one more event."""
    return ModelHour(
        hour.agent,
        hour.hour,
        hour.model,
        requests=hour.requests + event.requests,
        input_tokens=hour.input_tokens + event.input_tokens,
        output_tokens=hour.output_tokens + event.output_tokens,
        cache_read_tokens=hour.cache_read_tokens + event.cache_read_tokens,
        cache_creation_tokens=hour.cache_creation_tokens + event.cache_creation_tokens,
        errors=hour.errors + event.errors,
    )


def price_of(prices: Mapping[str, Price], model: str) -> Price | None:
    """The price of a model: of its name, or of its name without a date such as `-20260131`."""
    found = prices.get(model)
    if found is None:
        name, _, date = model.rpartition("-")
        found = prices.get(name) if len(date) == 8 and date.isdigit() else None
    return found


class Use(NamedTuple):
    """What an agent used. In an hour in which anything was metered, only what was metered counts."""

    reported: Tokens
    metered: Tokens | None
    """None: nothing was metered."""
    counted: dict[str, Tokens]
    """By model."""

    @property
    def tokens(self) -> Tokens:
        return sum(self.counted.values(), Tokens())

    @property
    def differs(self) -> bool:
        """Whether the harness reported other figures than the broker metered."""
        return self.metered is not None and self.metered != self.reported


def use_since(hours: Mapping[tuple[AgentName, int], Hour], usage: Usage, agent: AgentName, since: TimeMs) -> Use:
    """The use of an agent since the hour of that time."""
    reported, metered, counted = Tokens(), None, dict[str, Tokens]()
    first = since // HOUR_MS
    told = {hour: row for (name, hour), row in hours.items() if name == agent and hour >= first}
    for hour in {*told, *(hour for hour in usage.metered_hours(agent) if hour >= first)}:
        row, by_model = told.get(hour), {model: one.tokens for model, one in usage.metered(agent, hour).items()}
        if row is not None:
            reported += sum(row.models.values(), Tokens())
        if by_model:
            metered = sum(by_model.values(), metered or Tokens())
        for model, tokens in (by_model or (row.models if row is not None else {})).items():
            counted[model] = counted.get(model, Tokens()) + tokens
    return Use(reported, metered, counted)


def cost(prices: Mapping[str, Price], by_model: Mapping[str, Tokens]) -> float | None:
    """Dollars for these tokens; None if a price is unknown. A kind of which no token was used needs no price."""
    if not prices:
        return None
    costs = [_cost(price_of(prices, model) or Price(), tokens) for model, tokens in by_model.items()]
    known = [one for one in costs if one is not None]
    return sum(known) if len(known) == len(costs) else None


def cost_at_most(prices: Mapping[str, Price], by_model: Mapping[str, Tokens]) -> float:
    """Dollars for a budget: a kind without a price counts at the highest price that is listed for any model.

    Otherwise an agent could evade its budget with a model that has no price.
    """
    listed = list(prices.values())
    highest = Price(
        input=_highest(price.input for price in listed),
        output=_highest(price.output for price in listed),
        cache_read=_highest(price.cache_read for price in listed),
        cache_write=_highest(price.cache_write for price in listed),
    )
    total = 0.0
    for model, tokens in by_model.items():
        price = price_of(prices, model) or Price()
        filled = Price(
            input=highest.input if price.input is None else price.input,
            output=highest.output if price.output is None else price.output,
            cache_read=highest.cache_read if price.cache_read is None else price.cache_read,
            cache_write=highest.cache_write if price.cache_write is None else price.cache_write,
        )
        total += _cost(filled, tokens) or 0.0
    return total


def _highest(prices: Iterable[float | None]) -> float:
    return max((price for price in prices if price is not None), default=0.0)


def _cost(price: Price, tokens: Tokens) -> float | None:
    total = 0.0
    for count, dollars in (
        (tokens.input, price.input),
        (tokens.output, price.output),
        (tokens.cache_read, price.cache_read),
        (tokens.cache_creation, price.cache_write),
    ):
        if count and dollars is None:
            return None
        total += count * (dollars or 0.0) / TOKENS_PER_PRICE
    return total
