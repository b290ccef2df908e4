"""How this router proves to pods that it may read them, and how pods prove that they are pods.

Keys, tokens and certificates are in files, which are read again and again: tokens of service
accounts rotate, certificates are renewed. A file that cannot be used is logged once, and what was
read last stays in use. Keys are never logged or shown.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from pydantic import SecretStr

from lora_router.readable_content import readable
from lora_router.supervision import Supervisor, every
from lora_router.threads import in_thread
from lora_router.yaml_document import YamlDocumentError, read_file

log = logging.getLogger("lora_router.scrape")

INTERVAL_SECONDS = 5.0
_MAX_TOKEN_BYTES = 16 * 1024
_MAX_PEM_BYTES = 4 * 1024 * 1024
_NO_HEADERS: Mapping[str, str] = {}


class PodAccessError(ValueError):
    """A file cannot be used. The message names the setting and the file, and no secret."""


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """Keys, and the files with keys and certificates."""

    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    metrics_token_file: Path | None = None
    ca_file: Path | None = None
    """``None``: the authorities of the system."""
    server_name: str | None = None
    """The name in the pods' certificates. ``None``: the host of each URL."""
    skip_verify: bool = False
    certificate_file: Path | None = None
    key_file: Path | None = None

    @property
    def files(self) -> Mapping[str, tuple[Path, int]]:
        """The files by setting, and how long each may be."""
        named = {
            "pod_api_key_file": (self.api_key_file, _MAX_TOKEN_BYTES),
            "pod_metrics_token_file": (self.metrics_token_file, _MAX_TOKEN_BYTES),
            "pod_tls_ca_file": (self.ca_file, _MAX_PEM_BYTES),
            "pod_tls_cert_file": (self.certificate_file, _MAX_PEM_BYTES),
            "pod_tls_key_file": (self.key_file, _MAX_PEM_BYTES),
        }
        return {name: (path, most) for name, (path, most) in named.items() if path is not None}


@dataclass(frozen=True, slots=True)
class Access:
    """What the files contained at one time, ready for use."""

    digest: bytes = b""
    """Identifies the contents."""
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What the files contained, by setting."""
    tls: ssl.SSLContext | bool = True
    """``True``: the default of the HTTP client."""
    metrics_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers of a request for metrics."""
    api_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers of all other requests."""


def load_access(options: AccessOptions, used: bytes | None = None) -> Access | None:
    """Return what the files contain; ``None``: their contents have the digest ``used``.

    Raises:
        PodAccessError: A file cannot be read or used.
    """
    contents = _read(options)
    return None if _digest(contents) == used else access_of(options, contents)


def access_of(options: AccessOptions, contents: Mapping[str, bytes]) -> Access:
    """Return what is to be used with files that contain this, by setting.

    Raises:
        PodAccessError: They cannot be used.
    """
    api_key = options.api_key.get_secret_value() if options.api_key is not None else None
    if options.api_key_file is not None:
        api_key = _token("pod_api_key_file", options.api_key_file, contents)
    token = None
    if options.metrics_token_file is not None:
        token = _token("pod_metrics_token_file", options.metrics_token_file, contents)
    tls = _context(options, contents)
    return Access(_digest(contents), contents, tls, _bearer(token), _bearer(api_key))


class PodAccess:
    """Follows the files. Can be used without files, and without being started."""

    def __init__(
        self,
        options: AccessOptions | None = None,
        *,
        kept: Mapping[str, bytes] | None = None,
        interval: float = INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the files.

        Args:
            options: The files. Default: none.
            kept: What they contained when they could last be used, for when they cannot be used
                now.
            interval: Seconds between two reads of the files.
            clock: Returns seconds, monotonic.

        Raises:
            PodAccessError: A file cannot be read or used, and nothing was kept.
        """
        self._options = options or AccessOptions()
        self._interval = interval
        self._clock = clock
        self._due = asyncio.Event()
        self._refused_since = 0.0
        self.error: str | None = None
        """Why the files are not in use, or ``None`` if they are."""
        try:
            self.current = load_access(self._options) or Access()
            """What to use now."""
        except PodAccessError as error:
            if kept is None:
                raise
            self.current = access_of(self._options, kept)
            self._refused(error)

    @property
    def server_name(self) -> str | None:
        """The name that pods' certificates must have; ``None``: the host of each URL."""
        return self._options.server_name

    @property
    def refused_seconds(self) -> float:
        """Seconds for which the files have held something that cannot be used; 0: they are used."""
        return 0.0 if self.error is None else self._clock() - self._refused_since

    def start(self, supervisor: Supervisor) -> None:
        """Start to follow the files, if there are any."""
        if self._options.files:
            supervisor.keep("pod-access", self._watch)

    def warn(self) -> None:
        """Log what an operator must know, at the start of a router."""
        if self._options.skip_verify:
            log.warning("%s", _SKIPPED)

    def refresh(self) -> None:
        """Read the files now."""
        self._due.set()

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        status: dict[str, object] = {}
        if self._options.skip_verify:
            status["pod_tls_warning"] = _SKIPPED
        if self.error is not None:
            status["pod_access_error"] = f"{self.error}; for {self.refused_seconds:.0f} s"
        return status

    async def look(self) -> None:
        """Read the files, and use what is in them if it is new."""
        options, used = self._options, self.current.digest
        try:
            found = await in_thread(lambda: load_access(options, used), "pod-access")
        except PodAccessError as error:
            self._refused(error)
            return
        if found is not None:
            self.current = found
            log.info("the keys and certificates for pods were read again: they had changed")
        elif self.error is not None:
            log.info("the keys and certificates for pods are those in use again")
        self.error = None

    def _refused(self, error: PodAccessError) -> None:
        if self.error is None:
            self._refused_since = self._clock()
        if str(error) != self.error:
            self.error = str(error)
            log.error("%s; what was read last stays in use", error)

    async def _watch(self) -> None:
        await every(self._interval, self._due, self.look)


