"""What the parent keeps of files, for workers that start while the files cannot be used.

A worker that has ended is replaced at any time, also while a certificate is on disk whose key is
not written yet, or while a secret is mounted anew. It then uses what the others use.
"""

from dataclasses import dataclass, field

from lora_router.extproc.tls import TlsContents


@dataclass(frozen=True, slots=True)
class Kept:
    """What the files contained when they could last be used."""

    tls: TlsContents | None = None
    """The TLS files of the gRPC server."""
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    """``peer_secret_file``."""
    pod_files: dict[str, bytes] | None = field(default=None, repr=False)
    """The files with keys and certificates for pods, by setting."""


NOTHING = Kept()
"""Nothing was kept."""
