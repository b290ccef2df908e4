"""The TLS configuration of Envoy's connections: to the router, and to pods."""

from collections.abc import Sequence
from pathlib import Path

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any

from lora_router.config.settings import Settings
from lora_router.envoy.addresses import RouterAddress

_SanType = tls.SubjectAltNameMatcherSanType


class EnvoyTlsError(ValueError):
    """A setting is missing that Envoy needs for TLS. The message names it."""


def transport_socket(
    settings: Settings, addresses: Sequence[RouterAddress]
) -> core.TransportSocket | None:
    """Return the TLS transport socket for the router's cluster; ``None``: no encryption.

    A router's certificate must be signed by the configured authority. It must be valid for
    ``envoy_router_name``, or else for one of the hosts under which Envoy reaches routers.

    Raises:
        EnvoyTlsError: A setting is missing that Envoy needs for TLS to the router.
    """
    if settings.grpc_tls_self_signed:
        return _unverified()
    if settings.grpc_tls_cert_file is None:
        return None
    if settings.envoy_router_ca_file is None:
        raise EnvoyTlsError(
            "envoy_router_ca_file: required, because the router uses TLS (grpc_tls_cert_file) and "
            "Envoy must verify its certificate"
        )
    if settings.grpc_tls_client_ca_file is not None and settings.envoy_client_cert_file is None:
        raise EnvoyTlsError(
            "envoy_client_cert_file and envoy_client_key_file: required, because the router "
            "requires a client certificate (grpc_tls_client_ca_file)"
        )
    if settings.envoy_router_name is not None:
        names = [_name(settings.envoy_router_name)]
        sni = settings.envoy_router_name
    else:
        names = [_name(each.host, is_ip=each.is_ip) for each in addresses]
        sni = next((each.host for each in addresses if not each.is_ip), "")
    context = tls.UpstreamTlsContext(
        sni=sni,
        common_tls_context=tls.CommonTlsContext(
            alpn_protocols=["h2"],
            tls_certificates=_certificates(
                settings.envoy_client_cert_file, settings.envoy_client_key_file
            ),
            validation_context=tls.CertificateValidationContext(
                trusted_ca=core.DataSource(filename=str(settings.envoy_router_ca_file)),
                match_typed_subject_alt_names=names,
            ),
        ),
    )
    return _socket(context)


def _unverified() -> core.TransportSocket:
    """Return the socket for routers that make their own certificates, which nobody can verify."""
    context = tls.UpstreamTlsContext(common_tls_context=tls.CommonTlsContext(alpn_protocols=["h2"]))
    return core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))


def pods_transport_socket(settings: Settings) -> core.TransportSocket | None:
    """Return the TLS transport socket for the pods' cluster; ``None``: no encryption.

    Pods are known by their addresses. Without ``pod_tls_server_name`` a pod's certificate must be
    signed by the configured authority, whatever name it has: Envoy cannot compare it with the
    address of each pod.

    Raises:
        EnvoyTlsError: A setting is missing that Envoy needs for TLS to pods.
    """
    if settings.pod_scheme != "https":
        return None
    if settings.envoy_pod_ca_file is None and not settings.pod_tls_skip_verify:
        raise EnvoyTlsError(
            "envoy_pod_ca_file: required, because pods use TLS (pod_scheme) and Envoy must verify "
            "their certificates"
        )
    if settings.pod_tls_cert_file is not None and settings.envoy_pod_cert_file is None:
        raise EnvoyTlsError(
            "envoy_pod_cert_file and envoy_pod_key_file: required, because pods ask for a client "
            "certificate (pod_tls_cert_file)"
        )
    name = settings.pod_tls_server_name
    common = tls.CommonTlsContext(
        # Pods of most engines serve HTTP/1.1 only.
        alpn_protocols=["http/1.1"],
        tls_certificates=_certificates(settings.envoy_pod_cert_file, settings.envoy_pod_key_file),
    )
    if not settings.pod_tls_skip_verify:
        common.validation_context = tls.CertificateValidationContext(
            trusted_ca=core.DataSource(filename=str(settings.envoy_pod_ca_file)),
            match_typed_subject_alt_names=[] if name is None else [_name(name)],
        )
    return _socket(tls.UpstreamTlsContext(sni=name or "", common_tls_context=common))


def _socket(context: tls.UpstreamTlsContext) -> core.TransportSocket:
    return core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))


def _name(name: str, *, is_ip: bool = False) -> tls.SubjectAltNameMatcher:
    return tls.SubjectAltNameMatcher(
        san_type=_SanType.IP_ADDRESS if is_ip else _SanType.DNS,
        matcher=matcher.StringMatcher(exact=name),
    )


def _certificates(certificate: Path | None, key: Path | None) -> list[tls.TlsCertificate]:
    if certificate is None:
        return []
    return [
        tls.TlsCertificate(
            certificate_chain=core.DataSource(filename=str(certificate)),
            private_key=core.DataSource(filename=str(key)),
        )
    ]
