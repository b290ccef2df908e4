"""The last TLS files that could be used, for workers that start while they cannot (``kept``)."""

from lora_router.extproc.certificate_watch import CertificateWatch
from lora_router.extproc.tls import TlsContents, TlsIdentity, TlsSource, load_tls
from lora_router.supervision import Supervisor


class KeptTls:
    """What the parent keeps of the files. It follows them as each worker does."""

    def __init__(self, files: TlsSource, supervisor: Supervisor) -> None:
        self.tls: TlsIdentity | None = None
        self._files = files
        self._watch = CertificateWatch(files, self, supervisor)

    def start(self) -> None:
        """Read the files, and follow them.

        Raises:
            TransportError: They cannot be used.
        """
        self.tls = load_tls(self._files)
        self._watch.start()

    def refresh(self) -> None:
        """Read the files now."""
        self._watch.refresh()

    async def use_tls(self, identity: TlsIdentity) -> None:
        """Keep a renewed certificate."""
        self.tls = identity

    @property
    def contents(self) -> TlsContents | None:
        """What the files contained when they could last be used."""
        return None if self.tls is None else self.tls.contents
