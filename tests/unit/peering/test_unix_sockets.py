"""Peers on the same host, over real Unix sockets."""

import asyncio
from pathlib import Path

import grpc.aio

from lora_router.assembly import LoopClock
from lora_router.peering.addresses import LocalPeers
from lora_router.peering.clients import ClientTls, PeerClients
from lora_router.peering.grpcio_handler import peers_handler
from lora_router.peering.hub import Hub
from lora_router.peering.mesh import Mesh
from lora_router.peering.service import PeerService
from lora_router.supervision import Supervisor
from tests.fleet import make_fleet


async def test_routers_find_each_other_over_unix_sockets_without_tls(tmp_path: Path) -> None:
    paths = [tmp_path / "0", tmp_path / "1"]
    hubs = [Hub(path.name, make_fleet(1), dict, LoopClock()) for path in paths]
    meshes = [Mesh(hub) for hub in hubs]
    servers, clients = [], []
    # Connections to other hosts are encrypted. These files are not needed here.
    tls = ClientTls(ca=tmp_path / "missing.pem")
    for mesh, path in zip(meshes, paths, strict=True):
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((peers_handler(PeerService(mesh, None)),))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        servers.append(server)
        clients.append(PeerClients(mesh, LocalPeers(paths), Supervisor(), tls=tls))
    try:
        for each in clients:
            each.start()
        assert [await each.until_joined(10) for each in clients] == [True, True]

        assert [list(hub.peers) for hub in hubs] == [["1"], ["0"]]
    finally:
        for hub in hubs:
            hub.leave()
        await asyncio.gather(*(each.stop() for each in clients))
        for server in servers:
            await server.stop(None)
