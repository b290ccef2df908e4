"""YAML reads ``on`` and ``off`` as true and false. Settings that are switches take both."""

from pathlib import Path

import pytest

from lora_router.config.settings import Settings
from lora_router.config.sources import SettingsError, load_settings


def in_file(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return load_settings(file=file, environ={}, flags={"endpoints": "pods.yaml"}).settings


@pytest.mark.parametrize("written", ["on", "'on'", "true"])
def test_on_is_on_however_yaml_reads_it(written: str, tmp_path: Path) -> None:
    settings = in_file(tmp_path, f"tokens: {written}\nresponse_headers: {written}\n")

    assert (settings.tokens, settings.response_headers) == ("on", "on")


@pytest.mark.parametrize("written", ["off", "'off'", "false"])
def test_off_is_off_however_yaml_reads_it(written: str, tmp_path: Path) -> None:
    assert in_file(tmp_path, f"tokens: {written}\n").tokens == "off"


def test_another_word_names_the_setting_and_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="tokens: maybe: must be one of off, on, all"):
        in_file(tmp_path, "tokens: maybe\n")
