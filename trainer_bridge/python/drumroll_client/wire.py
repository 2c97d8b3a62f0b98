"""One connection: msgpack frames with a length before them, over a Unix or TCP socket (PROTOCOL.md)."""

from __future__ import annotations

import hashlib
import hmac
import os
import select
import socket
import struct
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import msgpack

from .errors import ConnectionLost, ProtocolError, RunError

PROTOCOL_VERSION = 1
NONCE_BYTES = 32
WELCOME_BYTES_MAX = 16 << 20
VALUES_MAX = 1 << 20
LINGER_SECONDS = 2.0

Frame = Dict[str, Any]


def unpack(data: Any) -> Frame:
    """A frame's payload, or any other msgpack map with text keys."""
    try:
        frame = msgpack.unpackb(data, raw=False, unicode_errors="surrogateescape", strict_map_key=True,
                                max_array_len=VALUES_MAX, max_map_len=VALUES_MAX)
    except Exception as error:
        raise ProtocolError(f"what arrived is not msgpack: {error}") from error
    if not isinstance(frame, dict):
        raise ProtocolError(f"expected a map, found {type(frame).__name__}")
    return frame


def _prove(secret: bytes, purpose: bytes, server_nonce: bytes, nonce: bytes, name: str) -> bytes:
    return hmac.new(secret, purpose + server_nonce + nonce + name.encode(), hashlib.sha256).digest()


