"""Which pods have which beginnings of prompts, as far as the router knows."""

import random
from collections import OrderedDict, deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_prefixes import PrefixUse
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prefix_matches import FEW_PODS
from lora_router.fleet.prefixes import MAX_LEVELS, PrefixIndex
from lora_router.fleet.prompt import Prompt


def pod(name: str) -> PodState:
    return PodState(Pod(name, f"{name}:8000", "", ""))


def prompt(*chunks: int) -> Prompt:
    """A prompt of chunks of 100 tokens."""
    return Prompt(100.0 * len(chunks), chunks, range(100, 100 * len(chunks) + 1, 100))


def had(use: PrefixUse | None) -> float:
    return 0.0 if use is None else use.had


def test_a_pod_has_the_common_beginning_of_what_was_sent_there() -> None:
    index, a, b = PrefixIndex(), pod("a"), pod("b")
    index.sent(a, "sql", prompt(1, 2, 3))
    index.sent(b, "sql", prompt(1, 9))

    assert index.cached("sql", prompt(1, 2, 7, 8)) == {a: 200, b: 100}
    assert index.cached("sql", prompt(5)) == {}


def test_a_prompt_that_is_asked_for_again_gets_the_answer_of_the_moment() -> None:
    index, a, b, c = PrefixIndex(), pod("a"), pod("b"), pod("c")
    asked = prompt(1, 2, 3)
    index.sent(a, "sql", prompt(1))
    assert index.cached("sql", asked) == {a: 100}
    assert index.cached("sql", asked) is index.cached("sql", asked)

    assert index.cached("chat", asked) == {}
    index.sent(b, "sql", prompt(1, 2))
    assert index.cached("sql", asked) == {b: 200, a: 100}
    index.hear(c, "sql", asked.chunks, 300)
    assert index.cached("sql", asked) == {c: 300, b: 200, a: 100}
    index.forget(c)
    assert index.cached("sql", asked) == {b: 200, a: 100}
    index.scraped(b, PodMetrics(scraped_at=1.0, kv_cache_usage=0.0, cache_tokens=100.0))
    assert index.cached("sql", asked) == {a: 100, b: 100}


def test_models_have_nothing_in_common() -> None:
    index, a = PrefixIndex(), pod("a")
    index.sent(a, "sql", prompt(1, 2))

    assert index.cached("chat", prompt(1, 2)) == {}


def test_what_was_used_least_recently_is_forgotten_first_the_end_before_the_beginning() -> None:
    index, a = PrefixIndex(room=400), pod("a")
    index.sent(a, "sql", prompt(1, 2, 3))
    index.sent(a, "sql", prompt(7, 8))

    assert index.cached("sql", prompt(1, 2, 3)) == {a: 200}
    assert index.cached("sql", prompt(7, 8)) == {a: 200}


def test_what_is_sent_again_is_not_forgotten() -> None:
    index, a = PrefixIndex(room=300), pod("a")
    for sent in ((1, 2), (7,), (1, 2), (8,)):
        index.sent(a, "sql", prompt(*sent))

    assert index.cached("sql", prompt(1, 2)) == {a: 200}
    assert index.cached("sql", prompt(7)) == {}


def test_what_a_request_uses_is_used_until_it_ends() -> None:
    index, a = PrefixIndex(room=300), pod("a")
    long_answer = index.sent(a, "sql", prompt(1, 2))
    index.sent(a, "sql", prompt(7))
    assert long_answer is not None
    long_answer.ended()
    index.sent(a, "sql", prompt(8))

    assert index.cached("sql", prompt(1, 2)) == {a: 200}
    assert index.cached("sql", prompt(7)) == {}


def test_what_was_forgotten_meanwhile_stays_forgotten_when_a_request_ends() -> None:
    index, a = PrefixIndex(room=300), pod("a")
    first = index.sent(a, "sql", prompt(1, 2, 3))
    index.sent(a, "sql", prompt(7))
    assert first is not None
    first.ended()

    assert index.cached("sql", prompt(1, 2, 3)) == {a: 200}
    index.forget(a)
    first.ended()
    assert index.cached("sql", prompt(1, 2, 3)) == {}


def test_a_prompt_without_chunks_uses_nothing() -> None:
    assert PrefixIndex().sent(pod("a"), "sql", Prompt(3.0)) is None


def test_a_pod_that_left_has_nothing() -> None:
    index, a = PrefixIndex(), pod("a")
    index.sent(a, "sql", prompt(1))
    index.forget(a)

    assert index.cached("sql", prompt(1)) == {}


