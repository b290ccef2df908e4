"""What a reload applies, what it only says, and that invalid settings change nothing."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from lora_router.app import App
from lora_router.config.sources import load_settings
from lora_router.reload import Reload


class Router:
    """A router with a file of settings, which is not started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "router.yaml"
        (directory / "pods.yaml").write_text("pods: []")
        self.flags: dict[str, object] = {}
        self.write(log_level="info")
        load = partial(load_settings, file=self.file, environ={}, flags=self.flags)
        settings = load().settings
        self.app = App(settings)
        self.reload = Reload(self.app, settings, load)

    def write(self, **settings: object) -> None:
        """Write the file of settings."""
        lines = {"endpoints": "pods.yaml", "grpc_port": 0, "admin_port": 0, **settings}
        self.file.write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))


@pytest.fixture
def level() -> Iterator[logging.Logger]:
    """Keep the level of the router's loggers."""
    ours, root = logging.getLogger("lora_router"), logging.getLogger()
    levels = ours.level, root.level
    ours.setLevel("INFO")
    yield ours
    ours.setLevel(levels[0])
    root.setLevel(levels[1])


@pytest_asyncio.fixture
async def router(tmp_path: Path, level: logging.Logger) -> AsyncIterator[Router]:
    router = Router(tmp_path)
    yield router
    await router.app.stop()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages of a reload, without its first."""
    return [message for message in caplog.messages if not message.startswith("SIGHUP: ")]


async def test_unchanged_settings_change_nothing(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    await router.reload.reload()

    assert said(caplog) == []
    assert caplog.messages == ["SIGHUP: reloading settings, pods file and TLS files"]


async def test_the_level_of_the_log_is_applied(
    router: Router, level: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    router.write(log_level="debug")
    await router.reload.reload()
    await router.reload.reload()

    assert level.level == logging.DEBUG
    assert said(caplog) == ["settings reloaded: log_level=debug"]


async def test_a_flag_stays_stronger_than_the_file(router: Router, level: logging.Logger) -> None:
    router.flags["log_level"] = "error"
    router.write(log_level="debug")
    await router.reload.reload()

    assert level.level == logging.ERROR


async def test_what_needs_a_restart_is_said_in_one_line_and_without_values(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    changes: Mapping[str, object] = {"grpc_max_streams": 7, "pod_api_key": "s3cret"}
    router.write(log_level="warning", **changes)
    await router.reload.reload()

    assert said(caplog)[-1] == (
        "changed settings that need a restart: grpc_max_streams, pod_api_key"
    )
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("log_level: loud\n", "line 1: log_level: loud: must be one of debug, info"),
        ("grpc_prt: 1\n", "line 1: grpc_prt: unknown setting; did you mean 'grpc_port'?"),
        ("log_level: [", "router.yaml: line 2, column 1: not YAML"),
    ],
)
async def test_invalid_settings_change_nothing_and_are_logged_as_at_a_start(
    router: Router,
    level: logging.Logger,
    caplog: pytest.LogCaptureFixture,
    content: str,
    error: str,
) -> None:
    router.file.write_text(content)
    await router.reload.reload()

    assert level.level == logging.INFO
    assert len(said(caplog)) == 1
    assert said(caplog)[0].startswith("settings not reloaded, the old ones stay in use: ")
    assert error in said(caplog)[0]


@pytest.mark.slow
async def test_of_many_errors_some_are_logged(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    router.file.write_text("".join(f"unknown_{number}: 1\n" for number in range(500)))
    await router.reload.reload()

    assert len(said(caplog)) == 21
    assert said(caplog)[-1] == "480 more errors in the settings"


async def test_a_file_that_is_gone_changes_nothing(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    router.file.unlink()
    await router.reload.reload()

    assert "router.yaml: cannot be read: No such file" in caplog.text


async def test_the_files_that_it_follows_are_read_again_whatever_the_settings(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    monkeypatch.setattr(router.app.discovery, "refresh", lambda: reads.append("pods file"))
    router.file.write_text("log_level: loud")

    await router.reload.reload()

    assert reads == ["pods file"]


async def test_each_request_is_followed_by_a_reload(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    reloads = asyncio.Queue[None]()
    monkeypatch.setattr(router.app, "refresh", lambda: reloads.put_nowait(None))
    router.app.supervisor.keep("reload", router.reload.run)

    for _ in range(3):
        router.reload.request()
        await asyncio.wait_for(reloads.get(), 60)
