"""A leader arm's servos behind a pseudo-terminal: what a Feetech STS3215 answers to its serial protocol, byte by byte.

Packets are `FF FF id length instruction parameters checksum`; answers carry an error byte in place of the instruction.
Registers and their addresses are those of the maker's memory table (STS3215, protocol 0), values little-endian.
"""

from __future__ import annotations

import contextlib
import os
import pty
import threading
import tty

PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 1, 2, 3, 0x82, 0x83
BROADCAST = 0xFE
MODEL, LEAST, MOST, OFFSET, POSITION = 3, 9, 11, 31, 56
STS3215 = 777
MIDDLE = 2048
"""Half a turn, of 4096 steps."""


class FeetechBus:
    """Servos 1 to `count`, all in the middle of a range of half a turn, on the serial port `path`."""

    def __init__(self, count: int = 6) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._memory = {number: bytearray(128) for number in range(1, count + 1)}
        for number in self._memory:
            self.set(number, MODEL, STS3215)
            self.set(number, LEAST, MIDDLE - 1024)
            self.set(number, MOST, MIDDLE + 1024)
            self.set(number, POSITION, MIDDLE)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def get(self, servo: int, address: int) -> int:
        """A register of two bytes."""
        return int.from_bytes(self._memory[servo][address : address + 2], "little")

    def set(self, servo: int, address: int, value: int) -> None:
        """Set a register of two bytes."""
        self._memory[servo][address : address + 2] = value.to_bytes(2, "little")

    def unplug(self) -> None:
        """Pull the cable; safe to call twice."""
        for fd in (self._slave, self._master):
            with contextlib.suppress(OSError):
                os.close(fd)

    def _serve(self) -> None:
        heard = b""
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 256):
                heard += data
                while (begin := heard.find(b"\xff\xff")) >= 0 and len(heard) >= begin + 4:
                    end = begin + 4 + heard[begin + 3]
                    if len(heard) < end:
                        break
                    packet, heard = heard[begin + 2 : end], heard[end:]
                    os.write(self._master, self._answers(packet))

    def _answers(self, packet: bytes) -> bytes:
        """What the servos say to `id length instruction parameters checksum`."""
        servo, _, instruction, *parameters, checksum = packet
        if checksum != ~sum(packet[:-1]) & 0xFF:
            return b""
        if instruction == SYNC_READ:
            address, count, *servos = parameters
            return b"".join(self._answer(each, address, count) for each in servos)
        if instruction == SYNC_WRITE:
            address, count, *rest = parameters
            for begin in range(0, len(rest), count + 1):
                self._memory[rest[begin]][address : address + count] = bytes(rest[begin + 1 :][:count])
            return b""
        if servo == BROADCAST and instruction == PING:
            return b"".join(self._answer(each) for each in self._memory)
        if servo not in self._memory:
            return b""
        if instruction == READ:
            return self._answer(servo, *parameters)
        if instruction == WRITE:
            address, *values = parameters
            self._memory[servo][address : address + len(values)] = bytes(values)
        return self._answer(servo)

    def _answer(self, servo: int, address: int = 0, count: int = 0) -> bytes:
        """A status packet without an error, with `count` bytes from `address`."""
        body = bytes([servo, count + 2, 0, *self._memory[servo][address : address + count]])
        return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])
