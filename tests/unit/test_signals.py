"""Signals that come before there is anything to stop."""

import signal
from collections.abc import Iterator

import pytest

from lora_router.signals import Stops


@pytest.fixture
def stops() -> Iterator[Stops]:
    """Signals that are held, until the test has ended."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    held = Stops()
    held.hold()
    yield held
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_there_is_anything_to_stop_is_kept(
    stops: Stops, number: signal.Signals
) -> None:
    stopped: list[bool] = []
    signal.raise_signal(number)
    stops.follow(lambda: stopped.append(True))
    assert len(stopped) == 1
    signal.raise_signal(number)
    assert len(stopped) == 2


def test_without_a_signal_nothing_is_stopped(stops: Stops) -> None:
    stops.follow(lambda: pytest.fail("nobody asked for it"))


def test_a_second_signal_before_there_is_anything_to_stop_ends_the_process(stops: Stops) -> None:
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143


def test_when_the_process_ends_signals_are_ignored(stops: Stops) -> None:
    stops.follow(lambda: pytest.fail("it has stopped already"))
    stops.ignore()
    signal.raise_signal(signal.SIGTERM)
