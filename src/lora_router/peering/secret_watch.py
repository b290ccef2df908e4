"""Reads the secret of peers again and again, so that it can be changed while routers run."""

import asyncio
import logging

from lora_router.log_limit import LogLimit
from lora_router.peering.secret import Secret, SecretError, read_secrets
from lora_router.supervision import Supervisor
from lora_router.threads import in_thread

log = logging.getLogger("lora_router.peering")

_SECONDS = 5.0


class SecretWatch:
    """The task. It is started and stopped as connections are."""

    def __init__(self, secret: Secret, supervisor: Supervisor) -> None:
        self._secret = secret
        self._supervisor = supervisor
        self._task: asyncio.Task[None] | None = None
        self._limit = LogLimit(60.0)

    def start(self) -> None:
        """Read the file from now on."""
        self._task = self._supervisor.keep("peer-secret", self._reread)

    def has_joined(self) -> bool:
        """Return true: nobody is waited for."""
        return True

    async def stop(self) -> None:
        """Read the file no more."""
        if self._task is not None:
            self._task.cancel()

    async def _reread(self) -> None:
        secret = self._secret
        while True:
            await asyncio.sleep(_SECONDS)
            try:
                secret.use(*await in_thread(lambda: read_secrets(secret.path), "peer-secret"))
            except SecretError as error:
                self._limit.log(
                    log, logging.WARNING, "secret", "%s; the last one stays in use", error
                )
