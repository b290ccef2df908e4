"""How the Envoy of ``lora-router envoy-config`` speaks TLS to the router."""

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any

from lora_router.config.settings import Settings

_SanType = tls.SubjectAltNameMatcherSanType


class EnvoyTlsError(ValueError):
    """The router speaks TLS, and a setting is missing that Envoy needs for it; says which."""


def transport_socket(settings: Settings, host: str, *, is_ip: bool) -> core.TransportSocket | None:
    """Return what the router's cluster needs for TLS; ``None``: its calls are in the clear.

    The certificate must be signed by the authority that is configured, and be for the name under
    which Envoy reaches the router, or for the one in ``envoy_router_name``.

    Raises:
        EnvoyTlsError: See there.
    """
    if settings.grpc_tls_cert_file is None:
        return None
    if settings.envoy_router_ca_file is None:
        raise EnvoyTlsError(
            "envoy_router_ca_file: needed, because the router speaks TLS (grpc_tls_cert_file) and "
            "Envoy must know who signed its certificate"
        )
    if settings.grpc_tls_client_ca_file is not None and settings.envoy_client_cert_file is None:
        raise EnvoyTlsError(
            "envoy_client_cert_file and envoy_client_key_file: needed, because the router asks "
            "Envoy for a certificate (grpc_tls_client_ca_file)"
        )
    name = settings.envoy_router_name or host
    by_address = is_ip and settings.envoy_router_name is None
    context = tls.UpstreamTlsContext(
        sni="" if by_address else name,
        common_tls_context=tls.CommonTlsContext(
            alpn_protocols=["h2"],
            tls_certificates=_client_certificates(settings),
            validation_context=tls.CertificateValidationContext(
                trusted_ca=core.DataSource(filename=str(settings.envoy_router_ca_file)),
                match_typed_subject_alt_names=[
                    tls.SubjectAltNameMatcher(
                        san_type=_SanType.IP_ADDRESS if by_address else _SanType.DNS,
                        matcher=matcher.StringMatcher(exact=name),
                    )
                ],
            ),
        ),
    )
    return core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))


def _client_certificates(settings: Settings) -> list[tls.TlsCertificate]:
    if settings.envoy_client_cert_file is None:
        return []
    return [
        tls.TlsCertificate(
            certificate_chain=core.DataSource(filename=str(settings.envoy_client_cert_file)),
            private_key=core.DataSource(filename=str(settings.envoy_client_key_file)),
        )
    ]
