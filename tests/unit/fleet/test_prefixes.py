"""Which pods have which beginnings of prompts, as far as the router knows."""

from collections import OrderedDict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prefix_matches import FEW_PODS
from lora_router.fleet.prefixes import MAX_LEVELS, PrefixIndex
from lora_router.fleet.prompt import Prompt


def pod(name: str) -> PodState:
    return PodState(Pod(name, f"{name}:8000", "", ""))


def prompt(*chunks: int) -> Prompt:
    """A prompt of chunks of 100 tokens."""
    return Prompt(100.0 * len(chunks), chunks, range(100, 100 * len(chunks) + 1, 100))


def test_a_pod_has_the_common_beginning_of_what_was_sent_there() -> None:
    index, a, b = PrefixIndex(), pod("a"), pod("b")
    index.sent(a, "sql", prompt(1, 2, 3))
    index.sent(b, "sql", prompt(1, 9))

    assert index.cached("sql", prompt(1, 2, 7, 8)) == {a: 200, b: 100}
    assert index.cached("sql", prompt(5)) == {}


def test_models_have_nothing_in_common() -> None:
    index, a = PrefixIndex(), pod("a")
    index.sent(a, "sql", prompt(1, 2))

    assert index.cached("chat", prompt(1, 2)) == {}


def test_what_was_used_least_recently_is_forgotten_first_the_end_before_the_beginning() -> None:
    index, a = PrefixIndex(), pod("a")
    index.resize(a, 400)
    index.sent(a, "sql", prompt(1, 2, 3))
    index.sent(a, "sql", prompt(7, 8))

    assert index.cached("sql", prompt(1, 2, 3)) == {a: 200}
    assert index.cached("sql", prompt(7, 8)) == {a: 200}


def test_what_is_sent_again_is_not_forgotten() -> None:
    index, a = PrefixIndex(), pod("a")
    index.resize(a, 300)
    for sent in ((1, 2), (7,), (1, 2), (8,)):
        index.sent(a, "sql", prompt(*sent))

    assert index.cached("sql", prompt(1, 2)) == {a: 200}
    assert index.cached("sql", prompt(7)) == {}


def test_a_pod_that_left_has_nothing() -> None:
    index, a = PrefixIndex(), pod("a")
    index.sent(a, "sql", prompt(1))
    index.forget(a)

    assert index.cached("sql", prompt(1)) == {}


def test_sent_says_what_the_pod_had_before() -> None:
    index, a = PrefixIndex(), pod("a")

    assert index.sent(a, "sql", prompt(1, 2)) == 0
    assert index.sent(a, "sql", prompt(1, 2, 3)) == 200
    assert index.sent(a, "chat", prompt(1, 2, 3)) == 0


def test_the_pods_with_the_most_come_first() -> None:
    index, pods = PrefixIndex(), [pod(str(number)) for number in range(4)]
    for number, each in enumerate(pods):
        index.sent(each, "sql", prompt(*range(1, 2 + number)))

    assert list(index.cached("sql", prompt(1, 2, 3, 4))) == pods[::-1]


def test_of_very_many_lengths_the_longest_are_told_apart() -> None:
    index, pods = PrefixIndex(), [pod(str(number)) for number in range(3 * MAX_LEVELS)]
    for number, each in enumerate(pods):
        index.sent(each, "sql", prompt(*range(1, 2 + number)))

    found = index.cached("sql", prompt(*range(1, 100)))

    assert [found[each] for each in pods[-MAX_LEVELS:]] == (
        [100.0 * number for number in range(2 * MAX_LEVELS + 1, 3 * MAX_LEVELS + 1)]
    )
    assert {found[each] for each in pods[:-MAX_LEVELS]} == {100.0}


