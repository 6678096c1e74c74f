"""Every operation of the OpenAPI schema with valid and invalid input: never a 5xx."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from system.hive_process import HiveProcess

from .conftest import Person

pytestmark = pytest.mark.system

EXAMPLES = 5
"""Examples per operation and mode; the same in every run."""
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def there(hive: HiveProcess) -> dict[str, object]:
    """Path parameters that exist."""
    hive.spawn("probed")
    with hive.agent("manager") as manager:
        id = manager.ask("ask_operator", question="Which?", options=["A", "B"])["id"]
    return {"name": "probed", "id": id, "seq": 1, "subject": "agent"}


def operations(person: Person) -> list[APIOperation[Any, Any, Any, Any]]:
    described = person.get("/schema").raise_for_status().json()
    found = [one.ok() for one in schemathesis.openapi.from_dict(described).get_all_operations() if isinstance(one, Ok)]
    assert len(found) == sum(map(len, described["paths"].values()))
    return found


def answered(person: Person, case: Case) -> httpx.Response:
    """The response, read to its end unless it is an endless stream."""
    asked = case.as_transport_kwargs(base_url=str(person.base_url))
    given = {key: asked[key] for key in ("params", "headers", "data", "json", "files") if asked.get(key) is not None}
    with person.stream(asked["method"], asked["url"], **given) as reply:
        if not reply.headers.get("content-type", "").startswith("text/event-stream"):
            reply.read()
    return reply


def probe(person: Person, token: str, cases: SearchStrategy[Case]) -> None:
    """Raises AssertionError with a command that reproduces the defect."""

    @SETTINGS
    @given(cases)
    def ask(case: Case) -> None:
        reply = answered(person, case)
        assert reply.status_code < 500, (case.as_curl_command(), reply.text)
        if case.operation.path == "/logout":
            person.sign_in(token).raise_for_status()

    ask()


def can_be_broken(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    """Whether the schema can be violated: any text is a valid name, and an optional form field may be absent."""
    body = operation.definition.raw.get("requestBody")
    schema = {} if body is None else operation.body[0].raw_schema
    return bool(operation.query) or bool(schema.get("required"))


def test_valid_input_causes_no_server_error(mara: Person, token: str) -> None:
    for operation in operations(mara):
        probe(mara, token, operation.as_strategy())
    assert mara.get("/api/session").is_success


def test_valid_input_with_existing_ids_causes_no_server_error(
    mara: Person, token: str, there: dict[str, object]
) -> None:
    for operation in operations(mara):
        known = {name: value for name, value in there.items() if f"{{{name}}}" in operation.path}
        if known:
            probe(mara, token, operation.as_strategy(path_parameters=known))


def test_invalid_input_causes_no_server_error(mara: Person, token: str) -> None:
    broken = [operation for operation in operations(mara) if can_be_broken(operation)]
    assert broken
    for operation in broken:
        probe(mara, token, operation.as_strategy(GenerationMode.NEGATIVE))
