"""Batches from a run: whole or piece by piece, each given to the caller once."""

from __future__ import annotations

import collections
import struct
from typing import Any, Callable, Deque, Iterator, List, Optional, Union

import numpy as np

from .batch import Batch, Lengths
from .errors import BatchRestarted, ConnectionLost, ProtocolError
from .session import Session
from .trajectory import Trajectory, trajectory_of
from .wire import Frame, unpack


class Receiver(Session):
    """The half of Client that takes batches in."""

    def __init__(self, *session: Any, micro_batch: int, on_lengths: Optional[Callable[[Lengths], None]]):
        self._micro_batch, self._on_lengths = micro_batch, on_lengths
        super().__init__(*session)

    def pull(self, timeout: Optional[float] = None) -> Optional[Batch]:
        """The next batch, or None when the run is over.  After a TimeoutError call it again."""
        return self._steadily(lambda: self._pull(timeout))

    def ack(self, batch: Union[Batch, int]) -> None:
        """The batch is this trainer's now: it is never delivered again.  Also for one of an earlier connection or
        process, before the first pull."""
        batch_id = batch if isinstance(batch, int) else batch.batch_id
        self._given.pop(batch_id, None)
        self._acked.append(batch_id)
        self._unconfirmed.append(batch_id)
        try:
            self._wire.send({"type": "ack", "batch_id": batch_id})
        except ConnectionLost as error:
            self._come_back(error)

    def batches(self) -> Iterator[Batch]:
        """Every batch until the run is over; each is acknowledged when the next one is asked for."""
        while True:
            batch = self.pull()
            if batch is None:
                return
            yield batch
            self.ack(batch)

    def steps(self) -> Iterator[Step]:
        """With micro_batch > 0: every step until the run is over, before its batch is complete.

            for step in client.steps():
                try:
                    for piece in step:              # a Batch of some groups, as soon as they are certain
                        accumulate_gradients(piece)
                except BatchRestarted:              # the connection broke: the pieces come again, in the next step
                    zero_gradients()
                    continue
                optimizer_step()
                client.push_weights(...)            # acknowledged when the next step is asked for
        """
        while True:
            step = Step(self)
            if not step.begin():
                return
            yield step
            if not step.restarted:
                for _ in step:
                    pass
                self.ack(step.batch_id)

    # -- what arrives

    def _forget_connection(self) -> None:
        super()._forget_connection()
        self._pulling = False
        self._unconfirmed_at_pull: List[int] = []
        self._arriving: Optional[Frame] = None         # a batch or piece of one: fields, and "data" so far
        self._arrived: Deque[Frame] = collections.deque()
        self._ended: Optional[Frame] = None            # batch_end
        self._whole: List[Batch] = []                  # pieces that `pull` puts together
        self._hints: List[Frame] = []                  # batch_lengths of one batch or piece

    def _take(self, frame: Frame) -> None:
        kind = frame.get("type")
        if kind == "batch":
            self._take_part(frame)
        elif kind == "batch_end":
            self._ended = frame
        elif kind == "batch_lengths":
            self._take_lengths(frame)
        else:
            super()._take(frame)

    def _take_part(self, frame: Frame) -> None:
        if self._arriving is None:
            self._arriving = dict(frame, data=bytearray(), part=0)
        batch = self._arriving
        if not self._pulling or (frame["batch_id"], frame["part"]) != (batch["batch_id"], batch["part"]):
            raise ProtocolError(f"part {frame['part']} of batch {frame['batch_id']} was not due")
        batch["data"] += frame["data"]
        batch["part"] += 1
        if len(batch["data"]) > batch["bytes"] or (batch["part"] == batch["parts"] and
                                                   len(batch["data"]) < batch["bytes"]):
            raise ProtocolError(f"batch {batch['batch_id']} has {len(batch['data'])} of {batch['bytes']} bytes")
        if batch["part"] == batch["parts"]:
            self._arriving = None
            self._arrived.append(batch)

    def _take_lengths(self, frame: Frame) -> None:
        self._hints = self._hints + [frame] if frame["first"] > 0 else [frame]
        hints = Lengths(frame["batch_id"], frame.get("micro"), *(
            np.frombuffer(b"".join(hint[key] for hint in self._hints), dtype)
            for key, dtype in (("groups", "<i8"), ("prompts", "<i4"), ("responses", "<i4"))))
        if len(hints.groups) == frame["trajectories"] and self._on_lengths:
            self._on_lengths(hints)

    def _next_piece(self, timeout: Optional[float]) -> Union[Batch, Frame, None]:
        """A batch; with micro_batch a piece of one, or the batch_end behind its pieces; None when the run is over."""
        if self._push_is_lost:
            self._push_again()
        while True:
            if not self._pulling and not self._over:
                self._wire.send({"type": "pull", "credits": 1})
                self._pulling, self._unconfirmed_at_pull = True, list(self._unconfirmed)
            self._wire.wait(lambda: bool(self._arrived) or self._ended is not None or self._over, timeout)
            if not self._arrived and self._ended is None:
                return None
            frame = self._arrived.popleft() if self._arrived else self._ended
            assert frame is not None
            self.version = max(self.version, frame["version"])
            batch_id, again = frame["batch_id"], frame["batch_id"] in self._acked
            if frame["type"] == "batch" and self._micro_batch:
                if not again and batch_id not in self._given:
                    return batch_of(frame)
                continue
            self._ended, self._pulling = None, False
            self._confirmed(self._unconfirmed_at_pull)
            if again:                       # acknowledged on a connection that broke: say it again
                self._unconfirmed.append(batch_id)
                self._wire.send({"type": "ack", "batch_id": batch_id})
            elif batch_id not in self._given:
                self._given[batch_id] = None
                return batch_of(frame) if frame["type"] == "batch" else frame

    def _pull(self, timeout: Optional[float]) -> Optional[Batch]:
        while True:
            piece = self._next_piece(timeout)
            if not self._micro_batch and isinstance(piece, Batch) or piece is None:
                return piece if isinstance(piece, Batch) else None
            if isinstance(piece, Batch):
                self._whole.append(piece)
                continue
            pieces, self._whole = self._whole, []
            return Batch(piece["batch_id"], piece["step"], piece["version"],
                         [t for part in pieces for t in part.trajectories])


