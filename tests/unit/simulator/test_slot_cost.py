"""Waiting for slots: both models of a pod, compared with measurements of a real vLLM 0.32.0.

Its server had two slots, tokens of about 11 ms, a first step of about 45 ms for twelve requests,
and adapters so small that a load cost nothing. Requests sent at once are 0.1 ms apart here.
"""

from statistics import median

import pytest

from lora_router.simulator.engine_options import EngineOptions
from tests.unit.simulator.models import Ask, Model, Tokens, by_events, by_steps

MEASURED = EngineOptions(
    max_loras=2,
    step_seconds=0.010,
    step_seconds_per_request=0.0002,
    prefill_seconds_per_token=0.0003,
    host_load_seconds=0.0,
    disk_load_seconds=0.0,
)
PROMPT_TOKENS = 9
APART = 0.0001

both_models = pytest.mark.parametrize("model", [by_steps, by_events])


def waits(asks: list[Ask], tokens: list[Tokens]) -> list[float]:
    """Return each request's time to its first token, in seconds."""
    return [first - ask[0] for ask, (first, _) in zip(asks, tokens, strict=True)]


@both_models
@pytest.mark.parametrize(
    ("adapters", "p50_ms", "max_ms"),
    [
        (1, 47, 47),
        (2, 47, 47),
        (3, 43, 689),
        (4, 519, 987),
        (6, 833, 1438),
        (8, 778, 2215),
    ],
)
def test_twelve_short_requests_over_so_many_adapters(
    model: Model, adapters: int, p50_ms: float, max_ms: float
) -> None:
    asks: list[Ask] = [(n * APART, f"a{n % adapters}", PROMPT_TOKENS, 66) for n in range(12)]
    times = [wait * 1000 for wait in waits(asks, model(MEASURED, asks))]

    assert median(times) == pytest.approx(p50_ms, rel=0.25)
    assert max(times) == pytest.approx(max_ms, rel=0.25)


@both_models
def test_five_adapters_with_long_answers_wait_for_whole_generations(model: Model) -> None:
    asks: list[Ask] = [(n * APART, f"a{n + 1}", PROMPT_TOKENS, 500) for n in range(5)]
    times = waits(asks, model(MEASURED, asks))

    assert max(times[:2]) == pytest.approx(0.03, rel=0.25)
    assert times[2:] == pytest.approx([5.1, 5.1, 9.9], rel=0.25)


@both_models
def test_an_adapter_starves_while_two_others_keep_their_slots(model: Model) -> None:
    """a1 and a2 get a request every 2 s that takes longer than 2 s; a3 waits until that stops."""
    hot: list[Ask] = [
        (2.0 * turn + after, name, PROMPT_TOKENS, 250)
        for turn in range(9)
        for name, after in (("a1", 0.0), ("a2", APART))
    ]
    asks: list[Ask] = [*hot, (0.1, "a3", PROMPT_TOKENS, 10)]
    tokens = model(MEASURED, asks)
    *of_the_hot, starved = waits(asks, tokens)

    assert starved == pytest.approx(18.6, rel=0.25)
    assert max(of_the_hot) < 0.044 * 1.25
    a3_began, last_of_a1_ended = tokens[-1][0], tokens[-3][1]
    assert a3_began > last_of_a1_ended