_SKIPPED = (
    "pod_tls_skip_verify: certificates of pods are not verified; anybody between the router and a "
    "pod can read the keys and invent the pages"
)


def _read(options: AccessOptions) -> Mapping[str, bytes]:
    contents = {}
    for name, (path, most) in options.files.items():
        try:
            contents[name] = read_file(path, max_bytes=most)
        except YamlDocumentError as error:
            raise PodAccessError(f"{name}: {path}: {error}") from None
    return contents


def _digest(contents: Mapping[str, bytes]) -> bytes:
    digest = blake2b(digest_size=32)
    for name, content in contents.items():
        digest.update(b"%s\0%d\0" % (name.encode(), len(content)))
        digest.update(content)
    return digest.digest()


def _token(name: str, path: Path, contents: Mapping[str, bytes]) -> str:
    token = contents[name].strip()
    if not token or not all(0x21 <= byte <= 0x7E for byte in token):
        raise PodAccessError(
            f"{name}: {path}: must contain printable ASCII characters without spaces"
        )
    return token.decode("ascii")


def _bearer(token: str | None) -> Mapping[str, str]:
    return _NO_HEADERS if token is None else {"authorization": f"Bearer {token}"}


def _context(options: AccessOptions, contents: Mapping[str, bytes]) -> ssl.SSLContext | bool:
    if options.ca_file is None and options.certificate_file is None and not options.skip_verify:
        return True
    authorities = contents.get("pod_tls_ca_file")
    try:
        # Python would take an empty file for none, and trust the authorities of the system.
        if authorities is not None and not authorities.strip():
            raise ValueError("it is empty")
        context = ssl.create_default_context(
            cadata=None if authorities is None else authorities.decode("ascii", "replace")
        )
    except (OSError, ValueError) as error:
        raise PodAccessError(
            f"pod_tls_ca_file: {options.ca_file}: contains no PEM certificates: {_reason(error)}"
        ) from None
    if options.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.certificate_file is not None:
        try:
            with (
                readable(contents["pod_tls_cert_file"]) as certificate,
                readable(contents["pod_tls_key_file"]) as key,
            ):
                # Without a password, OpenSSL would ask for one on the terminal.
                context.load_cert_chain(certificate, key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise PodAccessError(
                f"pod_tls_cert_file: {options.certificate_file} and pod_tls_key_file: "
                f"{options.key_file}: not a PEM certificate and its private key: {_reason(error)}"
            ) from None
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error)