class Step:
    """The batch of one step while it is being made: iterate over its pieces once.  See Client.steps."""

    def __init__(self, client: Receiver):
        self._client, self._breaks = client, client.breaks
        self._first: Optional[Batch] = None
        self.batch_id = self.step = self.version = 0
        self.complete = self.restarted = False

    def begin(self) -> bool:
        """Wait for the first piece; False when the run is over."""
        first = self._client._steadily(lambda: self._client._next_piece(None))
        self._breaks = self._client.breaks
        if not isinstance(first, Batch):
            return False
        self._first, self.complete = first, not self._client._micro_batch
        self.batch_id, self.step, self.version = first.batch_id, first.step, first.version
        return True

    def __iter__(self) -> Iterator[Batch]:
        first, self._first = self._first, None
        if first is not None:
            yield first
        while not self.complete:
            try:
                if self._client.breaks != self._breaks:
                    raise ConnectionLost("the connection broke since the last piece")
                piece = self._client._next_piece(None)
            except ConnectionLost as error:
                self.restarted = True
                if self._client.breaks == self._breaks:
                    self._client._come_back(error)
                raise BatchRestarted(f"step {self.step}: {error}; its pieces come again in the next step") from error
            if isinstance(piece, Batch):
                yield piece
            elif piece is None:
                raise ProtocolError(f"the run ended within step {self.step}")
            else:
                self.complete, self.version = True, piece["version"]


def trajectories_of(frame: Frame) -> List[Trajectory]:
    data, at, trajectories = memoryview(frame["data"]), 0, []
    for _ in range(frame["trajectories"]):
        if len(data) - at < 4:
            raise ProtocolError(f"a {frame['type']} ends inside a trajectory")
        (length,) = struct.unpack_from("<I", data, at)
        trajectories.append(trajectory_of(unpack(data[at + 4:at + 4 + length])))
        at += 4 + length
    if at != len(data):
        raise ProtocolError(f"a {frame['type']} has {len(data) - at} bytes behind its last trajectory")
    return trajectories


def batch_of(frame: Frame) -> Batch:
    return Batch(frame["batch_id"], frame["step"], frame["version"], trajectories_of(frame))
