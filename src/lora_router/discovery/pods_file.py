"""Discovery of pods through a YAML file, which is reloaded when it changes.

An invalid file aborts startup. After startup, an invalid edit (or a file that is gone) is logged
once, and the last valid list stays in use.
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
"""Returns a value for an error message, shortened."""


class PodsFileError(ValueError):
    """The file is not a list of pods. The message names the entry, the key and what is allowed."""


def parse_pods(content: bytes | str) -> tuple[Pod, ...]:
    """Return the pods that a file lists.

    Raises:
        PodsFileError: The content is not a list of pods.
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
    """Return an endpoint in canonical form, ``ip:port`` or ``[ip]:port``.

    Raises:
        PodsFileError: The value is not an endpoint. A host name is refused too: the header must
            contain an IP address, since Envoy's ORIGINAL_DST cluster does not resolve names.
    """
    error = PodsFileError(
        f"{where}: address={_shown(value)}: must be ip:port, or [ip]:port for IPv6 (a host name is "
        "not allowed, since Envoy does not resolve it)"
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
        f"{where}: models={_shown(value)}: must be a list of different names, with the base "
        "model first"
    )


def _labels(where: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise PodsFileError(
            f"{where}: labels={_shown(value)}: must be a mapping of strings to strings"
        )
    labels = {}
    for key, label in value.items():
        # YAML reads `gpus: 8` as a number.
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
    """The result of reading the file once."""

    digest: bytes
    """Digest of the content, or the error if the file has none."""
    error: str | None = None
    fault: Exception | None = None
    """The exception behind ``error``, if it is an unexpected one."""
    pods: Mapping[str, Pod] = field(default_factory=dict)
    """The list, by name."""
    changed: tuple[Pod, ...] = ()
    """Pods that are new or differ from the last valid list."""
    gone: tuple[str, ...] = ()
    """Names that are only in the last valid list."""


class PodsFile:
    """Applies the list of pods in a file to the fleet, and again after each change of the file."""

    def __init__(
        self,
        path: Path,
        fleet: Fleet,
        *,
        interval: float = 1.0,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it. The file is not read yet.

        Args:
            path: The file, or a symbolic link to it. A link that is replaced (a mounted ConfigMap)
                is followed.
            fleet: Receives the pods.
            interval: Seconds between two reads of the file.
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
        """Why the current file is not in use, or ``None`` if it is."""

    async def start(self) -> None:
        """Load the list and start to watch the file.

        Raises:
            PodsFileError: The file cannot be read or is invalid.
        """
        await self._look()
        if self.last_error is not None:
            raise PodsFileError(self.last_error)
        self._task = self._supervisor.keep("pods-file", self._watch, about=str(self._path))

    async def synced(self) -> None:
        """Return at once: ``start`` has loaded the list."""

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        status: dict[str, object] = {
            "discovery": "file",
            "pods_file_age_seconds": round(self._clock() - self._looked_at, 1),
        }
        if self.last_error is not None:
            status["discovery_error"] = self.last_error
        return status

    async def stop(self) -> None:
        """Stop watching. The fleet keeps its pods."""
        task, self._task = self._task, None
        if task is not None:
            await cancel({task})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._look()

    async def _look(self) -> None:
        """Read the file, and apply it if it changed.

        The file is read, parsed and compared in a thread, and applied in chunks: a list of 20,000
        pods takes more than a second of CPU, during which requests must be served.
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
        # Store it only now: if the update failed, the next run of the task repeats it.
        self._digest = found.digest
        self._known = found.pods
        self.last_error = None
        log.info("loaded %d pods from %s", len(found.pods), self._path)

    def _refused(self, found: _Look) -> None:
        if found.fault is not None:
            self._supervisor.failed("pods-file", found.fault, about=str(self._path))
        self._digest = found.digest
        self.last_error = f"{self._path}: {found.error}"
        if self._fleet.synced:
            log.error(
                "%s; the last valid list of %d pods stays in use", self.last_error, len(self._fleet)
            )


def _look_at(path: Path, last: bytes, known: Mapping[str, Pod]) -> _Look:
    """Read the whole file, since its size and time stamp can stay the same across an edit."""
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
        # An unexpected fault, caused by this content: another content may be fine.
        return _Look(digest, f"cannot be read: {describe(error)}", fault=error)
    by_name = {pod.name: pod for pod in pods}
    return _Look(
        digest,
        pods=by_name,
        changed=tuple(pod for pod in pods if known.get(pod.name) != pod),
        gone=tuple(known.keys() - by_name.keys()),
    )
