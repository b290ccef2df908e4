"""How far an adapter is as declared."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from lora_router.adapters.adapter_state import AdapterState, AdapterStates
from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.fit_counts import FitCount
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_state import PodState
from lora_router.routing.selector import parse_selector

PORTS = itertools.count(8000)
SQL = DeclaredAdapter("sql", "base", "org/sql")


@dataclass
class Failed:
    reason: str
    action: str = "load"


def pod(name: str, *models: str, uid: str = "", ready: bool = True, **labels: str) -> Pod:
    address = f"10.0.0.1:{next(PORTS)}"
    served = ("base", *models)
    return Pod(f"ml/{name}", address, "http://m", "http://v", ready, served, uid=uid, labels=labels)


def read(
    fleet: Fleet,
    adapter: DeclaredAdapter = SQL,
    placed: Sequence[str] = (),
    failing: Mapping[str, str] | None = None,
) -> AdapterState:
    def states(names: Sequence[str]) -> Sequence[PodState]:
        return [state for state in fleet if state.pod.name in names]

    def failures(_: str) -> Mapping[PodState, Failed]:
        reasons = failing or {}
        return {state: Failed(reasons[state.pod.name]) for state in states(list(reasons))}

    return AdapterStates(fleet, lambda _: states(placed), failures).read(adapter)


def test_the_state_counts_and_names_pods() -> None:
    fleet = Fleet()
    fleet.replace([pod("b", "sql"), pod("a", "sql"), pod("c"), pod("d", "sql", ready=False)])
    found = read(fleet, placed=["ml/a", "ml/b", "ml/c"], failing={"ml/c": "no room"})
    assert (found.pods.fit, found.placed, found.loaded) == (3, 3, 2)
    assert found.instances == ("ml/a", "ml/b")
    assert (found.failing, found.failures) == (1, (("ml/c", "no room"),))


def test_pods_that_take_no_loads_are_counted_and_one_says_why() -> None:
    fleet = Fleet()
    fleet.replace([pod("a"), pod("b"), pod("c")])
    reasons = {"ml/a": "not allowed", "ml/b": "not allowed"}
    states = AdapterStates(
        fleet, lambda _: (), lambda _: {}, lambda state: reasons.get(state.pod.name, "")
    )
    assert states.read(SQL).pods == FitCount(3, 3, 2, "ml/a: not allowed")


def test_a_pod_that_fails_to_unload_it_does_not_fail_to_load_it() -> None:
    fleet = Fleet()
    fleet.replace([pod("a", "sql")])
    [state] = fleet
    states = AdapterStates(fleet, lambda _: (), lambda _: {state: Failed("busy", "unload")})
    assert states.read(SQL).failing == 0


def test_only_pods_count_that_the_declaration_admits() -> None:
    fleet = Fleet()
    fleet.replace([pod("a", gpu="h100"), pod("b", gpu="a10")])
    pods = WantedPods(copies=1, selector=parse_selector("gpu=h100"), namespace="ml")
    assert read(fleet, DeclaredAdapter("sql", "base", "org/sql", pods)).pods.fit == 1
    assert read(fleet, DeclaredAdapter("sql", "other", "org/sql", pods)).pods.fit == 0


@pytest.mark.parametrize(
    ("servers", "other"),
    [
        (("a-rank-0", "a-rank-1"), "worker-rank-7"),
        pytest.param(("a:rank-0", "a:rank-1"), "a-rank-0", id="another pod has such a name"),
    ],
)
def test_a_pod_with_several_servers_is_named_once(servers: tuple[str, str], other: str) -> None:
    fleet = Fleet()
    fleet.replace([*(pod(name, "sql", uid="1") for name in servers), pod(other, "sql", uid="2")])
    found = read(fleet)
    assert (found.loaded, found.instances) == (3, ("ml/a", f"ml/{other}"))


def test_fit_pods_are_counted_once_for_many_adapters() -> None:
    fleet = Fleet()
    fleet.replace([pod("a")])
    states = AdapterStates(fleet, lambda _: (), lambda _: {})
    assert states.read(SQL).pods.fit == 1
    fleet.replace([])
    assert states.read(DeclaredAdapter("chat", "base", "org/chat")).pods.fit == 1
    states.forget()
    assert states.read(SQL).pods.fit == 0


@pytest.mark.parametrize(
    ("pods", "reason"),
    [
        (FitCount(), "no ready pod serves its base model"),
        (FitCount(2), "its labels or its namespace match none of 2 ready pods of its base model"),
        (
            FitCount(3, 1, 1, "ml/a: not allowed"),
            "no matching pod takes loads (1 match): ml/a: not allowed",
        ),
        (FitCount(3, 2, 1, "ml/a"), "no matching pod has a place for it now (2 match)"),
        (
            FitCount(2, unread=1),
            "its labels or its namespace match none of 2 ready pods of its base model; "
            "the list of 1 more ready pod has not been read",
        ),
        (
            FitCount(unread=2),
            "the list of 2 ready pods has not been read yet, and no other serves its base model",
        ),
    ],
)
def test_why_an_adapter_has_no_place(pods: FitCount, reason: str) -> None:
    assert pods.why_nowhere() == reason
