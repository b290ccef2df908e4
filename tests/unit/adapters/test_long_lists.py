"""Lists of many declarations are taken in in steps, and other changes come in between."""

from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.adapters import declarations as declarations_module
from lora_router.adapters.declarations import MAX_PLAIN, NAMES_AT_ONCE, Declarations
from lora_router.adapters.declared import MAX_DECLARED, DeclaredAdapter
from lora_router.steps import Steps, all_at_once
from tests.unit.adapters.declared_router import DeclaredRouter, declared
from tests.unit.adapters.loading import Loading, adapters


class Follower:
    """What a listener knows that looks only at the names of which it hears."""

    def __init__(self, declarations: Declarations) -> None:
        self._declarations = declarations
        self.known: dict[str, DeclaredAdapter] = {}
        self.most_names = 0
        declarations.subscribe_to_names(self._heard)

    def _heard(self, names: Collection[str]) -> None:
        self.most_names = max(self.most_names, len(names))
        for name in names:
            adapter = self._declarations.named(name)
            if adapter is None:
                self.known.pop(name, None)
            else:
                self.known[name] = adapter


@pytest.mark.slow
def test_all_of_a_long_list_is_in_use_at_once_and_listeners_hear_of_it_bit_by_bit() -> None:
    declarations = Declarations()
    follower = Follower(declarations)
    ends: list[int] = []
    declarations.subscribe(lambda: ends.append(len(follower.known)))
    some = adapters(5000)
    sizes = [len(declarations) for _ in declarations.replace_in_steps("file", some)]
    assert set(sizes) == {0, 5000}
    assert len(sizes) > 50
    assert list(follower.known.values()) == some
    assert follower.most_names == NAMES_AT_ONCE
    assert ends == [5000]


@pytest.mark.slow
def test_a_list_that_is_replaced_while_it_is_taken_in_is_dropped() -> None:
    declarations = Declarations()
    follower = Follower(declarations)
    first = declarations.replace_in_steps("file", adapters(5000))
    next(first)
    declarations.replace("file", [declared("sql")])
    all_at_once(first)
    assert [each.name for each in declarations] == list(follower.known) == ["sql"]


@pytest.mark.slow
def test_listeners_hear_of_all_names_of_two_long_lists_whichever_is_taken_in_faster() -> None:
    for ahead in range(0, 60, 6):
        declarations = Declarations()
        follower = Follower(declarations)
        of_file = declarations.replace_in_steps("file", adapters(1000))
        others = [declared(f"k{each}", origin="kubernetes") for each in range(1000)]
        of_kubernetes = declarations.replace_in_steps("kubernetes", others)
        for _ in range(ahead):
            next(of_file, None)
        for _ in of_kubernetes:
            next(of_file, None)
        all_at_once(of_file)
        assert follower.known == {each.name: each for each in declarations}
        assert len(declarations) == 2000


def test_what_an_order_withdraws_while_the_name_is_another_ones_does_not_come_back() -> None:
    declarations = Declarations()
    declarations.add("command", declared("sql", origin="command"))
    declarations.replace("file", [declared("sql")])
    work = declarations.replace_in_steps("file", adapters(1000))
    for _ in range(2):
        next(work)  # All origins are merged now. The names that changed are not in use yet.
    assert declarations.discard("command", "sql")
    all_at_once(work)
    assert "sql" not in declarations


def test_what_is_declared_one_by_one_meanwhile_is_not_lost() -> None:
    declarations = Declarations()
    follower = Follower(declarations)
    declarations.add("template", declared("old", origin="template"))
    declarations.replace("file", [declared("sql")])
    work = declarations.replace_in_steps("file", [declared("sql"), *adapters(2000)])
    next(work)
    declarations.add("template", declared("new", origin="template"))
    declarations.discard("template", "old")
    declarations.plain_is_other("sql")
    all_at_once(work)
    assert {"new", "a1999"} <= follower.known.keys()
    assert "old" not in declarations
    assert follower.known == {each.name: each for each in declarations}
    sql = declarations.named("sql")
    assert sql is not None
    assert sql.version, "pods have another source under the name alone"


@st.composite
def _lists(draw: st.DrawFn) -> list[DeclaredAdapter]:
    names = draw(st.lists(st.sampled_from("abcdef"), unique=True))
    return [
        declared(
            name,
            f"s3://lora/{draw(st.integers(1, 2))}",
            share=draw(st.sampled_from((10, 100))),
            aliases=tuple({draw(st.sampled_from("xyzab"))} - {name}),
        )
        for name in names
    ]