def test_of_many_pods_each_is_worked_out_when_it_is_asked() -> None:
    index, pods = PrefixIndex(), [pod(str(number)) for number in range(3 * FEW_PODS)]
    for each in pods[1:]:
        index.sent(each, "sql", prompt(1))
    index.sent(pods[7], "sql", prompt(1, 2))

    found = index.cached("sql", prompt(1, 2, 3))

    assert (found[pods[7]], found[pods[8]], found.get(pods[0], 0.0)) == (200, 100, 0.0)
    assert len(found) == len(pods) - 1
    assert next(iter(found)) is pods[7]
    assert set(found) == set(pods[1:])
    assert found.get(pod("unknown")) is None


PAGE = PodMetrics(0.0, running=0.0, kv_cache_usage=0.0, started_at=1.0, cache_tokens=400.0)


class TestPages:
    """What a pod's page says of its cache."""

    def test_a_page_states_how_much_room_there_is(self) -> None:
        index, a = PrefixIndex(), pod("a")
        index.sent(a, "sql", prompt(1, 2, 3))
        index.scraped(a, replace(PAGE, cache_tokens=200.0))

        assert index.cached("sql", prompt(1, 2, 3)) == {a: 200}

    def test_a_pod_that_was_scraped_before_its_first_prompt_has_its_size(self) -> None:
        index, a = PrefixIndex(), pod("a")
        a.metrics = replace(PAGE, cache_tokens=200.0)
        index.sent(a, "sql", prompt(1, 2, 3))

        assert index.cached("sql", prompt(1, 2, 3)) == {a: 200}

    def test_a_pod_that_keeps_nothing_has_nothing(self) -> None:
        index, a = PrefixIndex(), pod("a")
        a.metrics = replace(PAGE, cache_tokens=0.0)
        index.sent(a, "sql", prompt(1, 2, 3))

        assert index.cached("sql", prompt(1, 2, 3)) == {}

    def test_what_running_requests_generated_takes_room(self) -> None:
        index, a = PrefixIndex(), pod("a")
        index.sent(a, "sql", prompt(1, 2))
        index.sent(a, "sql", prompt(5, 6))
        # One of the prompts runs and takes 200 of the 300 tokens in use.
        index.scraped(a, replace(PAGE, running=1.0, kv_cache_usage=0.75))

        assert index.cached("sql", prompt(1, 2)) == {a: 100}
        assert index.cached("sql", prompt(5, 6)) == {a: 200}

    def test_prompts_of_running_requests_take_none_beside_what_they_are(self) -> None:
        index, a = PrefixIndex(), pod("a")
        index.sent(a, "sql", prompt(1, 2))
        index.sent(a, "sql", prompt(5, 6))
        index.scraped(a, replace(PAGE, running=2.0, kv_cache_usage=1.0))

        assert index.cached("sql", prompt(1, 2)) == {a: 200}

    @pytest.mark.parametrize(
        ("before", "after", "has"),
        [
            (PAGE, PAGE, True),
            (PAGE, replace(PAGE, started_at=2.0), False),
            (
                replace(PAGE, started_at=None, generated_tokens=100.0),
                replace(PAGE, started_at=None, generated_tokens=120.0),
                True,
            ),
            (
                replace(PAGE, started_at=None, generated_tokens=100.0),
                replace(PAGE, started_at=None, generated_tokens=20.0),
                False,
            ),
        ],
    )
    def test_a_server_that_was_started_again_has_nothing(
        self, before: PodMetrics, after: PodMetrics, has: bool
    ) -> None:
        index, a = PrefixIndex(), pod("a")
        index.sent(a, "sql", prompt(1))
        index.scraped(a, before)
        index.scraped(a, after)

        assert bool(index.cached("sql", prompt(1))) is has

    def test_the_fleet_tells_the_index(self) -> None:
        fleet = Fleet()
        fleet.upsert(pod("a").pod)
        a = fleet.get("a")
        assert a is not None
        fleet.prefixes.sent(a, "sql", prompt(1))
        fleet.put_metrics(a, PAGE)
        assert fleet.prefixes.cached("sql", prompt(1)) == {a: 100}

        fleet.put_metrics(a, replace(PAGE, started_at=2.0))
        assert fleet.prefixes.cached("sql", prompt(1)) == {}

    def test_another_server_of_the_same_name_has_nothing(self) -> None:
        fleet = Fleet()
        fleet.upsert(pod("a").pod)
        a = fleet.get("a")
        assert a is not None
        fleet.prefixes.sent(a, "sql", prompt(1))

        fleet.upsert(replace(a.pod, uid="another"))

        assert fleet.prefixes.cached("sql", prompt(1)) == {}


