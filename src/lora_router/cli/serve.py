"""``lora-router serve``."""

import os
import resource
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lora_router.cli.options import (
    Algorithm,
    Assignments,
    ConfigFile,
    Endpoints,
    fail,
    load,
    source,
)


class LogLevel(StrEnum):
    """Values of the setting ``log_level``."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """Values of the setting ``log_format``."""

    TEXT = "text"
    JSON = "json"


def serve(
    config: ConfigFile = None,
    endpoints: Endpoints = None,
    algorithm: Algorithm = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(
            metavar="LEVEL",
            help="Log this and above: debug, info, warning, error.",
            show_default=False,
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(metavar="FORMAT", help="Format of log lines: text, json.", show_default=False),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log at level debug, every decision included.")
    ] = False,
    assignments: Assignments = None,
) -> None:
    """Answer Envoy's ext_proc calls until SIGTERM, then drain."""
    flags: dict[str, object] = {
        "endpoints": endpoints,
        "algorithm": algorithm,
        "log_level": None if log_level is None else log_level.value,
        "log_format": None if log_format is None else log_format.value,
    }
    spelled = {}
    if verbose:
        if log_level is not None:
            fail("--verbose and --log-level exclude each other", status=2)
        flags["log_level"] = LogLevel.DEBUG.value
        spelled["log_level"] = "--verbose "
    loaded = load(config, assignments, flags, spelled)
    _raise_descriptor_limit()
    _provide_home()
    # grpcio writes its own log to standard error, in threads that serve, and blocks there.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")

    import uvloop

    from lora_router.routing.registry import BrokenAlgorithmError
    from lora_router.serving import serve as serve_app
    from lora_router.telemetry.logs import configure_logging

    configure_logging(loaded.settings.log_level, loaded.settings.log_format)
    try:
        reload = source(config, assignments, flags, spelled)
        uvloop.run(serve_app(loaded.settings, reload))
    except ValueError as error:
        # Invalid settings, or a file that they name: the pods, the adapters, a token.
        _end(error, status=2)
    except (OSError, BrokenAlgorithmError) as error:
        _end(error, status=1)


def _end(error: Exception, *, status: int) -> NoReturn:
    from lora_router.telemetry.logs import say

    say("\n".join(f"lora-router: {line}" for line in str(error).splitlines()))
    sys.exit(status)


def _raise_descriptor_limit() -> None:
    """Use as many file descriptors as the process may: each connection takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _provide_home() -> None:
    """Set ``HOME`` to ``/`` where the process has no home directory.

    The Kubernetes client looks for ``~/.kube`` when it is imported, and that fails for a user
    without ``HOME`` and without an entry in ``/etc/passwd``, as containers often have.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"