def test_sent_says_what_the_pod_had_before() -> None:
    index, a = PrefixIndex(), pod("a")

    assert had(index.sent(a, "sql", prompt(1, 2))) == 0
    assert had(index.sent(a, "sql", prompt(1, 2, 3))) == 200
    assert had(index.sent(a, "chat", prompt(1, 2, 3))) == 0


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
        index, a = PrefixIndex(room=300), pod("a")
        index.sent(a, "sql", prompt(1, 2))
        index.hear(a, "sql", [7, 8], 200)

        assert index.cached("sql", prompt(1, 2)) == {a: 100}

    def test_the_next_turn_that_this_router_sends_takes_its_place(self) -> None:
        index, a = PrefixIndex(room=500), pod("a")
        index.sent(a, "sql", prompt(7))
        index.hear(a, "sql", [2, 3], 300)

        assert had(index.sent(a, "sql", prompt(1, 2, 3, 4))) == 300
        assert index.cached("sql", prompt(1, 2, 3, 4)) == {a: 400}
        assert index.cached("sql", prompt(7)) == {a: 100}
        assert index.count == 5

    def test_what_is_told_again_is_kept_longer(self) -> None:
        index, a = PrefixIndex(room=300), pod("a")
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
        index, a, b = PrefixIndex(room=1e6), pod("a"), pod("b")
        index.sent(a, "sql", prompt(*range(1, 1001)))
        index.forget(a)
        assert index.count == 1000

        for _ in range(20):
            index.sent(b, "sql", prompt(5000))
        assert index.count == 1

    def test_a_pod_that_comes_back_before_that_has_nothing(self) -> None:
        index, a = PrefixIndex(room=1e6), pod("a")
        index.sent(a, "sql", prompt(*range(1, 1001)))
        index.forget(a)

        assert had(index.sent(a, "sql", prompt(1, 2))) == 0
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

    def ended(self, name: str, model: str, sent: Prompt) -> None:
        for chunk in reversed(sent.chunks):
            if (model, chunk) in self.kept[name]:
                self.kept[name].move_to_end((model, chunk))

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


class TestWhatAnswersState:
    """Answers correct the room of a pod."""

    @staticmethod
    def chats(
        index: PrefixIndex, room: int, *, stated: bool = True, chats: int = 12
    ) -> tuple[PodState, int]:
        """Play chats in turn on a pod with room for some prompts of 100 tokens.

        Returns:
            The pod, and how many of the last prompts the index was wrong about.
        """
        a = pod("a")
        cache: OrderedDict[int, None] = OrderedDict()
        rng = random.Random(1)
        wrong = 0
        for turn in range(100 * chats):
            # The popular chats come back sooner.
            name = int(chats * rng.random() ** 2)
            use = index.sent(a, "sql", prompt(name))
            assert use is not None
            has = name in cache
            cache[name] = None
            cache.move_to_end(name)
            if len(cache) > room:
                cache.popitem(last=False)
            use.ended()
            if stated:
                use.stated(100, 100 if has else None, "/v1/chat/completions")
            if turn >= 90 * chats:
                wrong += (use.had > 0) != has
        return a, wrong

    @pytest.mark.parametrize("assumed", [200.0, 5000.0])
    def test_the_room_of_a_pod_of_unknown_size_is_learned(self, assumed: float) -> None:
        index = PrefixIndex(room=assumed)
        a, wrong = self.chats(index, 4)
        _, wrong_otherwise = self.chats(PrefixIndex(room=assumed), 4, stated=False)

        assert wrong < wrong_otherwise
        assert 200 <= index._pods[a].room <= 700

    def test_a_page_that_states_the_size_is_believed_unless_there_is_less_room(self) -> None:
        a = pod("a")
        a.metrics = PodMetrics(scraped_at=1.0, cache_tokens=200.0)
        index = PrefixIndex()
        for name in (1, 2, 3) * 20:
            use = index.sent(a, "sql", prompt(name))
            assert use is not None
            use.stated(100, 100, "")
        assert index._pods[a].room == 200.0

    def test_an_answer_that_states_nothing_says_nothing(self) -> None:
        index, a = PrefixIndex(room=300), pod("a")
        for _ in range(20):
            use = index.sent(a, "sql", prompt(1))
            assert use is not None
            use.stated(100, None, "/v1/completions")
        assert index._pods[a].room == 300

    def test_the_room_has_bounds(self) -> None:
        index, a = PrefixIndex(room=1600), pod("a")
        for _ in range(500):
            use = index.sent(a, "sql", prompt(1))
            assert use is not None
            use.stated(100, 0, "")
        assert index._pods[a].room == pytest.approx(100)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["sql", "chat"]), PATHS), max_size=40
    ),
    st.lists(st.tuples(st.sampled_from(["sql", "chat"]), PATHS), min_size=1, max_size=5),
    st.integers(1, 30),
    st.integers(0, 5),
)
def test_it_answers_as_a_plain_index_does(
    sends: list[tuple[str, str, list[int]]],
    asks: list[tuple[str, list[int]]],
    chunks: int,
    most_running: int,
) -> None:
    index, plain = PrefixIndex(room=100.0 * chunks), Plain(100.0 * chunks)
    pods = {name: pod(name) for name in "abcd"}
    running: deque[tuple[PrefixUse | None, str, str, Prompt]] = deque()
    for name, model, path in sends:
        running.append((index.sent(pods[name], model, named(path)), name, model, named(path)))
        plain.sent(name, model, named(path))
        if len(running) > most_running:
            use, on, of_model, whole = running.popleft()
            assert use is not None
            use.ended()
            plain.ended(on, of_model, whole)
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
