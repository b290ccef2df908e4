"""Which of several routers loads adapters."""

from types import SimpleNamespace
from typing import Any

import pytest

from lora_router.loader_assembly import is_first, loader_choice


def hub(name: str, *peers: str) -> Any:
    return SimpleNamespace(name=name, peers=peers)


@pytest.mark.parametrize(
    ("name", "peers", "first"),
    [
        ("a-1", (), True),
        ("a-1", ("b-2", "c-3"), True),
        ("b-2", ("a-1", "c-3"), False),
        # All workers of a host count as one, whichever of them speaks.
        ("a-worker-2-00000001", ("b-worker-1-00000002",), True),
        ("b-worker-1-00000001", ("a-worker-2-00000002",), False),
        ("a-worker-2-00000001", ("a-worker-1-00000002",), True),
    ],
)
def test_the_first_by_name_of_all_that_hear_each_other_loads(
    name: str, peers: tuple[str, ...], *, first: bool
) -> None:
    assert is_first(hub(name, *peers)) is first
    assert loader_choice(None, None, hub(name, *peers))() is first


def test_a_lease_decides_if_there_is_one() -> None:
    lease: Any = SimpleNamespace(loads=False)
    leadership: Any = SimpleNamespace(leads=True)
    alone = hub("a-1")

    assert loader_choice(None, lease, alone)() is False
    assert loader_choice(leadership, lease, alone)() is False
    lease.loads = True
    assert loader_choice(None, lease, hub("b", "a"))() is True
    assert loader_choice(leadership, None, hub("b", "a"))() is True


def test_a_router_without_others_loads() -> None:
    assert loader_choice(None, None, None)() is True
