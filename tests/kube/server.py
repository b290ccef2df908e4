"""A real etcd and a real kube-apiserver on loopback, with RBAC on and no controllers.

No controllers means: nothing schedules pods, nothing sets their status, nothing cleans up. Tests
say themselves what the kubelet would, through the API.
"""

import asyncio
import json
import signal
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.envoy import free_port
from tests.kube.binaries import API_SERVER, find

_ADMIN_TOKEN = "admin-of-the-test-server"
_START_SECONDS = 90.0


class KubeError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {document.get('message', document)}")
        self.status = status
        self.document = document


class KubeServer:
    """etcd and kube-apiserver with their files in one folder. Restarts keep the ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.etcd_port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.kubeconfig = folder / "admin.kubeconfig"
        self._etcd: asyncio.subprocess.Process | None = None
        self._api: asyncio.subprocess.Process | None = None
        self._write_credentials()

    # Running

    async def start(self) -> None:
        """Start both and wait until the API server is ready."""
        etcd = find("etcd")
        assert etcd is not None, API_SERVER
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        self._etcd = await self._spawn(
            "etcd",
            str(etcd),
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )
        await self.start_api()

    async def start_api(self) -> None:
        """Start or restart the API server."""
        binary = find("kube-apiserver")
        assert binary is not None, API_SERVER
        files = self.folder
        self._api = await self._spawn(
            "kube-apiserver",
            str(binary),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={files / 'server.pem'}",
            f"--tls-private-key-file={files / 'server.key'}",
            f"--cert-dir={files / 'certs'}",
            f"--token-auth-file={files / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={files / 'accounts.key'}",
            f"--service-account-signing-key-file={files / 'accounts.key'}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
            "--advertise-address=127.0.0.1",
            "--disable-admission-plugins=ServiceAccount",
            "--shutdown-delay-duration=0s",
            "--v=0",
        )
        async with asyncio.timeout(_START_SECONDS):
            while not await self._is_ready():
                if self._api.returncode is not None:
                    raise RuntimeError((files / "kube-apiserver.log").read_text()[-3000:])
                await asyncio.sleep(0.2)

    async def stop_api(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Stop the API server, by default without closing its connections properly."""
        if self._api is not None:
            await _end(self._api, number)
            self._api = None

    def pause_api(self) -> None:
        """Pause the API server: connections stay open, and nothing is sent."""
        assert self._api is not None
        self._api.send_signal(signal.SIGSTOP)

    def resume_api(self) -> None:
        """Resume the API server."""
        assert self._api is not None
        self._api.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Stop both."""
        await self.stop_api()
        if self._etcd is not None:
            await _end(self._etcd, signal.SIGKILL)
            self._etcd = None

    async def compact(self) -> None:
        """Compact etcd to the current versions."""
        base = f"http://127.0.0.1:{self.etcd_port}/v3"
        key = "AA=="  # One zero byte: any key will do to learn the revision.
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{base}/kv/range", json={"key": key}) as response:
                revision = (await response.json())["header"]["revision"]
            body = {"revision": revision, "physical": True}
            async with session.post(f"{base}/kv/compaction", json=body) as response:
                assert response.status == 200, await response.text()

    # Asking

    def admin(self) -> "KubeClient":
        """Return a client with all permissions."""
        return KubeClient(self.url, self.ssl_context(), _ADMIN_TOKEN)

    def ssl_context(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the server."""
        return ssl.create_default_context(cafile=str(self.folder / "ca.pem"))

    def write_kubeconfig(
        self, path: Path, *, token: str = _ADMIN_TOKEN, port: int | None = None
    ) -> Path:
        """Write a kubeconfig. ``port``: the port of a proxy in front of the server."""
        cluster = {
            "server": f"https://127.0.0.1:{port or self.port}",
            "certificate-authority": str(self.folder / "ca.pem"),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def _write_credentials(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        authority.cert_pem.write_to_path(self.folder / "ca.pem")
        certificate.private_key_pem.write_to_path(self.folder / "server.key")
        (self.folder / "server.pem").write_bytes(
            b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        )
        accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "accounts.key").write_bytes(
            accounts.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        (self.folder / "tokens.csv").write_text(f'{_ADMIN_TOKEN},admin,1,"system:masters"\n')
        self.write_kubeconfig(self.kubeconfig)

    async def _is_ready(self) -> bool:
        try:
            async with self.admin() as admin:
                await admin.call("GET", "/readyz")
        except (aiohttp.ClientError, KubeError):
            return False
        return True

    async def _spawn(self, name: str, *command: str) -> asyncio.subprocess.Process:
        with (self.folder / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )


class KubeClient:
    """A minimal client: ``async with server.admin() as admin``."""

    def __init__(self, url: str, trust: ssl.SSLContext, token: str) -> None:
        self._url = url
        self._trust = trust
        self._headers = {"authorization": f"Bearer {token}"}

    async def __aenter__(self) -> "KubeClient":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._trust), headers=self._headers
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        **query: str | int,
    ) -> Any:
        """Send a request. Returns the document.

        Raises:
            KubeError: The API server refuses.
        """
        async with self._session.request(
            method,
            self._url + path,
            data=None if body is None else json.dumps(body),
            headers={"content-type": content_type},
            params=query,
        ) as response:
            text = await response.text()
            try:
                document = json.loads(text)
            except ValueError:
                document = {"message": text}
            if response.status >= 400:
                raise KubeError(response.status, document)
            return document

    async def namespace(self, name: str) -> None:
        """Create a namespace."""
        await self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    async def pod(
        self,
        namespace: str,
        name: str,
        *,
        ip: str | None = "127.0.0.1",
        ready: bool = True,
        labels: Mapping[str, str] | None = None,
        ports: tuple[Mapping[str, object], ...] = (),
        annotations: Mapping[str, str] | None = None,
        init_containers: tuple[Mapping[str, object], ...] = (),
    ) -> None:
        """Create a pod with the status that a kubelet reports, on a node, so it ends gracefully."""
        document = {
            "metadata": {
                "name": name,
                "labels": {"model.aibrix.ai/name": "base"} if labels is None else dict(labels),
                "annotations": dict(annotations or {}),
            },
            "spec": {
                "nodeName": "node",
                "containers": [{"name": "vllm", "image": "none", "ports": list(ports)}],
                "initContainers": [{"image": "none", **each} for each in init_containers],
            },
        }
        await self.call("POST", f"/api/v1/namespaces/{namespace}/pods", document)
        if ip is not None:
            await self.pod_status(namespace, name, ip=ip, ready=ready)

    async def pod_status(self, namespace: str, name: str, *, ip: str, ready: bool) -> None:
        """Set a pod's readiness and address."""
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [condition],
        }
        await self.call(
            "PATCH",
            f"/api/v1/namespaces/{namespace}/pods/{name}/status",
            {"status": status},
            content_type="application/merge-patch+json",
        )

    async def delete_pod(self, namespace: str, name: str, *, grace: int = 0) -> None:
        """Delete a pod. With a grace period it stays, terminating, until deleted without one."""
        await self.call(
            "DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", gracePeriodSeconds=grace
        )

    async def token(self, namespace: str, account: str) -> str:
        """Return a token of a service account."""
        document = await self.call(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
            {"spec": {}},
        )
        token: str = document["status"]["token"]
        return token


async def _end(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        process.send_signal(number)
        if number is not signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
    try:
        async with asyncio.timeout(60):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
