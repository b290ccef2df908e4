"""Addresses of Valkey or Redis, as they stand in the setting ``peering``."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from lora_router.whole_numbers import is_port

ONE, SENTINEL, CLUSTER = "one", "sentinel", "cluster"
_KINDS = {"": ONE, "sentinel": SENTINEL, "cluster": CLUSTER}
_PORTS = {ONE: 6379, SENTINEL: 26379, CLUSTER: 6379}
MAX_HOSTS = 16
ALLOWED = (
    "redis://HOST:PORT/DB, redis+sentinel://HOST:PORT,…/NAME or redis+cluster://HOST:PORT,…, or "
    "rediss for TLS, with USER:PASSWORD@ before the first host if needed"
)


class AddressError(ValueError):
    """The text is no address. The message says why, without the text: it may have a password."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where the server is, and who asks."""

    kind: str
    """``one`` server, the master that a ``sentinel`` names, or the node of a ``cluster``."""
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    """The server; the Sentinels; some nodes of the cluster."""
    master: str = ""
    """The name of the master, for Sentinels."""
    database: int = 0
    username: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        """Return the address without user and password."""
        plus = "" if self.kind == ONE else f"+{self.kind}"
        hosts = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )
        path = "".join(
            f"/{part}"
            for part in (self.master, self.database if self.kind != CLUSTER else "")
            if part != ""
        )
        return f"redis{'s' if self.tls else ''}{plus}://{hosts}{path}"

    def __repr__(self) -> str:
        """Return the same: a password must not get into a log."""
        return f"RedisAddress({str(self)!r})"


def parse_address(text: str) -> RedisAddress:
    """Return the address that a text stands for.

    Raises:
        AddressError: It stands for none.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        raise AddressError("not a URL") from None
    scheme, _, suffix = parts.scheme.partition("+")
    kind = _KINDS.get(suffix)
    if scheme not in {"redis", "rediss"} or kind is None:
        raise AddressError("the scheme must be redis, redis+sentinel, redis+cluster, or with TLS")
    if parts.query or parts.fragment:
        raise AddressError("a query or a fragment is not supported")
    credentials, _, netloc = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    hosts = tuple(_host(each, _PORTS[kind]) for each in netloc.split(","))
    if len(hosts) > (1 if kind == ONE else MAX_HOSTS):
        raise AddressError("too many hosts")
    master, database = _path(kind, parts.path)
    return RedisAddress(
        kind,
        scheme == "rediss",
        hosts,
        master,
        database,
        unquote(username) or None,
        unquote(password) or None,
    )


def _host(text: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default_port)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise AddressError("an IPv6 address needs brackets")
    host = host.strip("[]")
    if not host or not host.isprintable() or " " in host:
        raise AddressError("a host is missing or unusable")
    if not is_port(port):
        raise AddressError("a port must be from 1 to 65535")
    return host, int(port)


def _path(kind: str, path: str) -> tuple[str, int]:
    """Return the name of the master, and the number of the database."""
    parts = [unquote(part) for part in path.strip("/").split("/") if part]
    master = ""
    if kind == SENTINEL:
        if not parts:
            raise AddressError("the name of the master is missing: redis+sentinel://HOST:PORT/NAME")
        master = parts.pop(0)
    if not parts:
        return master, 0
    if kind == CLUSTER or len(parts) > 1:
        raise AddressError("the path has too many parts")
    if not (parts[0].isascii() and parts[0].isdigit() and len(parts[0]) < 6):
        raise AddressError("the database must be a number")
    return master, int(parts[0])