class Play:
    """Lists, orders and templates come while others are taken in."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.declarations = Declarations()
        self.follower = Follower(self.declarations)
        self.lists: dict[str, list[DeclaredAdapter]] = {}
        self.added: dict[str, dict[str, DeclaredAdapter]] = {"command": {}, "template": {}}
        self.works: list[Steps[None]] = []

    def replace(self) -> None:
        origin = self.data.draw(st.sampled_from(("file", "kubernetes")))
        of_origin = [replace(each, origin=origin) for each in self.data.draw(_lists())]
        self.lists[origin] = of_origin
        self.works.append(self.declarations.replace_in_steps(origin, of_origin))
        next(self.works[-1], None)

    def add(self) -> None:
        origin = self.data.draw(st.sampled_from(("command", "template")))
        name, version = self.data.draw(st.tuples(st.sampled_from("abcx"), st.sampled_from("12")))
        adapter = declared(name, f"s3://lora/{version}", version=version, origin=origin)
        if self.declarations.add(origin, adapter) or name in self.added[origin]:
            self.added[origin][name] = adapter

    def discard(self) -> None:
        origin = self.data.draw(st.sampled_from(("command", "template")))
        name = self.data.draw(st.sampled_from("abcx"))
        was_added = self.added[origin].pop(name, None) is not None
        assert self.declarations.discard(origin, name) == was_added

    def find_other(self) -> None:
        self.declarations.plain_is_other(self.data.draw(st.sampled_from("abcdef")))

    def go_on(self) -> None:
        if self.works:
            next(self.data.draw(st.sampled_from(self.works)), None)

    def end(self) -> None:
        for work in self.data.draw(st.permutations(self.works)):
            all_at_once(work)

    def fresh(self) -> Declarations:
        """Return the same as if it had been declared from nothing."""
        fresh = Declarations()
        for origin, of_origin in self.added.items():
            all_at_once(fresh.replace_added(origin, of_origin.values()))
        for origin, some in self.lists.items():
            fresh.replace(origin, some)
        return fresh


@pytest.mark.slow
@given(st.data())
def test_listeners_know_what_is_declared_whatever_comes_in_between(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # So that short lists take many steps, too.
        patch.setattr(declarations_module, "_MERGED_AT_ONCE", 2)
        patch.setattr(declarations_module, "NAMES_AT_ONCE", 2)
        play = Play(data)
        moves = [play.replace, play.add, play.discard, play.find_other, play.go_on, play.go_on]
        for _ in range(data.draw(st.integers(1, 20))):
            data.draw(st.sampled_from(moves))()
        play.end()
    declarations = play.declarations
    assert not declarations.is_telling
    assert play.follower.known == {each.name: each for each in declarations}
    assert _described(declarations) == _described(play.fresh())
    for adapter in tuple(declarations):
        assert declarations.get(adapter.name) is adapter
        for alias in adapter.aliases:
            assert declarations.get(alias) is not None


def _described(declarations: Declarations) -> dict[str, tuple[str, str, set[str]]]:
    """Return what is declared, without the versions that the past decides."""
    return {
        adapter.name: (
            adapter.origin,
            adapter.source,
            {alias for alias in adapter.aliases if declarations.get(alias) is adapter},
        )
        for adapter in declarations
    }


@pytest.mark.slow
def test_orders_and_templates_cost_the_same_however_many_adapters_are_declared() -> None:
    declarations = Declarations()
    declarations.replace("file", adapters(3000))
    follower = Follower(declarations)
    assert declarations.add("command", declared("sql", origin="command"))
    assert declarations.add("command", declared("sql", "s3://lora/2", origin="command"))
    assert follower.most_names == 1
    assert declarations.discard("command", "sql")
    assert not declarations.discard("command", "sql")
    assert follower.known == {}


@pytest.mark.slow
def test_the_sources_of_names_that_are_gone_are_forgotten_in_the_end() -> None:
    declarations = Declarations()
    stays = adapters(100)
    declarations.replace("file", stays)
    for number in range(MAX_PLAIN + 1000):
        name = f"tenant-{number}"
        declarations.add("template", declared(name, origin="template"))
        declarations.discard("template", name)
    assert len(declarations._plain) <= MAX_PLAIN + 1
    declarations.plain_is_other("a1")
    declarations.replace("file", stays)
    assert [each.version != "" for each in list(declarations)[:3]] == [False, True, False]


@pytest.mark.slow
def test_the_loader_plans_when_it_has_heard_of_the_whole_list() -> None:
    loading = Loading(2, memory=4)
    loading.run(1.0)
    work = loading.declarations.replace_in_steps("file", adapters(1000))
    while not loading.declarations.is_telling:
        next(work)
    next(work)
    loading.clock.advance(1.0)
    assert not loading.loader.plan.by_name
    all_at_once(work)
    loading.clock.advance(1.0)
    assert len(loading.loader.plan.by_name) == 8


@pytest.mark.slow
def test_moves_of_many_versions_go_on_in_short_turns() -> None:
    count = 300
    router = DeclaredRouter(*(declared(f"a-{each}", version="1") for each in range(count)))
    router.clock.advance(1.0)
    router.lists(1, [f"a-{each}@1" for each in range(count)])
    router.clock.advance(1.0)
    router.declare(*(declared(f"a-{each}", version="2") for each in range(count)))
    router.clock.advance(1.0)
    router.lists(2, [f"a-{each}@2" for each in range(count)])
    router.clock.advance(60.0)
    assert all(router.shares(f"a-{each}") == {f"a-{each}@2"} for each in range(count))


@pytest.mark.slow
def test_more_are_not_declared_than_may_be() -> None:
    declarations = Declarations()
    declarations.replace("kubernetes", adapters(MAX_DECLARED - 1))
    assert declarations.add("template", declared("one", origin="template"))
    assert not declarations.add("template", declared("two", origin="template"))