class TestPeers:
    """What peers sent."""

    def test_a_pod_has_what_a_peer_sent_there(self) -> None:
        index, a, b = PrefixIndex(), pod("a"), pod("b")
        index.sent(b, "sql", prompt(1))
        index.hear(a, "sql", [2, 3], 300)

        assert index.cached("sql", prompt(1, 2, 3, 4)) == {a: 300, b: 100}
        assert index.cached("sql", prompt(1, 2, 7)) == {a: 200, b: 100}
        assert index.cached("chat", prompt(1, 2, 3)) == {}

    def test_the_longer_of_what_both_sent_counts(self) -> None:
        index, a, b = PrefixIndex(), pod("a"), pod("b")
        index.sent(a, "sql", prompt(1, 2, 3))
        index.sent(b, "sql", prompt(1))
        index.hear(a, "sql", [2], 0)
        index.hear(b, "sql", [4], 300)

        found = index.cached("sql", prompt(1, 2, 3, 4))
        assert found == {b: 400, a: 300}
        assert next(iter(found)) is b

    def test_it_takes_room(self) -> None:
        index, a = PrefixIndex(), pod("a")
        index.resize(a, 300)
        index.sent(a, "sql", prompt(1, 2))
        index.hear(a, "sql", [7, 8], 200)

        assert index.cached("sql", prompt(1, 2)) == {a: 100}

    def test_the_next_turn_that_this_router_sends_takes_its_place(self) -> None:
        index, a = PrefixIndex(), pod("a")
        index.resize(a, 500)
        index.sent(a, "sql", prompt(7))
        index.hear(a, "sql", [2, 3], 300)

        assert index.sent(a, "sql", prompt(1, 2, 3, 4)) == 300
        assert index.cached("sql", prompt(1, 2, 3, 4)) == {a: 400}
        assert index.cached("sql", prompt(7)) == {a: 100}
        assert index.count == 5

    def test_what_is_told_again_is_kept_longer(self) -> None:
        index, a = PrefixIndex(), pod("a")
        index.resize(a, 300)
        for name in (1, 2, 1, 3, 1, 4):
            index.hear(a, "sql", [name], 100 if name != 1 or not index.count else 0)

        assert index.cached("sql", prompt(1)) == {a: 100}
        assert index.cached("sql", prompt(2)) == {}

    def test_a_pod_that_left_has_nothing_of_it(self) -> None:
        index, a = PrefixIndex(), pod("a")
        index.hear(a, "sql", [1, 2], 200)
        index.forget(a)
        index.sent(pod("b"), "sql", prompt(9))

        assert index.cached("sql", prompt(1, 2)) == {}
        assert index.count == 1


