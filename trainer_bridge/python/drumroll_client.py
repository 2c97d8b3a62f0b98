"""Take scored trajectories from a drumroll run and give weights back (../PROTOCOL.md, version 1).

    with Client("unix:runs/demo/bridge.sock", name="my-trainer") as client:
        for batch in client.batches():            # acknowledged when the loop comes back for the next one
            for t in batch.trajectories:
                ...                                # t.tokens, t.logprobs, t.mask, t.advantage, ...
            client.push_weights(batch.version + 1, state_dict)
            client.report(step=batch.step, loss=loss)

Needs Python 3.9 and msgpack.  Arrays are memoryviews over the bytes that arrived: index them, iterate them, or
give them to numpy.asarray / torch.frombuffer, which do not copy.  With the xxhash package checksums are faster
and those of trajectories are verified too; numpy is used for conversions to BF16 where it is installed.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import hmac
import os
import select
import socket
import struct
import sys
import time
from typing import Any, Iterator, Mapping, Optional, Tuple

import msgpack

try:
    import xxhash
except ImportError:
    xxhash = None

PROTOCOL_VERSION = 1
NONCE_BYTES = 32
CHUNK_HEAD_BYTES_MAX = 512
WELCOME_BYTES_MAX = 16 << 20
VALUES_MAX = 1 << 20
LINGER_SECONDS = 2.0

assert sys.byteorder == "little", "arrays travel little endian and are not converted here"


class ProtocolError(Exception):
    """The run broke the protocol, or went away."""


class RunError(ProtocolError):
    """The run refused something and said why.  `code` is one of PROTOCOL.md's."""

    def __init__(self, frame: Mapping[str, Any]):
        super().__init__(f"the run refused: {frame.get('text')} ({frame.get('code')})")
        self.code: str = frame.get("code", "internal")
        self.may_retry: bool = bool(frame.get("may_retry"))
        self.fatal: bool = bool(frame.get("fatal"))


@dataclasses.dataclass
class Trajectory:
    """One sample.  n = n_prompt + response length; the arrays have n items."""

    id: int
    group: int
    sample: int
    group_size: int
    prompt_id: str
    epoch: int
    eval: bool
    seed: int
    answer: Optional[str]
    meta: Optional[str]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    n_prompt: int
    tokens: memoryview                 # [n] int32
    logprobs: memoryview               # [n] float32, of the policy that drew them; 0 on the prompt
    versions: memoryview               # [n] int32, -1 on the prompt
    mask: memoryview                   # [n] uint8, 1 where the loss applies
    segments: list                     # of (start, length, version, rank, mode)
    finish: str
    error: Optional[str]
    deferrals: int
    pivot: bool
    loss_weight: float
    reward: Optional[float] = None
    reward_answer: Optional[float] = None
    reward_steps: Optional[float] = None
    advantage: Optional[float] = None
    baseline: Optional[float] = None
    scale: Optional[float] = None
    drafted: int = 0
    accepted: int = 0
    verify_calls: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    reward_s: float = 0.0
    staleness_max: int = 0
    staleness_min: int = 0
    min_p: float = 0.0
    target_logprobs: Optional[memoryview] = None  # [n] float32, quantized mode: the target's for the same tokens


@dataclasses.dataclass
class Batch:
    """Trajectories that the run gave together; `batch_id` is the same if it has to give them again."""

    batch_id: int
    step: int
    version: int
    trajectories: list


_ARRAYS = {"tokens": "i", "logprobs": "f", "versions": "i", "mask": "B"}
_OPTIONAL_ARRAYS = {"target_logprobs": "f"}
_FINISH = ["none", "stop", "length", "abort", "pruned", "error"]
_FIELDS = {field.name for field in dataclasses.fields(Trajectory)}


def _checksum(r: Mapping[str, Any], n: int) -> int:
    """PROTOCOL.md, "Checksum"."""
    state = xxhash.xxh3_64()

    def integers(*keys: str) -> None:
        for key in keys:
            state.update(struct.pack("<Q", int(r[key]) & 0xFFFFFFFFFFFFFFFF))

    def reals(*keys: str) -> None:
        for key in keys:
            state.update(struct.pack("<d", r[key]))

    integers("id", "group", "sample", "group_size")
    name = r["prompt_id"]
    encoded = b"" if name is None else name.encode("utf-8", "surrogateescape")
    state.update(struct.pack("<Q", 0xFFFFFFFFFFFFFFFF if name is None else len(encoded)) + encoded)
    integers("epoch", "eval", "seed")
    reals("temperature", "top_p")
    integers("top_k")
    if r.get("min_p", 0) > 0:
        reals("min_p")
    integers("max_tokens", "n_prompt")
    state.update(struct.pack("<q", n))
    for key in _ARRAYS:
        state.update(r[key])
    state.update(struct.pack("<q", _FINISH.index(r["finish"])))
    for keys in (("reward", "reward_answer", "reward_steps"), ("advantage", "baseline", "scale")):
        state.update(struct.pack("<q", keys[0] in r))
        if keys[0] in r:
            reals(*keys)
    integers("pivot")
    reals("loss_weight")
    for key in _OPTIONAL_ARRAYS:
        state.update(r.get(key, b""))
    return state.intdigest()


