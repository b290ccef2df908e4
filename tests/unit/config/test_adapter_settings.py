"""The settings of declared adapters."""

from pathlib import Path

import pytest

from lora_router.config.settings import Settings
from lora_router.config.sources import SettingsError, load_settings


def test_prefixes_of_sources_are_joined_by_commas() -> None:
    environ = {"LORA_ROUTER_ADAPTER_SOURCES": "s3://lora/team, /srv/adapters"}
    settings = load_settings(file=None, environ=environ, flags={}).settings
    assert settings.adapter_sources == ["s3://lora/team", "/srv/adapters"]
    assert settings.loads_adapters


def test_the_file_is_relative_to_the_settings_file_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_text("adapters_file: adapters.yaml\n")
    settings = load_settings(file=file, environ={}, flags={}).settings
    assert settings.adapters_file == tmp_path / "adapters.yaml"
    assert settings.loads_adapters
    assert not Settings().loads_adapters


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"ADAPTER_SOURCES": "s3://lora/../x"},
            "LORA_ROUTER_ADAPTER_SOURCES=s3://lora/../x: must be beginnings of sources",
        ),
        ({"MODEL_ADAPTERS": "true"}, "model_adapters: requires adapter_sources"),
        (
            {"ADAPTER_UPDATE": "in-place", "ADAPTER_MOVE_SECONDS": "60"},
            "adapter_move_seconds=60: requires adapter_update=beside",
        ),
        ({"ADAPTER_UPDATE": "now"}, "must be one of beside, in-place"),
        ({"ADAPTER_LOADS_AT_ONCE": "0"}, "must be a whole number from 1 to 256"),
        ({"ADAPTER_MIN_COPIES": "65"}, "must be a whole number from 1 to 64"),
    ],
)
def test_what_is_wrong_is_named(environ: dict[str, str], message: str) -> None:
    names = {f"LORA_ROUTER_{name}": value for name, value in environ.items()}
    with pytest.raises(SettingsError) as error:
        load_settings(file=None, environ=names, flags={})
    assert message in str(error.value)
