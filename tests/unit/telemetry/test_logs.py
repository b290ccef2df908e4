"""Log lines."""

import json
import logging
from collections.abc import Iterator

import pytest

from lora_router.telemetry.logs import configure_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "text")

    logging.getLogger("lora_router.x").info("pod %s is gone", "a")
    logging.getLogger("lora_router.x").debug("not shown")

    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("INFO    lora_router.x: pod a is gone\n")


def test_json_is_one_object_a_line_with_the_error_in_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("debug", "json")
    try:
        raise KeyError("gone")
    except KeyError:
        logging.getLogger("lora_router.x").exception("it broke: %s", "ä")

    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["level"] == "error"
    assert record["logger"] == "lora_router.x"
    assert record["message"] == "it broke: ä"
    assert "KeyError: 'gone'" in record["error"]
    assert record["time"].endswith("+00:00")
