"""The access log of the printed Envoy has the numbers of tokens, if the router reads them."""

import pytest

from lora_router.config.settings import Settings
from lora_router.envoy.access_log import log_fields

NUMBERS = {
    name: f"%DYNAMIC_METADATA(io.lora_router:{name})%"
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens")
}


@pytest.mark.parametrize(("tokens", "logged"), [("off", {}), ("on", NUMBERS), ("all", NUMBERS)])
def test_numbers_of_tokens_are_logged_with_the_setting(tokens: str, logged: dict[str, str]) -> None:
    fields = log_fields(Settings.model_validate({"tokens": tokens}))

    assert {name: text for name, text in fields.items() if "tokens" in name} == logged
