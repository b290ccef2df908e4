"""Which pods have which beginnings of prompts, as far as the router knows."""

from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prefixes import PrefixIndex
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
