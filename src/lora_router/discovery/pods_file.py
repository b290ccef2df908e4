"""Pods from a YAML file that is read again whenever it changes.

A file that is wrong at the start stops the start. Later, a bad edit (or a file that has gone) is
logged once, and the last good list stays in use.
"""

import asyncio
import difflib
import hashlib
import ipaddress
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod

log = logging.getLogger("lora_router.discovery")

_KEYS = ("name", "address", "metrics", "models", "labels", "ready", "engine")
_MAX_FILE_BYTES = 16 * 1024 * 1024
ENGINES = ("vllm", "sglang")


class PodsFileError(ValueError):
    """The file does not list pods; the message says which entry, which key, and what is allowed."""


def parse_pods(text: str) -> tuple[Pod, ...]:
    """Read a list of pods.

    Raises:
        PodsFileError: It is none.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PodsFileError(f"not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise PodsFileError("not YAML: nested too deeply") from None
    if not isinstance(document, dict) or list(document) != ["pods"]:
        raise PodsFileError("must be a mapping with the one key 'pods'")
    entries = document["pods"]
    if not isinstance(entries, list):
        raise PodsFileError("'pods' must be a list (an empty one is '[]')")
    pods = tuple(_pod(number, entry) for number, entry in enumerate(entries, start=1))
    _refuse_doubles("name", [pod.name for pod in pods])
    _refuse_doubles("address", [pod.address for pod in pods])
    return pods


def _pod(number: int, entry: object) -> Pod:
    where = f"pod {number}"
    if not isinstance(entry, dict):
        raise PodsFileError(f"{where}: must be a mapping with the keys {', '.join(_KEYS)}")
    for key in entry:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, 1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(_KEYS)}"
            raise PodsFileError(f"{where}: unknown key {key!r}{hint}")
    name = entry.get("name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise PodsFileError(f"{where}: name={name!r}: must be a non-empty string")
    where = f"pod {name!r}"
    address = parse_address(where, entry.get("address"))
    ready = entry.get("ready", True)
    if not isinstance(ready, bool):
        raise PodsFileError(f"{where}: ready={ready!r}: must be true or false")
    engine = entry.get("engine")
    if engine is not None and engine not in ENGINES:
        raise PodsFileError(f"{where}: engine={engine!r}: must be one of {', '.join(ENGINES)}")
    return Pod(
        name=name,
        address=address,
        metrics_url=_url(where, entry.get("metrics", f"http://{address}/metrics")),
        models_url=f"http://{address}/v1/models",
        ready=ready,
        models=_models(where, entry.get("models")),
        engine=engine,
        labels=_labels(where, entry.get("labels", {})),
    )


def parse_address(where: str, value: object) -> str:
    """Return an endpoint in its usual spelling, ``ip:port`` or ``[ip]:port``.

    Raises:
        PodsFileError: It is none. A host name is none either: what goes into the header must be
            an IP address, since Envoy's ORIGINAL_DST cluster resolves no names.
    """
    error = PodsFileError(
        f"{where}: address={value!r}: must be ip:port, or [ip]:port for IPv6 (a host name is not "
        "possible: Envoy resolves none here)"
    )
    if not isinstance(value, str):
        raise error
    host, _, port = value.rpartition(":")
    try:
        if host.startswith("[") and host.endswith("]"):
            ip = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        else:
            ip = str(ipaddress.IPv4Address(host))
    except ValueError:
        raise error from None
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise error
    return f"{ip}:{int(port)}"


def _url(where: str, value: object) -> str:
    if isinstance(value, str):
        try:
            parts = urlsplit(value)
            if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
                return value
        except ValueError:
            pass
    raise PodsFileError(f"{where}: metrics={value!r}: must be an http or https URL")


def _models(where: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if (
        isinstance(value, list)
        and value
        and all(isinstance(name, str) and name for name in value)
        and len(set(value)) == len(value)
    ):
        return tuple(value)
    raise PodsFileError(
        f"{where}: models={value!r}: must be a list of different names, the base model's first"
    )


def _labels(where: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise PodsFileError(f"{where}: labels={value!r}: must be a mapping of strings to strings")
    labels = {}
    for key, label in value.items():
        # `gpus: 8` is a number to YAML and a label to people.
        if not isinstance(key, str) or isinstance(label, bool) or not isinstance(label, str | int):
            raise PodsFileError(
                f"{where}: labels: {key!r}: {label!r}: key and value must be strings"
                " (quote true, false, and what looks like a date)"
            )
        labels[key] = str(label)
    return labels


def _refuse_doubles(what: str, values: Sequence[str]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise PodsFileError(f"two pods have the {what} {value!r}")
        seen.add(value)


class PodsFile:
    """Keeps the cache in step with the file."""

    def __init__(self, path: Path, fleet: Fleet, *, interval: float = 1.0) -> None:
        """Prepare.

        Args:
            path: The file. A symbolic link that is swapped (a mounted ConfigMap) will do.
            fleet: What to keep in step.
            interval: Seconds between looks.
        """
        self._path = path
        self._fleet = fleet
        self._interval = interval
        self._digest = b""
        self._task: asyncio.Task[None] | None = None
        self.last_error: str | None = None
        """What is wrong with the file as it is now; ``None`` if it is the list in use."""

    async def start(self) -> None:
        """Load the list and begin to watch the file.

        Raises:
            PodsFileError: The file cannot be read or is wrong.
        """
        self._look()
        if self.last_error is not None:
            raise PodsFileError(self.last_error)
        self._task = asyncio.create_task(self._watch())

    async def synced(self) -> None:
        """Wait until there is a list, which there is once this is started."""

    def status(self) -> dict[str, object]:
        """Return what ``/readyz`` shows."""
        told: dict[str, object] = {"discovery": "file"}
        if self.last_error is not None:
            told["discovery_error"] = self.last_error
        return told

    async def stop(self) -> None:
        """Stop watching. The list stays as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            self._look()

    def _look(self) -> None:
        # Read every time: size and time stamps can stay the same across an edit, and a list of a
        # thousand pods is read and hashed in well under a millisecond.
        try:
            with self._path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            self._failed(f"cannot be read: {error.strerror}", b"unreadable")
            return
        digest = hashlib.blake2b(content).digest()
        if digest == self._digest:
            return
        if len(content) > _MAX_FILE_BYTES:
            self._failed(f"is longer than {_MAX_FILE_BYTES} bytes", digest)
            return
        try:
            pods = parse_pods(content.decode())
        except (PodsFileError, UnicodeDecodeError) as error:
            self._failed(str(error), digest)
            return
        self._digest = digest
        self.last_error = None
        self._fleet.replace(pods)
        log.info("%s lists %d pods", self._path, len(pods))

    def _failed(self, why: str, digest: bytes) -> None:
        if digest != self._digest:
            self._digest = digest
            self.last_error = f"{self._path}: {why}"
            if self._fleet.synced:
                log.error(
                    "%s; the last good list of %d pods stays", self.last_error, len(self._fleet)
                )