def _decode_trajectory(data: memoryview) -> Trajectory:
    r = _unpack(data)
    if r.get("schema") != 1:
        raise ProtocolError(f"trajectory has schema {r.get('schema')}, this client reads 1")
    n = len(r["tokens"]) // 4
    arrays = dict(_ARRAYS, **{key: kind for key, kind in _OPTIONAL_ARRAYS.items() if key in r})
    for key, kind in arrays.items():
        if len(r[key]) != n * struct.calcsize(kind):
            raise ProtocolError(f"trajectory {r['id']}: field '{key}' has {len(r[key])} bytes for {n} tokens")
    if xxhash and _checksum(r, n) != r["checksum"]:
        raise ProtocolError(f"trajectory {r['id']}: its checksum does not hold, it was damaged on its way")
    known = {key: value for key, value in r.items() if key in _FIELDS}
    for key, kind in arrays.items():
        known[key] = memoryview(r[key]).cast(kind)
    known["segments"] = list(struct.iter_unpack("<5i", r["segments"]))
    return Trajectory(**known)


def _unpack(data: Any) -> dict:
    try:
        frame = msgpack.unpackb(data, raw=False, unicode_errors="surrogateescape", strict_map_key=True,
                                max_array_len=VALUES_MAX, max_map_len=VALUES_MAX)
    except Exception as error:
        raise ProtocolError(f"what arrived is not msgpack: {error}") from error
    if not isinstance(frame, dict):
        raise ProtocolError(f"expected a map, found {type(frame).__name__}")
    return frame


def _round_bits(word: int) -> int:
    is_nan = word & 0x7FFFFFFF > 0x7F800000
    return 0x7FC0 if is_nan else (word + 0x7FFF + (word >> 16 & 1)) >> 16


