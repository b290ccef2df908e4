"""The settings of names of models."""

from pathlib import Path

import pytest

from lora_router.config.settings import Settings
from lora_router.config.sources import SettingsError, load_settings

CANARY = {"gpt-small": {"sql-lora-v1": 90, "sql-lora-v2": 10}}


def in_environment(text: str) -> Settings:
    environ = {"LORA_ROUTER_MODEL_REWRITES": text}
    return load_settings(file=None, environ=environ, flags={}).settings


def test_rewrites_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_text(
        "model_rewrites:\n"
        "  gpt-small: {sql-lora-v1: 90, sql-lora-v2: 10}\n"
        "  gpt-4*: llama\n"
        "  canary: v1:95|v2:5\n"
    )

    settings = load_settings(file=file, environ={}, flags={}).settings

    assert settings.model_rewrites == {
        **CANARY,
        "gpt-4*": {"llama": 1},
        "canary": {"v1": 95, "v2": 5},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpt-small=sql-lora-v1:90|sql-lora-v2:10", CANARY),
        ("a=b, c = d ", {"a": {"b": 1}, "c": {"d": 1}}),
        ("a=base:adapter", {"a": {"base:adapter": 1}}),
        ("a=base:adapter:3", {"a": {"base:adapter": 3}}),
        ("a=a:95|b:5", {"a": {"a": 95, "b": 5}}),
        ("*=base", {"*": {"base": 1}}),
    ],
)
def test_rewrites_in_the_environment(text: str, expected: dict[str, dict[str, int]]) -> None:
    assert in_environment(text).model_rewrites == expected


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a=",
        "=b",
        "a=b|b",
        "a=b:0",
        "a=b:1000001",
        "a=b:-1",
        "a=b:0.5",
        "a*b=c",
        "a=" + "b" * 513,
    ],
)
def test_what_cannot_be_a_rewrite_is_an_error_that_says_what_can(text: str) -> None:
    with pytest.raises(SettingsError, match=r"MODEL_REWRITES=.*must be name=target:weight"):
        in_environment(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_rewrites": "a=b,b=c"}, "'a' leads to 'b', which is rewritten itself"),
        ({"model_rewrites": "a=b,b=a"}, "'a' leads to 'b', which is rewritten itself"),
        ({"unknown_model": "base"}, "requires unknown_model_base"),
        ({"unknown_model_base": "llama"}, "requires unknown_model=base"),
        ({"inference_model_rewrites": "true"}, "requires inference_pool"),
        ({"rewrite_sticky_header": "model"}, "two headers have the name 'model'"),
        ({"model_rewrite_header": "model"}, "two headers have the name 'model'"),
    ],
)
def test_settings_that_contradict_each_other(values: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.model_validate(values)
