"""Adapters that pods have loaded from elsewhere than they are declared."""

import json

import pytest

from lora_router.adapters.declarations import MAX_PLAIN, Declarations, derived_version
from lora_router.adapters.dispatch import LoaderOptions
from lora_router.adapters.plain_sources import PlainSources
from lora_router.scrape.models import models_in_steps
from lora_router.steps import all_at_once
from tests.fleet import make_pod
from tests.unit.adapters.declared_router import declared
from tests.unit.adapters.loading import Loading, adapter

NEW = f"sql@{derived_version('s3://lora/2')}"


def listed(**roots: object) -> bytes:
    models: list[dict[str, object]] = [{"id": "base", "root": "/models/base"}]
    models += [{"id": name, "parent": "base", "root": root} for name, root in roots.items()]
    return json.dumps({"object": "list", "data": models}).encode()


def served(*lists: bytes, loaded: str = "", in_place: bool = False) -> str:
    """Return the name under which pods serve ``sql`` after some lists were read."""
    declarations = Declarations(in_place=in_place)
    declarations.replace("file", [declared("sql", "s3://lora/2"), declared("v", version="1")])
    sources = PlainSources(declarations)
    sources.loaded(loaded)
    for each in lists:
        catalog = all_at_once(models_in_steps(each, roots=sources))
        assert "base" in catalog.base_models
    adapter = declarations.named("sql")
    assert adapter is not None
    return adapter.served_name


def test_an_adapter_that_was_loaded_from_elsewhere_gets_a_version() -> None:
    assert served(listed(sql="s3://lora/1", v="x", other="y")) == NEW


def test_one_that_was_loaded_from_there_does_not() -> None:
    assert served(listed(sql="s3://lora/2/")) == "sql"


def test_each_is_compared_once_and_what_this_router_has_loaded_is_right() -> None:
    assert served(listed(sql="s3://lora/2"), listed(sql="/cache/sql")) == "sql"
    assert served(listed(sql="/cache/sql"), loaded="sql") == "sql"


def test_what_is_remembered_of_names_that_are_gone_is_bounded() -> None:
    declarations = Declarations()
    declarations.replace("file", [declared("sql")])
    sources = PlainSources(declarations)
    sources.loaded("sql")
    names = [f"tenant-{number}" for number in range(MAX_PLAIN + 10)]
    for name in names:
        declarations.add("template", declared(name, origin="template"))
        sources.loaded(name)
        declarations.discard("template", name)

    declarations.add("template", declared(names[0], origin="template"))
    declarations.add("template", declared(names[-1], origin="template"))
    assert names[0] in sources, "it is compared again"
    assert names[-1] not in sources
    assert "sql" not in sources, "what is declared is remembered"


@pytest.mark.parametrize(
    ("root", "name"), [("s3://lora/1", NEW), ("s3://lora/2", "sql"), ("s3://lora/2/", "sql")]
)
def test_what_pods_had_before_it_was_declared_counts_whoever_loads_it_then(
    root: str, name: str
) -> None:
    declarations = Declarations()
    sources = PlainSources(declarations)
    all_at_once(models_in_steps(listed(sql=root, other="y", long="z" * 3000), roots=sources))
    assert "sql" not in sources, "a root is read once"

    declarations.replace("file", [declared("sql", "s3://lora/2"), declared("long", "s3://lora/2")])
    sources.loaded("sql")

    assert [adapter.served_name for adapter in declarations] == [name, "long"]


def test_a_list_without_usable_roots_says_nothing() -> None:
    assert served(listed(sql=None), listed(sql=7), listed(sql={"a": [1]})) == "sql"


def test_in_place_names_stay() -> None:
    assert served(listed(sql="s3://lora/1"), in_place=True) == "sql"


class InPlace(Loading):
    """Two pods with ``sql``, which is declared from ``/lora/2`` and replaced in place."""

    def __init__(self) -> None:
        super().__init__(
            2,
            listed=("sql",),
            declared=[adapter("sql", source="/lora/2")],
            options=LoaderOptions(in_place=True),
        )
        self.sources = PlainSources(self.declarations)

    def lists(self, root: str) -> None:
        all_at_once(models_in_steps(listed(sql=root), roots=self.sources))

    def replaced(self) -> list[str]:
        """Return which pods replaced it since the last call."""
        calls = [(call.state.pod.name, call.source, call.in_place) for call in self.pods.calls]
        self.pods.calls.clear()
        assert all(call[1:] == ("/lora/2", True) for call in calls)
        return sorted(name for name, _, _ in calls)


@pytest.mark.parametrize("roots", [("/lora/1", "/lora/1"), ("/lora/2", "/lora/1")])
def test_a_source_that_changed_while_no_router_ran_is_replaced_in_place_once_on_each_pod(
    roots: tuple[str, str],
) -> None:
    """Also where the last router ended between the first pod and the second one."""
    loading = InPlace()
    for root in roots:
        loading.lists(root)
    loading.run(60.0)
    assert loading.replaced() == ["pod-1", "pod-2"]

    loading.lists("/cache/sql")
    loading.run(600.0)
    assert loading.replaced() == []


def test_nothing_is_replaced_in_place_if_pods_list_the_declared_source() -> None:
    loading = InPlace()
    loading.lists("/lora/2/")
    loading.run(60.0)
    assert loading.replaced() == []


def test_a_pod_that_was_away_while_the_source_changed_is_replaced_in_place() -> None:
    loading = InPlace()
    loading.declarations.replace("file", [adapter("sql", source="/lora/1")])
    loading.run(10.0)
    loading.fleet.upsert(make_pod(2, lora=loading.state(2).pod.lora, ready=False))
    loading.pods.calls.clear()
    loading.declarations.replace("file", [adapter("sql", source="/lora/2")])
    loading.run(10.0)
    assert loading.replaced() == ["pod-1"]
    loading.fleet.upsert(make_pod(2, lora=loading.state(1).pod.lora))
    loading.run(10.0)
    assert loading.replaced() == ["pod-2"]
