"""One base port names every socket; nothing but loopback is accepted."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from reflexarc.wire.endpoints import BASE_PORT, NAMES, Endpoints, not_loopback


def test_the_ports_follow_the_base_port() -> None:
    endpoints = Endpoints(base_port=50000)
    assert [getattr(endpoints, name) for name in NAMES] == [
        f"tcp://127.0.0.1:{50000 + k}" for k in range(len(NAMES))
    ]
    assert Endpoints().state == f"tcp://127.0.0.1:{BASE_PORT}"


def test_what_is_dumped_makes_the_same() -> None:
    endpoints = Endpoints(base_port=50000, frames="ipc:///tmp/frames")
    assert Endpoints.model_validate(endpoints.model_dump()) == endpoints
    assert endpoints.frames == "ipc:///tmp/frames"


@pytest.mark.parametrize(
    "address",
    [
        "tcp://0.0.0.0:27100",
        "tcp://*:27100",
        "tcp://192.168.1.7:27100",
        "tcp://localhost:27100",
        "tcp://eth0:27100",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:27100;0.0.0.0:27100",
        "tcp://127.0.0.1:27100\n",
        "udp://127.0.0.1:27100",
        "ipc://",
        "",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    assert "keys do not exist yet" in not_loopback(address)
    with pytest.raises(ValidationError, match="keys do not exist yet"):
        Endpoints(state=address)


def test_two_sockets_cannot_share_an_address() -> None:
    with pytest.raises(
        ValidationError, match=r"state and console have the same address tcp://127\.0\.0\.1:27100"
    ):
        Endpoints(console="tcp://127.0.0.1:27100")


@pytest.mark.parametrize("port", [0, 80, 65535, 70000, -1])
def test_a_base_port_without_room_is_refused(port: int) -> None:
    with pytest.raises(ValidationError, match="base_port"):
        Endpoints(base_port=port)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="stats"):
        Endpoints.model_validate({"stats": "tcp://127.0.0.1:1"})
