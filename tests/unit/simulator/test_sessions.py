"""Sessions: each prompt begins with all that was said before, and has the blocks to show it."""

import random
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise, takewhile

import pytest

from lora_router.simulator.lengths import Even
from lora_router.simulator.sessions import LONGEST_PROMPT, SessionMaker, Sessions, Turn
from lora_router.simulator.trace import BASE_MODEL, Arrival, Workload, make_trace

CHATS = Sessions(
    turns=Even(3, 3), first_prompt=Even(100, 300), growth=Even(400, 600), think_seconds=10.0
)
ANSWERS = Even(50, 250)


def session(sessions: Sessions = CHATS, *, answers: Even = ANSWERS) -> list[Turn]:
    return list(SessionMaker(sessions, answers).turns(random.Random(1), "sql"))


def trace(sessions: Sessions, *, seconds: float = 300.0, **workload: float) -> list[Arrival]:
    described = replace(Workload(6, zipf=1.0, sessions=sessions), **workload)  # type: ignore[arg-type]
    return list(make_trace(described, rate=20.0, seconds=seconds, seed=1))


def in_common(first: Turn, second: Turn) -> int:
    """Return how many tokens of blocks two prompts begin with alike."""
    pairs = zip(first.blocks, second.blocks, strict=False)
    return CHATS.block_tokens * len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def test_a_prompt_is_the_previous_one_with_its_answer_and_a_new_message() -> None:
    turns = session()

    assert len(turns) == 3
    assert [turn.after > 0 for turn in turns] == [False, True, True]
    for before, after in pairwise(turns):
        said = before.prompt_tokens + before.output_tokens
        assert after.prompt_tokens - before.prompt_tokens in range(400, 601)
        assert said - CHATS.block_tokens < in_common(before, after) <= said


def test_a_prompt_grows_by_its_answer_at_least() -> None:
    turns = session(replace(CHATS, growth=Even(10, 10)), answers=Even(80, 80))
    assert [after.prompt_tokens - before.prompt_tokens for before, after in pairwise(turns)] == [
        81,
        81,
    ]


def test_sessions_of_one_adapter_share_their_system_prompt_and_nothing_else() -> None:
    maker = SessionMaker(replace(CHATS, system_tokens=200), ANSWERS)
    rng = random.Random(1)
    sql, more_sql, chat = (next(maker.turns(rng, model)) for model in ("sql", "sql", "chat"))

    assert in_common(sql, more_sql) == 192  # Three blocks of 64: the fourth one is not whole.
    assert in_common(sql, chat) == 0
    assert not set(sql.blocks[3:]) & set(more_sql.blocks)
    assert min(turn.prompt_tokens for turn in (sql, more_sql, chat)) >= 300


def test_a_session_ends_before_its_prompt_is_too_long() -> None:
    turns = session(replace(CHATS, turns=Even(9, 9), growth=Even(400_000, 400_000)))
    assert len(turns) == 3
    assert turns[-1].prompt_tokens <= LONGEST_PROMPT


# In a trace


def test_a_session_goes_on_after_its_answer_and_the_time_to_think() -> None:
    slow = replace(CHATS, think_seconds=0.0, answer_tokens_per_second=10.0)
    assert [turn.after for turn in session(slow, answers=Even(50, 50))] == [0.0, 5.0, 5.0]


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_rate_counts_all_requests_and_holds_from_the_first_second(share: float) -> None:
    made = trace(replace(CHATS, share=share))
    parts = Counter(int(arrival.at // 60) for arrival in made)

    assert [arrival.at for arrival in made] == sorted(arrival.at for arrival in made)
    assert len(made) == pytest.approx(6_000, rel=0.05)
    assert all(count == pytest.approx(1_200, rel=0.15) for count in parts.values())
    assert sum(bool(arrival.blocks) for arrival in made) == pytest.approx(
        share * len(made), rel=0.05
    )


@pytest.mark.slow
def test_a_session_has_one_adapter() -> None:
    models = defaultdict(set)
    for arrival in trace(CHATS, base_share=0.3):
        models[arrival.blocks[0]].add(arrival.model)

    assert all(len(each) == 1 for each in models.values())
    of_sessions = Counter(model for each in models.values() for model in each)
    assert of_sessions[BASE_MODEL] / of_sessions.total() == pytest.approx(0.3, abs=0.03)


def test_a_seed_gives_the_same_sessions_again() -> None:
    assert trace(CHATS, seconds=20.0) == trace(CHATS, seconds=20.0)
