"""Rules for names in settings: of hosts, ports and Kubernetes objects, and for keys.

Each function returns the value, and raises ``ValueError`` if it is against the rule.
"""

import re
from ipaddress import ip_address as parse_ip

from pydantic import SecretStr

from lora_router.whole_numbers import is_port

LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
"""The pattern of a label of a DNS name, and of a namespace."""

_DNS_LABEL = re.compile(LABEL)
_HOST_LABEL = re.compile(r"[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?")
"""Hosts files and container networks have names with underscores too."""
_PORT_NAME = re.compile(r"(?!.*--)(?=.*[a-z])[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def dns_name(value: str) -> str:
    """Return a DNS name."""
    if len(value) > 253 or not all(map(_DNS_LABEL.fullmatch, value.lower().split("."))):
        raise ValueError("must be a DNS name")
    return value


def ip_address(value: str) -> str:
    """Return an IP address without brackets."""
    parse_ip(value)
    return value


def host_name(value: str) -> str:
    """Return an IP address without brackets, or a name that a resolver may know."""
    try:
        return ip_address(value)
    except ValueError:
        labels = value.lower().split(".")
        # Resolvers take a name that ends in a number for an address in an old notation.
        if len(value) > 253 or labels[-1].isdigit() or not all(map(_HOST_LABEL.fullmatch, labels)):
            raise ValueError("must be an IP address or a host's name") from None
        return value


def port_name(value: str) -> str:
    """Return the name of a container's port (IANA_SVC_NAME)."""
    if _PORT_NAME.fullmatch(value) is None:
        raise ValueError("must be a container port's name")
    return value


def one_line(value: str) -> str:
    """Return printable text without spaces around it."""
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be printable, without spaces around it")
    return value


def api_key(value: SecretStr | None) -> SecretStr | None:
    """Return a key that can be sent in a header."""
    key = "" if value is None else value.get_secret_value()
    if value is not None and (not key or any(not "!" <= character <= "~" for character in key)):
        raise ValueError("must be fit for a header")
    return value


def namespace(value: str) -> str:
    """Return a namespace's name."""
    if _DNS_LABEL.fullmatch(value) is None:
        raise ValueError("must be a namespace's name")
    return value


def service_name(value: str) -> str:
    """Return the name of a Service, with its namespace or without."""
    parts = value.split("/")
    if len(parts) > 2 or not all(map(_DNS_LABEL.fullmatch, parts)):
        raise ValueError("must be a Service's name")
    return value


def hosts_and_ports(value: str) -> str:
    """Return one ``host:port``, or several joined by commas."""
    for each in value.split(","):
        host, _, port = each.strip().rpartition(":")
        if not host or not is_port(port):
            raise ValueError("must be host:port, or several joined by commas")
        host_name(host[1:-1] if host[0] == "[" and host[-1] == "]" else host)
    return value
