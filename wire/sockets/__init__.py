"""Non-blocking sockets for messages, loopback only: publish, push, request, heartbeat. Thin wrappers on ZMQ."""

from reflexarc.wire.sockets.base import Socket, wait_any
from reflexarc.wire.sockets.heartbeats import Heartbeats, PeerWatch
from reflexarc.wire.sockets.relay import Relay
from reflexarc.wire.sockets.requests import Client, Requester, Responder
from reflexarc.wire.sockets.streams import Publisher, Pull, Push, Subscriber

__all__ = [
    "Client",
    "Heartbeats",
    "PeerWatch",
    "Publisher",
    "Pull",
    "Push",
    "Relay",
    "Requester",
    "Responder",
    "Socket",
    "Subscriber",
    "wait_any",
]
