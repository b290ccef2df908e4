"""Pods from a YAML file that is read again whenever it changes.

A file that is wrong at the start stops the start. Later, a bad edit (or a file that has gone) is
logged once, and the last good list stays in use.
"""

import asyncio
import difflib
import hashlib
import ipaddress
import logging
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lora_router.discovery.fleet_update import update_fleet
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.supervision import Supervisor, cancel, describe
from lora_router.threads import in_thread
from lora_router.yaml_document import YamlDocumentError, parse_yaml, read_file

log = logging.getLogger("lora_router.discovery")

_KEYS = ("name", "address", "metrics", "models", "labels", "ready", "engine")
_MAX_FILE_BYTES = 16 * 1024 * 1024
ENGINES = ("vllm", "sglang")
_SHOWN_CHARACTERS = 60

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = _SHOWN_CHARACTERS
_shown = _short.repr
"""Spells a value for an error, without its full length."""


class PodsFileError(ValueError):
    """The file does not list pods; the message says which entry, which key, and what is allowed."""


def parse_pods(content: bytes | str) -> tuple[Pod, ...]:
    """Return the pods that a file lists.

    Raises:
        PodsFileError: It does not list pods.
    """
    try:
        document = parse_yaml(content)
    except YamlDocumentError as error:
        raise PodsFileError(str(error)) from None
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
            close = difflib.get_close_matches(str(key)[:_SHOWN_CHARACTERS], _KEYS, 1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(_KEYS)}"
            raise PodsFileError(f"{where}: unknown key {_shown(key)}{hint}")
    name = entry.get("name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise PodsFileError(f"{where}: name={_shown(name)}: must be a non-empty string")
    where = f"pod {_shown(name)}"
    address = parse_address(where, entry.get("address"))
    ready = entry.get("ready", True)
    if not isinstance(ready, bool):
        raise PodsFileError(f"{where}: ready={_shown(ready)}: must be true or false")
    engine = entry.get("engine")
    if engine is not None and engine not in ENGINES:
        raise PodsFileError(
            f"{where}: engine={_shown(engine)}: must be one of {', '.join(ENGINES)}"
        )
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
        f"{where}: address={_shown(value)}: must be ip:port, or [ip]:port for IPv6 (a host name is "
        "not possible: Envoy resolves none here)"
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
    raise PodsFileError(f"{where}: metrics={_shown(value)}: must be an http or https URL")


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
        f"{where}: models={_shown(value)}: must be a list of different names, the base model's "
        "first"
    )


def _labels(where: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise PodsFileError(
            f"{where}: labels={_shown(value)}: must be a mapping of strings to strings"
        )
    labels = {}
    for key, label in value.items():
        # `gpus: 8` is a number to YAML and a label to people.
        if not isinstance(key, str) or isinstance(label, bool) or not isinstance(label, str | int):
            raise PodsFileError(
                f"{where}: labels: {_shown(key)}: {_shown(label)}: key and value must be strings"
                " (quote true, false, and what looks like a date)"
            )
        labels[key] = str(label)
    return labels


def _refuse_doubles(what: str, values: Sequence[str]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise PodsFileError(f"two pods have the {what} {_shown(value)}")
        seen.add(value)


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at the file found."""

    digest: bytes
    """Of the content, or of what was wrong where there is none."""
    error: str | None = None
    fault: Exception | None = None
    """The exception behind it, if it is none that is known to come from bad files."""
    pods: Mapping[str, Pod] = field(default_factory=dict)
    """The list, by name."""
    changed: tuple[Pod, ...] = ()
    """Pods that are new or differ from those of the last good list."""
    gone: tuple[str, ...] = ()
    """Names of that list which are not in this one."""


class PodsFile:
    """Applies the file's list of pods to the fleet, again after each change of the file."""

    def __init__(
        self,
        path: Path,
        fleet: Fleet,
        *,
        interval: float = 1.0,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it; nothing is read yet.

        Args:
            path: The file, or a symbolic link to it. A link that is swapped (a mounted ConfigMap)
                is followed.
            fleet: What the pods are applied to.
            interval: Seconds between two looks at the file.
            supervisor: Runs the task. By default one that nobody else knows.
            clock: Returns seconds, monotonic.
        """
        self._path = path
        self._fleet = fleet
        self._interval = interval
        self._supervisor = supervisor or Supervisor()
        self._clock = clock
        self._digest = b""
        self._known: Mapping[str, Pod] = {}
        self._looked_at = clock()
        self._task: asyncio.Task[None] | None = None
        self.last_error: str | None = None
        """What is wrong with the file as it is now; ``None`` if it is the list in use."""

    async def start(self) -> None:
        """Load the list and begin to watch the file.

        Raises:
            PodsFileError: The file cannot be read or is wrong.
        """
        await self._look()
        if self.last_error is not None:
            raise PodsFileError(self.last_error)
        self._task = self._supervisor.keep("pods-file", self._watch, about=str(self._path))

    async def synced(self) -> None:
        """Wait until there is a list, which there is once this is started."""

    def status(self) -> dict[str, object]:
        """Return what ``/readyz`` shows."""
        status: dict[str, object] = {
            "discovery": "file",
            "pods_file_age_seconds": round(self._clock() - self._looked_at, 1),
        }
        if self.last_error is not None:
            status["discovery_error"] = self.last_error
        return status

    async def stop(self) -> None:
        """Stop watching. The list stays as it is."""
        task, self._task = self._task, None
        if task is not None:
            await cancel({task})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._look()

    async def _look(self) -> None:
        """Read the file, and apply it if it changed.

        The file is read, parsed and compared in a thread, and applied in pieces: a list of 20,000
        pods takes more than a second of CPU, in which requests must be served.
        """
        last, known = self._digest, self._known
        found = await in_thread(lambda: _look_at(self._path, last, known), "pods-file")
        self._looked_at = self._clock()
        if found.digest == self._digest:
            return
        if found.error is not None:
            self._refused(found)
            return
        await update_fleet(self._fleet, found.changed, found.gone)
        self._fleet.synced = True
        # Only now: if that failed, the next run of the task does it again.
        self._digest = found.digest
        self._known = found.pods
        self.last_error = None
        log.info("%s lists %d pods", self._path, len(found.pods))

    def _refused(self, found: _Look) -> None:
        if found.fault is not None:
            self._supervisor.failed("pods-file", found.fault, about=str(self._path))
        self._digest = found.digest
        self.last_error = f"{self._path}: {found.error}"
        if self._fleet.synced:
            log.error(
                "%s; the last good list of %d pods stays in use", self.last_error, len(self._fleet)
            )


def _look_at(path: Path, last: bytes, known: Mapping[str, Pod]) -> _Look:
    """Read the file in full: its size and time stamp can stay the same across an edit."""
    try:
        content = read_file(path, max_bytes=_MAX_FILE_BYTES)
    except YamlDocumentError as error:
        return _Look(b"unreadable: " + str(error).encode(), str(error))
    digest = hashlib.blake2b(content).digest()
    if digest == last:
        return _Look(digest)
    try:
        pods = parse_pods(content)
    except PodsFileError as error:
        return _Look(digest, str(error))
    except Exception as error:
        # A fault of this process, but one that only this content is known to cause.
        return _Look(digest, f"cannot be read: {describe(error)}", fault=error)
    by_name = {pod.name: pod for pod in pods}
    return _Look(
        digest,
        pods=by_name,
        changed=tuple(pod for pod in pods if known.get(pod.name) != pod),
        gone=tuple(known.keys() - by_name.keys()),
    )
