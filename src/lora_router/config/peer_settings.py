"""The settings of peering: which routers tell each other what they know, and how."""

from pydantic import BaseModel, Field

from lora_router.config import kinds


class PeerSettings(BaseModel):
    """Settings of peering. Without ``peers``, ``peer_service`` or ``peering``, it is alone."""

    peering: kinds.Peering = Field(
        None,
        description="What carries messages between the routers: the mesh of gRPC streams, to which "
        "peers or peer_service belongs, or a Valkey or Redis. Not shown, because it may contain a "
        "password.",
    )
    peering_password_file: kinds.OwnSecret = Field(
        None, description="File with the password of that Valkey or Redis."
    )
    peering_prefix: kinds.KeyPrefix = Field(
        "lora-router",
        description="What the names of keys and channels there begin with. Fleets that use the "
        "same server need different ones.",
    )

    peers: kinds.HostsAndPorts = Field(
        None,
        description="gRPC addresses of the other routers of the fleet. A DNS name stands for all "
        "its addresses, and this router's own address may be among them.",
    )
    peer_service: kinds.ServiceName = Field(
        None,
        description="Headless Service of the routers. On Kubernetes its EndpointSlices take the "
        "place of peers. Without a namespace, it is in the router's own.",
    )
    peer_secret_file: kinds.OwnSecret = Field(
        None,
        description="File with the secret that all routers of the fleet share. A peer must know "
        "it. The file may have a second one on a second line, which peers may know instead: change "
        "a secret in two steps.",
    )
    peer_tls_ca_file: kinds.OwnPem = Field(
        None,
        description="Certificate authorities of the peers' certificates. When it or "
        "grpc_tls_cert_file is set, peers are called over TLS. Default: grpc_tls_client_ca_file. "
        "For rediss, those of the server's certificate; default: the system's.",
    )
    peer_tls_cert_file: kinds.OwnPem = Field(
        None,
        description="Certificate chain that this router presents to peers. Default: "
        "grpc_tls_cert_file, if grpc_tls_client_ca_file is set. For rediss, to the "
        "server; default: none.",
    )
    peer_tls_key_file: kinds.OwnPem = Field(None, description="Private key of that certificate.")
    peer_tls_server_name: kinds.DnsName = Field(
        None,
        description="Name that peers' certificates must have. Default: the host in peers, or "
        "SERVICE.NAMESPACE.svc.",
    )
    peer_allow_unauthenticated: bool = Field(
        False,
        description="Whether anybody who reaches the gRPC port, or can publish on the Valkey or "
        "Redis, may be a peer. Otherwise the mesh needs peer_secret_file or "
        "grpc_tls_client_ca_file, unless grpc_host is a loopback address, and a Valkey or Redis "
        "needs peer_secret_file, unless it is on a loopback address.",
    )
