"""What settings must agree on: the rules that are about several of them.

Each rule that is broken gives one ``Contradiction``, which names the settings, so that an error can
say where each value is from. All rules are checked, so that one start reports everything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from lora_router.config import kinds
from lora_router.config.fields import Fields


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Settings that do not fit together."""

    names: tuple[str, ...]
    """The settings that a user would change."""
    message: str
    """Names the settings, and says what is allowed."""


class ContradictionError(ValueError):
    """Settings do not fit together. The message has a line for each rule that is broken."""

    def __init__(self, found: list[Contradiction]) -> None:
        self.found = tuple(found)
        super().__init__("\n".join(each.message for each in found))


def contradictions(settings: Fields) -> Iterator[Contradiction]:
    """Check all rules."""
    yield from _of_certificates(settings)
    yield from _of_observation(settings)
    yield from _of_envoys_ports(settings)
    yield from _of_models(settings)
    yield from _of_adapters(settings)
    yield from _of_peers(settings)
    yield from _of_processes(settings)
    yield from _of_pools(settings)
    yield from _of_headers(settings)


def _of_certificates(settings: Fields) -> Iterator[Contradiction]:
    for name in ("grpc_tls", "envoy_client", "envoy_pod", "pod_tls", "peer_tls"):
        yield from _need_each_other(settings, f"{name}_cert_file", f"{name}_key_file")
    yield from _exclude_each_other(settings, "grpc_tls_self_signed", "grpc_tls_cert_file")
    for peers in ("peers", "peer_service"):
        if settings.grpc_tls_self_signed and getattr(settings, peers) is not None:
            yield Contradiction(
                ("grpc_tls_self_signed", peers),
                "grpc_tls_self_signed: peers cannot verify such a certificate; set "
                "grpc_tls_cert_file and grpc_tls_key_file",
            )
    if settings.grpc_tls_client_ca_file is not None and settings.grpc_tls_cert_file is None:
        yield Contradiction(
            ("grpc_tls_client_ca_file",), "grpc_tls_client_ca_file: requires grpc_tls_cert_file"
        )
    yield from _exclude_each_other(settings, "pod_api_key", "pod_api_key_file")
    yield from _exclude_each_other(settings, "pod_tls_skip_verify", "pod_tls_ca_file")


def _of_observation(settings: Fields) -> Iterator[Contradiction]:
    if settings.outlier_max_ejection_seconds < settings.outlier_min_ejection_seconds:
        yield Contradiction(
            ("outlier_max_ejection_seconds", "outlier_min_ejection_seconds"),
            "outlier_max_ejection_seconds: must be at least outlier_min_ejection_seconds, "
            f"{settings.outlier_min_ejection_seconds:g}",
        )
    if settings.response_headers == "on" and not settings.decisions:
        yield Contradiction(
            ("response_headers", "decisions"), "response_headers: on requires decisions above 0"
        )


def _of_envoys_ports(settings: Fields) -> Iterator[Contradiction]:
    # The admin pages are on 127.0.0.1, which a listener on all addresses has too.
    address = ip_address(settings.envoy_listen_host)
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    shared = address.is_unspecified or str(address) == "127.0.0.1"
    if shared and settings.envoy_listen_port == settings.envoy_admin_port != 0:
        yield Contradiction(
            ("envoy_listen_port", "envoy_admin_port"),
            f"envoy_listen_port and envoy_admin_port: both are {settings.envoy_admin_port}: they "
            "must differ",
        )


def _of_models(settings: Fields) -> Iterator[Contradiction]:
    for name, targets in settings.model_rewrites.items():
        for target in targets:
            if target != name and target in settings.model_rewrites:
                yield Contradiction(
                    ("model_rewrites",),
                    f"model_rewrites: {name!r} leads to {target!r}, which is rewritten itself: "
                    "name the models that pods serve",
                )
    if settings.inference_model_rewrites and settings.inference_pool is None:
        yield Contradiction(
            ("inference_model_rewrites",), "inference_model_rewrites: requires inference_pool"
        )
    if settings.unknown_model == "base" and settings.unknown_model_base is None:
        yield Contradiction(("unknown_model",), "unknown_model=base: requires unknown_model_base")
    if settings.unknown_model_base is not None and settings.unknown_model != "base":
        yield Contradiction(
            ("unknown_model_base", "unknown_model"),
            "unknown_model_base: requires unknown_model=base",
        )


def _of_adapters(settings: Fields) -> Iterator[Contradiction]:
    if settings.model_adapters and not settings.adapter_sources:
        yield Contradiction(
            ("model_adapters", "adapter_sources"),
            "model_adapters: requires adapter_sources: from where those may load adapters who "
            "may create ModelAdapters",
        )
    if settings.model_adapters and settings.endpoints is not None:
        yield Contradiction(
            ("model_adapters", "endpoints"),
            "model_adapters and endpoints: set one of them: ModelAdapters are for pods of "
            "Kubernetes",
        )
    if settings.adapter_move_seconds and settings.adapter_update == "in-place":
        yield Contradiction(
            ("adapter_move_seconds", "adapter_update"),
            f"adapter_move_seconds={settings.adapter_move_seconds:g}: requires "
            "adapter_update=beside: in place, there is no old version",
        )


