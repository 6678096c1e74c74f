"""Every place that stores, sums or prices the columns of a turn or of metered use has all of them."""

import msgspec
import pytest

from hive.audit.figures import Figures
from hive.broker.wire import Used
from hive.events.egress import ModelUsed
from hive.events.turns import TurnEnded
from hive.harness.stats import TurnRow
from hive.names import AgentName
from hive.projections.turns import Hour, added
from hive.projections.usage import ModelHour, cost
from hive.turn_columns import METERED, TOKEN_COLUMNS, TOKEN_KINDS, MeteredUse, Price, ReportedTokens, TurnColumns

CODER = AgentName("coder")
COUNTS = {name: 10**place for place, name in enumerate(TOKEN_COLUMNS)}
USED = {name: 10**place for place, name in enumerate(METERED)}


def test_reported_columns_have_every_kind_of_token() -> None:
    assert tuple(name for name in TurnColumns.__struct_fields__ if name.endswith("_tokens")) == TOKEN_COLUMNS
    assert ReportedTokens.__struct_fields__ == TOKEN_COLUMNS


@pytest.mark.parametrize(
    ("holder", "columns"),
    [
        (TurnEnded, TurnColumns.__struct_fields__),
        (TurnRow, TurnColumns.__struct_fields__),
        (Hour, TOKEN_COLUMNS),
        (Figures, TOKEN_COLUMNS),
        (ModelUsed, METERED),
        (ModelHour, METERED),
        (Used, METERED),
    ],
)
def test_holder_has_the_columns(holder: type[msgspec.Struct], columns: tuple[str, ...]) -> None:
    assert set(columns) <= set(holder.__struct_fields__)


def test_each_kind_has_one_price() -> None:
    assert tuple(kind.price for kind in TOKEN_KINDS.values()) == Price.__struct_fields__


def test_hour_sums_each_kind_in_all_and_by_model() -> None:
    turn = TurnEnded(agent=CODER, model="m", **COUNTS)
    hour = added(added(Hour(CODER, 1), turn), turn)
    doubled = {name: 2 * count for name, count in COUNTS.items()}
    assert {name: getattr(hour, name) for name in TOKEN_COLUMNS} == doubled
    assert msgspec.structs.asdict(hour.models["m"]) == doubled


def test_metered_hour_sums_each_column() -> None:
    event = ModelUsed(agent=CODER, model="m", **USED)
    hour = ModelHour(CODER, 1, "m").plus(event).plus(event)
    assert {name: getattr(hour, name) for name in METERED} == {name: 2 * count for name, count in USED.items()}
    assert (hour.agent, hour.hour, hour.model) == (CODER, 1, "m")


def test_each_kind_costs_its_price() -> None:
    tokens = MeteredUse(**dict.fromkeys(TOKEN_COLUMNS, 1000000))
    prices = Price(**{kind.price: 10.0**place for place, kind in enumerate(TOKEN_KINDS.values())})
    assert cost({"m": prices}, {"m": tokens}) == sum(10**place for place in range(len(TOKEN_KINDS)))
