"""Pods that serve the same models share one list, which is looked through once for all of them."""

from collections.abc import Iterator, KeysView

from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import TEMPLATE, DeclaredAdapter
from lora_router.adapters.sources import AllowedSources
from lora_router.adapters.templated import Templated
from lora_router.adapters.templates import Template
from lora_router.adapters.versions import Versions
from lora_router.fleet.catalog import Catalog
from lora_router.fleet.fleet import Fleet
from lora_router.steps import all_at_once
from tests.fleet import ManualClock, make_fleet

PODS = 100
V1, V2 = "sql@1", "sql@2"


class Listed(dict[str, str | None]):
    """The adapters of a list, which counts how often it is compared and looked through."""

    compared = looked_through = 0

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        self.compared += 1
        return super().keys()

    def __iter__(self) -> Iterator[str]:
        self.looked_through += 1
        return super().__iter__()


def listed(fleet: Fleet, *names: str) -> Listed:
    """Let all pods list the same adapters."""
    adapters = Listed(dict.fromkeys(names, "base"))
    catalog = Catalog(frozenset({"base"}), adapters, fingerprint=hash(names))
    for state in fleet:
        fleet.put_models(state, catalog)
    return adapters


def test_versions_are_found_in_it_and_counted_for_each_pod() -> None:
    fleet, clock, declarations = make_fleet(PODS), ManualClock(), Declarations()
    versions = Versions(declarations, fleet, lambda _name, _targets: None, clock)
    declarations.replace("file", [DeclaredAdapter("sql", "base", "s3://lora/2", version="2")])
    before = fleet.ready()

    first = listed(fleet, V1, *(f"a-{number}" for number in range(100)))
    assert versions.others(V2) == ["sql", V1]
    fleet.replace(state.pod for state in before[1:])
    assert versions.others(V2) == ["sql", V1]

    listed(fleet, V2)
    assert versions.others(V2) == ["sql"]
    assert first.compared < PODS // 4


def test_names_of_templates_are_found_in_it_once_and_again_after_its_pods_have_left() -> None:
    fleet, clock, declarations = make_fleet(PODS), ManualClock(), Declarations()
    templated = Templated(declarations, AllowedSources(["s3://lora"]), fleet, clock)
    templated.replace([Template("base", ("tenant-*",), "s3://lora/{name}")])

    adapters = listed(fleet, "tenant-1", "tenant-2", "other")
    clock.advance(0.5)
    assert [adapter.name for adapter in declarations] == ["tenant-1", "tenant-2"]
    assert adapters.looked_through == 1

    listed(fleet, "another")
    all_at_once(declarations.replace_added(TEMPLATE, ()))
    adapters = listed(fleet, "tenant-1", "tenant-2")
    clock.advance(0.5)
    assert [adapter.name for adapter in declarations] == ["tenant-1", "tenant-2"]
    assert adapters.looked_through == 1
