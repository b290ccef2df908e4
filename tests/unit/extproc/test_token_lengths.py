"""How many bytes a token has, as answers show."""

import pytest

from lora_router.extproc.token_lengths import (
    LEAST_BYTES,
    MAX_MODELS,
    MOST_BYTES,
    TokenLengths,
)
from lora_router.fleet.prompt import TOKEN_BYTES


def test_before_any_answer_a_token_has_the_usual_length() -> None:
    assert TokenLengths().of("sql") == TOKEN_BYTES


def test_what_answers_state_is_learned_by_model() -> None:
    lengths = TokenLengths()
    for _ in range(10):
        lengths.learn("english", 4800, 1000)
        lengths.learn("code", 3000, 1000)

    assert lengths.of("english") == pytest.approx(4.8)
    assert lengths.of("code") == pytest.approx(3.0)


def test_a_model_without_answers_has_the_length_of_all() -> None:
    lengths = TokenLengths()
    lengths.learn("sql", 5000, 1000)

    assert lengths.of("another adapter") == pytest.approx(5.0)


def test_longer_prompts_count_for_more() -> None:
    lengths = TokenLengths()
    lengths.learn("sql", 100, 100)  # A template around a few words.
    lengths.learn("sql", 40_000, 10_000)

    assert lengths.of("sql") == pytest.approx(4.0, rel=0.02)


def test_what_changes_is_learned_anew() -> None:
    lengths = TokenLengths()
    for _ in range(100):
        lengths.learn("sql", 8000, 1000)
    for _ in range(1000):
        lengths.learn("sql", 3000, 1000)

    assert lengths.of("sql") == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(
    ("size", "tokens", "length"),
    [(0, 100, TOKEN_BYTES), (100, 0, TOKEN_BYTES), (1, 10**9, LEAST_BYTES), (10**9, 1, MOST_BYTES)],
)
def test_what_cannot_be_true_is_not_believed(size: int, tokens: int, length: float) -> None:
    lengths = TokenLengths()
    lengths.learn("sql", size, tokens)

    assert lengths.of("sql") == length


def test_the_number_of_models_is_bounded() -> None:
    lengths = TokenLengths()
    for number in range(MAX_MODELS + 10):
        lengths.learn(f"adapter-{number}", 5000, 1000)
    for _ in range(200):
        lengths.learn("adapter-1009", 3000, 1000)

    assert len(lengths._models) == MAX_MODELS
    assert lengths.of("adapter-0") == pytest.approx(lengths.of("never seen"))