class TestBounds:
    def test_beyond_the_bound_the_chunks_used_least_recently_are_forgotten(self) -> None:
        index, a, b = PrefixIndex(max_chunks=4), pod("a"), pod("b")
        index.sent(a, "sql", prompt(1, 2))
        index.sent(b, "sql", prompt(1, 2))
        index.sent(a, "sql", prompt(5))

        assert index.cached("sql", prompt(1, 2)) == {a: 100, b: 100}
        assert index.count == 3

    def test_the_bound_holds_for_all_pods_together(self) -> None:
        index, pods = PrefixIndex(max_chunks=1000), [pod(str(number)) for number in range(50)]
        for number in range(500):
            index.sent(pods[number % 50], "sql", prompt(*range(10 * number, 10 * number + 10)))

            assert index.count <= 1000

    def test_what_a_pod_had_that_left_is_removed_by_later_calls(self) -> None:
        index, a, b = PrefixIndex(), pod("a"), pod("b")
        index.resize(a, 1e6)
        index.sent(a, "sql", prompt(*range(1, 1001)))
        index.forget(a)
        assert index.count == 1000

        for _ in range(20):
            index.sent(b, "sql", prompt(5000))
        assert index.count == 1

    def test_a_pod_that_comes_back_before_that_has_nothing(self) -> None:
        index, a = PrefixIndex(), pod("a")
        index.resize(a, 1e6)
        index.sent(a, "sql", prompt(*range(1, 1001)))
        index.forget(a)

        assert index.sent(a, "sql", prompt(1, 2)) == 0
        assert index.cached("sql", prompt(1, 2, 3)) == {a: 200}


class Plain:
    """The same index without anything that makes it fast."""

    def __init__(self, room: float) -> None:
        self.room = room
        self.kept: dict[str, OrderedDict[tuple[str, int], float]] = {}

    def sent(self, name: str, model: str, sent: Prompt) -> None:
        kept = self.kept.setdefault(name, OrderedDict())
        for chunk in reversed(sent.chunks):
            kept[model, chunk] = 100.0
            kept.move_to_end((model, chunk))
        while sum(kept.values()) > self.room:
            kept.popitem(last=False)

    def cached(self, model: str, asked: Prompt) -> dict[str, float]:
        found = {}
        for name, kept in self.kept.items():
            for chunk, end in zip(asked.chunks, asked.ends, strict=True):
                if (model, chunk) not in kept:
                    break
                found[name] = end
        return found


PATHS = st.lists(st.integers(1, 3), min_size=1, max_size=8)


def named(path: list[int]) -> Prompt:
    """A prompt whose names depend on all numbers before."""
    return prompt(*(hash(tuple(path[: end + 1])) & (1 << 64) - 1 for end in range(len(path))))


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["sql", "chat"]), PATHS), max_size=40
    ),
    st.lists(st.tuples(st.sampled_from(["sql", "chat"]), PATHS), min_size=1, max_size=5),
    st.integers(1, 30),
)
def test_it_answers_as_a_plain_index_does(
    sends: list[tuple[str, str, list[int]]], asks: list[tuple[str, list[int]]], chunks: int
) -> None:
    index, plain = PrefixIndex(), Plain(100.0 * chunks)
    pods = {name: pod(name) for name in "abcd"}
    for each in pods.values():
        index.resize(each, plain.room)
    for name, model, path in sends:
        index.sent(pods[name], model, named(path))
        plain.sent(name, model, named(path))
        for asked_model, asked in asks:
            found = index.cached(asked_model, named(asked))
            assert {each.pod.name: end for each, end in found.items()} == (
                plain.cached(asked_model, named(asked))
            )


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["send", "hear", "leave"]), PATHS),
        max_size=60,
    ),
    st.integers(1, 20),
)
def test_counts_stay_true_whatever_happens(
    events: list[tuple[str, str, list[int]]], most: int
) -> None:
    index = PrefixIndex(max_chunks=most)
    pods = {name: pod(name) for name in "abcdef"}
    for name, what, path in events:
        if what == "send":
            index.sent(pods[name], "sql", named(path))
        elif what == "hear":
            index.hear(pods[name], "sql", named(path).chunks[-2:], 100.0)
        else:
            index.forget(pods[name])
        records = (*index._pods.values(), *index._left)
        kept = [key for each in records for key in each.chunks]
        assert index.count == len(kept) <= most
        assert index.count == sum(pods.bit_count() for pods in index._having.values())
        assert index._marks == sum(key < 0 for key in kept)
        for each in records:
            assert each.tokens == pytest.approx(sum(each.chunks.values()))
        found = index.cached("sql", named(path))
        assert list(found.values()) == sorted(found.values(), reverse=True)