class Wire:
    """Sends frames while it takes frames in: two sides that only wrote would wait for each other for ever.

    take(frame) is called for every frame that arrives after the handshake, but for ping and error.  An error is raised
    by the call that is waiting, unless forgive(frame) says that it has been dealt with.
    """

    def __init__(self, address: str, connect_seconds: float, timeout: float, take: Callable[[Frame], None]):
        self.timeout = timeout           # seconds without a byte moving
        self.frame_bytes_max = WELCOME_BYTES_MAX
        self.forgive: Callable[[Frame], bool] = lambda frame: False
        self._take = take
        self._arrived = bytearray()
        self._refusal: Optional[RunError] = None
        self._pongs_due = 0
        self._socket = _connect(address, connect_seconds)
        self._socket.settimeout(0)

    def shake_hands(self, secret: Optional[bytes], name: str, wishes: Frame) -> Frame:
        """The welcome.  wishes: optional fields of hello.  Both sides prove that they know the secret unsent."""
        greetings: List[Frame] = []
        take, self._take = self._take, greetings.append

        def next_greeting() -> Frame:
            self.wait(lambda: bool(greetings))
            return greetings.pop(0)

        nonce = os.urandom(NONCE_BYTES)
        self.send({"type": "hello", "protocol_min": PROTOCOL_VERSION, "protocol_max": PROTOCOL_VERSION, "name": name,
                   "role": "trainer", "nonce": nonce, **wishes})
        greeting = next_greeting()
        if (secret is not None) != (greeting.get("type") == "challenge"):
            raise ProtocolError("the run asks for a secret and none was given: give the first line of its "
                                "bridge.secret_file as secret=" if secret is None else
                                "a secret was given and the run asked for none: it is not the run that was meant, "
                                "or its bridge.secret_file is not set")
        if secret is not None:
            server_nonce = greeting["nonce"]
            self.send({"type": "auth", "mac": _prove(secret, b"drumroll 1 peer", server_nonce, nonce, name)})
            greeting = next_greeting()
            proof = _prove(secret, b"drumroll 1 server", server_nonce, nonce, name)
            if not hmac.compare_digest(proof, greeting.get("mac", b"")):
                raise ProtocolError("what answers does not know the secret: it is not the run that was meant")
        if greeting.get("type") != "welcome" or greeting.get("protocol") != PROTOCOL_VERSION:
            raise ProtocolError(f"expected a welcome in protocol {PROTOCOL_VERSION}, found "
                                f"{greeting.get('type')} in protocol {greeting.get('protocol')}")
        self.frame_bytes_max = greeting["frame_bytes_max"]
        self._take = take
        return greeting

    def close(self) -> None:
        self._socket.close()

    def leave(self) -> None:
        """Say goodbye and read until the run has closed: what was sent before has arrived then."""
        try:
            self.timeout = LINGER_SECONDS
            self.send({"type": "bye"})
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.settimeout(LINGER_SECONDS)
            while self._socket.recv(65536):
                pass
        except (OSError, ProtocolError):
            pass  # the run has gone first
        finally:
            self._socket.close()

    def send(self, frame: Frame) -> None:
        payload = msgpack.packb(frame, use_bin_type=True)
        left = memoryview(struct.pack("<I", len(payload)) + payload)
        deadline = time.monotonic() + self.timeout
        while left:
            readable, writable = self._ready(True, deadline)
            if readable:
                self._receive()
            if self._refusal is not None and self._refusal.fatal:
                self.raise_refusal()
            if writable:
                try:
                    left = left[self._socket.send(left):]
                    deadline = time.monotonic() + self.timeout
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise self._broken(error) from error

    def wait(self, enough: Callable[[], bool], timeout: Optional[float] = None) -> None:
        """Take frames until enough() holds; an `error` frame is raised.  TimeoutError: call it again."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not enough():
            self.raise_refusal()
            while self._pongs_due > 0:
                self._pongs_due -= 1
                self.send({"type": "pong"})
            self._ready(False, deadline)
            self._receive()

    def raise_refusal(self) -> None:
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal

    def _broken(self, error: OSError) -> Exception:
        """What the run said last explains more than that the connection is gone."""
        refusal, self._refusal = self._refusal, None
        return refusal or ConnectionLost(f"the connection to the run broke: {error}")

    def _receive(self) -> None:
        """Take in what is there now."""
        try:
            data = self._socket.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._broken(error) from error
        if not data:
            self.raise_refusal()
            raise ConnectionLost("the run closed the connection")
        self._arrived += data
        at = 0
        while len(self._arrived) - at >= 4:
            (length,) = struct.unpack_from("<I", self._arrived, at)
            if length > max(self.frame_bytes_max, WELCOME_BYTES_MAX):
                raise ProtocolError(f"expected frames of at most {self.frame_bytes_max} bytes, found one of {length}: "
                                    "is it a drumroll run that listens there?")
            if len(self._arrived) - at - 4 < length:
                break
            frame = unpack(bytes(self._arrived[at + 4:at + 4 + length]))
            at += 4 + length
            if frame.get("type") == "error":
                if not self.forgive(frame):
                    self._refusal = RunError(frame)
            elif frame.get("type") == "ping":
                self._pongs_due += 1
            else:
                self._take(frame)
        del self._arrived[:at]

    def _ready(self, write: bool, deadline: float) -> Tuple[bool, bool]:
        if self._socket.fileno() < 0:
            raise ConnectionLost("the connection to the run is closed")
        poll = select.poll()  # not select(): it fails on descriptors from 1024
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if write else 0))
        events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not events:
            raise TimeoutError("the run neither took nor sent anything for the time allowed")
        event = events[0][1]
        return bool(event & ~select.POLLOUT), bool(event & select.POLLOUT)


def _connect_once(address: str) -> socket.socket:
    kind, _, rest = address.partition(":")
    host, _, port = rest.rpartition(":")
    if kind == "unix" and rest:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(rest)
        except OSError:
            connection.close()
            raise
        return connection
    if kind == "tcp" and host and port.isdigit():
        connection = socket.create_connection((host.strip("[]"), int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection
    raise ValueError(f"'{address}' is no address: expected unix:PATH or tcp:HOST:PORT")


def _connect(address: str, seconds: float) -> socket.socket:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _connect_once(address)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ConnectionLost(f"cannot connect to the run at {address}: {error}; is it running?") from error
            time.sleep(0.05)