def to_bf16(values: Any) -> memoryview:
    """BF16 bytes of a torch tensor, a numpy array or array.array of float32, rounded to nearest even.

    What has items of 2 bytes already (torch.bfloat16 viewed as int16, numpy uint16, bytes) is taken as BF16.
    """
    if hasattr(values, "detach"):  # torch, without importing it
        import torch
        values = values.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy()
    if hasattr(values, "astype"):  # numpy
        import numpy
        if values.dtype.itemsize == 2 and values.dtype.kind in "iu":
            return memoryview(numpy.ascontiguousarray(values)).cast("B")
        bits = numpy.ascontiguousarray(values, numpy.float32).view(numpy.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        nan = numpy.uint32(0x7FC0)
        return memoryview(numpy.where(numpy.isnan(values), nan, rounded).astype(numpy.uint16)).cast("B")
    if isinstance(values, array.array) and values.typecode == "f":
        return memoryview(array.array("H", map(_round_bits, array.array("I", values.tobytes())))).cast("B")
    view = memoryview(values)
    if view.itemsize not in (1, 2):
        raise TypeError(f"expected BF16 bytes, a torch tensor, or float32 of numpy or array, found {view.format} items")
    return view.cast("B")


def _prove(secret: bytes, purpose: bytes, server_nonce: bytes, nonce: bytes, name: str) -> bytes:
    return hmac.new(secret, purpose + server_nonce + nonce + name.encode(), hashlib.sha256).digest()


class Client:
    """One connection to a run.  Blocking; not for use from several threads.

    address: "unix:PATH" or "tcp:HOST:PORT".  secret: the first line of the run's bridge.secret_file without
    white space around it.  timeout: seconds without a byte moving after which a call gives up (TimeoutError).
    """

    def __init__(self, address: str, secret: "bytes | str | None" = None, name: str = "python",
                 timeout: float = 600.0, connect_seconds: float = 30.0):
        self.run_id = ""
        self.version = 0                                  #: of the policy, as last heard
        self.tensors: dict = {}                           #: name -> (shape, dtype), in the run's order
        self._frame_bytes_max = WELCOME_BYTES_MAX
        self._arrived = bytearray()
        self._pulling = False
        self._over = False
        self._batch: Optional[dict] = None                # the one that is arriving: fields and "data" so far
        self._complete: Optional[dict] = None
        self._answer: Optional[dict] = None               # weights_ok
        self._refusal: Optional[RunError] = None
        self._greeting: Optional[dict] = None
        self._pongs_due = 0
        self._timeout = timeout
        self._socket = _connect(address, connect_seconds)
        self._socket.settimeout(0)
        try:
            self._shake_hands(secret.encode() if isinstance(secret, str) else secret, name)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye.  What was sent before has arrived when this returns."""
        if self._socket.fileno() < 0:
            return
        try:
            self._timeout = LINGER_SECONDS
            self._send({"type": "bye"})
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.settimeout(LINGER_SECONDS)
            while self._socket.recv(65536):
                pass
        except (OSError, ProtocolError):
            pass  # the run has gone first
        finally:
            self._socket.close()

    # -- batches

    def pull(self, timeout: Optional[float] = None) -> Optional[Batch]:
        """The next batch, or None when the run is over.  After a TimeoutError call it again."""
        if not self._pulling and not self._over:
            self._send({"type": "pull", "credits": 1})
            self._pulling = True
        self._wait(lambda: self._complete is not None or self._over, timeout)
        if self._complete is None:
            return None
        frame, self._complete, self._pulling = self._complete, None, False
        data, at, trajectories = memoryview(frame["data"]), 0, []
        for _ in range(frame["trajectories"]):
            if len(data) - at < 4:
                raise ProtocolError(f"batch {frame['batch_id']} ends inside a trajectory")
            (length,) = struct.unpack_from("<I", data, at)
            trajectories.append(_decode_trajectory(data[at + 4:at + 4 + length]))
            at += 4 + length
        if at != len(data):
            raise ProtocolError(f"batch {frame['batch_id']}: {len(data) - at} bytes behind its last trajectory")
        return Batch(frame["batch_id"], frame["step"], frame["version"], trajectories)

    def ack(self, batch: "Batch | int") -> None:
        """The batch is this trainer's now: it is never delivered again.  Also for one of an earlier connection,
        before the first pull."""
        self._send({"type": "ack", "batch_id": batch if isinstance(batch, int) else batch.batch_id})

    def batches(self) -> Iterator[Batch]:
        """Every batch until the run is over; each is acknowledged when the next one is asked for."""
        while True:
            batch = self.pull()
            if batch is None:
                return
            yield batch
            self.ack(batch)

    # -- weights and reports

    def push_weights(self, version: int, tensors: Mapping[str, Any], chunk_bytes: int = 1 << 20) -> None:
        """Push every tensor of `self.tensors` by name; others are left out (a tied head, buffers).  Values: see
        to_bf16.  Returns when the run has taken the version; raises RunError with its reason if it does not."""
        chunk_bytes = min(chunk_bytes, self._frame_bytes_max - CHUNK_HEAD_BYTES_MAX)
        missing = [name for name in self.tensors if name not in tensors]
        if missing:
            raise KeyError(f"{len(missing)} tensors of the policy are not there, the first is '{missing[0]}'")
        self._answer = None
        self._send_of_push({"type": "weights_begin", "version": version, "encoding": "full"})
        for name in self.tensors:
            data = to_bf16(tensors[name])
            for offset in range(0, len(data), chunk_bytes):
                self._send_of_push({"type": "weights_chunk", "version": version, "name": name, "offset": offset,
                                    "data": bytes(data[offset:offset + chunk_bytes])})
            checksum = ({"xxh3": xxhash.xxh3_64_intdigest(data)} if xxhash else
                        {"sha256": hashlib.sha256(data).digest()})
            self._send_of_push({"type": "weights_tensor", "version": version, "name": name, **checksum})
        self._send_of_push({"type": "weights_commit", "version": version})
        self._wait(lambda: self._answer is not None)
        self.version = self._answer["version"]

    def report(self, step: int, tokens: int = 0, **metrics: float) -> None:
        """loss, grad_norm, kl, clip_frac, entropy, tis_mean, learning_rate, seconds: shown and kept by the run."""
        self._send({"type": "report", "step": step, "tokens": tokens, **{k: float(v) for k, v in metrics.items()}})

    # -- frames

    def _shake_hands(self, secret: Optional[bytes], name: str) -> None:
        nonce = os.urandom(NONCE_BYTES)
        self._send({"type": "hello", "protocol_min": PROTOCOL_VERSION, "protocol_max": PROTOCOL_VERSION,
                    "name": name, "role": "trainer", "nonce": nonce})
        self._wait(lambda: self._greeting is not None)
        greeting, proof = self._greeting, None
        if (secret is not None) != (greeting["type"] == "challenge"):
            raise ProtocolError("the run asks for a secret and none was given" if secret is None else
                                "a secret was given and the run asked for none: it is not the run that was meant")
        if secret is not None:
            self._greeting = None
            self._send({"type": "auth", "mac": _prove(secret, b"drumroll 1 peer", greeting["nonce"], nonce, name)})
            self._wait(lambda: self._greeting is not None)
            proof = _prove(secret, b"drumroll 1 server", greeting["nonce"], nonce, name)
            greeting = self._greeting
            if not hmac.compare_digest(proof, greeting.get("mac", b"")):
                raise ProtocolError("what answers does not know the secret: it is not the run that was meant")
        if greeting.get("protocol") != PROTOCOL_VERSION:
            raise ProtocolError(f"the run speaks protocol {greeting.get('protocol')}, this client {PROTOCOL_VERSION}")
        self.run_id, self.version = greeting["run_id"], greeting["version"]
        self._frame_bytes_max = greeting["frame_bytes_max"]
        self.tensors = {t["name"]: (tuple(t["shape"]), t["dtype"]) for t in greeting["tensors"]}

    def _take(self, frame: dict) -> None:
        kind = frame.get("type")
        if kind in ("challenge", "welcome"):
            self._greeting = frame
        elif kind == "batch":
            self._take_part(frame)
        elif kind == "weights_ok":
            self._answer = frame
        elif kind == "error":
            self._refusal = RunError(frame)
        elif kind == "ping":
            self._pongs_due += 1
        elif kind == "bye":
            self._over = True
        # a newer run may say more: it does not concern us

    def _take_part(self, frame: dict) -> None:
        if self._batch is None:
            self._batch = dict(frame, data=bytearray(), part=0)
        batch = self._batch
        if not self._pulling or (frame["batch_id"], frame["part"]) != (batch["batch_id"], batch["part"]):
            raise ProtocolError(f"part {frame['part']} of batch {frame['batch_id']} was not due")
        batch["data"] += frame["data"]
        batch["part"] += 1
        if len(batch["data"]) > batch["bytes"] or (batch["part"] == batch["parts"] and
                                                   len(batch["data"]) < batch["bytes"]):
            raise ProtocolError(f"batch {batch['batch_id']} has {len(batch['data'])} of {batch['bytes']} bytes")
        if batch["part"] == batch["parts"]:
            self._batch, self._complete = None, batch

    def _receive(self) -> None:
        """Take in what is there now."""
        try:
            data = self._socket.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError as error:
            self._raise_refusal()
            raise ProtocolError(f"the connection to the run broke: {error}") from error
        if not data:
            self._raise_refusal()
            raise ProtocolError("the run closed the connection")
        self._arrived += data
        at = 0
        while len(self._arrived) - at >= 4:
            (length,) = struct.unpack_from("<I", self._arrived, at)
            if length > max(self._frame_bytes_max, WELCOME_BYTES_MAX):
                raise ProtocolError(f"a frame of {length} bytes: the limit is {self._frame_bytes_max}")
            if len(self._arrived) - at - 4 < length:
                break
            self._take(_unpack(bytes(self._arrived[at + 4:at + 4 + length])))
            at += 4 + length
        del self._arrived[:at]

    def _raise_refusal(self) -> None:
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal

    def _ready(self, write: bool, deadline: float) -> Tuple[bool, bool]:
        poll = select.poll()  # not select(): it fails on descriptors from 1024
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if write else 0))
        events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not events:
            raise TimeoutError("the run neither took nor sent anything for the time allowed")
        event = events[0][1]
        return bool(event & ~select.POLLOUT), bool(event & select.POLLOUT)

    def _send(self, frame: dict) -> None:
        """Send a frame, taking frames in meanwhile: two sides that only write would wait for each other."""
        payload = msgpack.packb(frame, use_bin_type=True)
        left = memoryview(struct.pack("<I", len(payload)) + payload)
        deadline = time.monotonic() + self._timeout
        while left:
            readable, writable = self._ready(True, deadline)
            if readable:
                self._receive()
            if self._refusal is not None and self._refusal.fatal:
                self._raise_refusal()
            if writable:
                try:
                    left = left[self._socket.send(left):]
                    deadline = time.monotonic() + self._timeout
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise ProtocolError(f"the connection to the run broke: {error}") from error

    def _send_of_push(self, frame: dict) -> None:
        self._send(frame)
        self._raise_refusal()

    def _wait(self, enough: Any, timeout: Optional[float] = None) -> None:
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        while not enough():
            self._raise_refusal()
            while self._pongs_due > 0:
                self._pongs_due -= 1
                self._send({"type": "pong"})
            self._ready(False, deadline)
            self._receive()


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
                raise ConnectionError(f"cannot connect to the run at {address}: {error}; is it running?") from error
            time.sleep(0.05)