def _of_peers(settings: Fields) -> Iterator[Contradiction]:
    yield from _exclude_each_other(settings, "peers", "peer_service")
    name = "peers" if settings.peers is not None else "peer_service"
    redis = settings.redis_address
    if redis is None:
        if settings.peering is not None and not settings.has_mesh:
            yield Contradiction(
                ("peering",), f"peering={kinds.MESH}: requires peers or peer_service"
            )
        if settings.peering_password_file is not None:
            yield Contradiction(
                ("peering_password_file", "peering"),
                "peering_password_file: requires peering=redis://…",
            )
        is_local = is_loopback(settings.grpc_host)
        proof = settings.grpc_tls_client_ca_file
    else:
        if settings.has_mesh:
            yield Contradiction(
                ("peering", name), f"peering=redis://… and {name}: set at most one of them"
            )
        if settings.peering_password_file is not None and redis.password is not None:
            yield Contradiction(
                ("peering_password_file", "peering"),
                "peering_password_file: peering has a password too; set one",
            )
        is_local, proof = all(is_loopback(host) for host, _ in redis.hosts), None
    if (
        not settings.has_peers
        or is_local
        or settings.peer_secret_file is not None
        or proof is not None
        or settings.peer_allow_unauthenticated
    ):
        return
    if redis is not None:
        yield Contradiction(
            ("peering",),
            "peering: peers must prove who they are: set peer_secret_file, or "
            "peer_allow_unauthenticated=true if only routers can publish on that server",
        )
        return
    yield Contradiction(
        (name,),
        f"{name}: peers must prove who they are: set peer_secret_file, or "
        "grpc_tls_client_ca_file for mutual TLS, or peer_allow_unauthenticated=true if "
        "only routers and gateways can reach the gRPC port",
    )


def _of_processes(settings: Fields) -> Iterator[Contradiction]:
    if settings.replication == "lease" and settings.workers != 1:
        yield Contradiction(
            ("workers", "replication"),
            f"workers={settings.workers} and replication=lease: set one of them: the Lease is "
            "held by one process, which decides everything",
        )
    if settings.replication == "lease" and not settings.has_peers:
        yield Contradiction(
            ("replication",),
            "replication=lease: needs peering, by which a standby knows what the leader knows: "
            "set peer_service, peers or peering=redis://…",
        )
    if settings.workers != 1 and settings.transport != "builtin":
        yield Contradiction(
            ("workers", "transport"),
            f"workers={settings.workers}: requires transport=builtin: grpcio serves only "
            "connections that it accepted itself",
        )


def _of_pools(settings: Fields) -> Iterator[Contradiction]:
    if settings.inference_pool is None:
        return
    others = ("kubernetes_namespaces", "kubernetes_selector", "kubernetes_port")
    for name in ("endpoints", *others, "kubernetes_port_name"):
        if name in settings.model_fields_set and getattr(settings, name) is not None:
            yield _at_most_one("inference_pool", name)


def _of_headers(settings: Fields) -> Iterator[Contradiction]:
    settings_by_header: dict[str, list[str]] = {"x-request-id": [""]}
    for setting in (
        "target_pod_header",
        "destination_header",
        "strategy_header",
        "filter_header",
        "model_header",
        "objective_header",
        "rewrite_sticky_header",
        "model_rewrite_header",
        "pool_header",
        "tenant_header",
        "priority_header",
    ):
        header = getattr(settings, setting)
        if header:
            settings_by_header.setdefault(header, []).append(setting)
    for header, found in settings_by_header.items():
        if len(found) > 1:
            yield Contradiction(
                tuple(filter(None, found)),
                f"two headers have the name {header!r}: all names must differ",
            )


def is_loopback(host: str) -> bool:
    """Return whether only this host can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_set(settings: Fields, name: str) -> bool:
    return getattr(settings, name) not in (None, False)


def _need_each_other(settings: Fields, one: str, other: str) -> Iterator[Contradiction]:
    if _is_set(settings, one) != _is_set(settings, other):
        yield Contradiction((one, other), f"{one} and {other}: set both or neither")


def _exclude_each_other(settings: Fields, one: str, other: str) -> Iterator[Contradiction]:
    if _is_set(settings, one) and _is_set(settings, other):
        yield _at_most_one(one, other)


def _at_most_one(one: str, other: str) -> Contradiction:
    return Contradiction((one, other), f"{one} and {other}: set at most one of them")
