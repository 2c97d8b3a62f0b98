"""A connection that comes back by itself, and what was said on it and may not have arrived."""

from __future__ import annotations

import collections
import time
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple, TypeVar, Union

from .errors import ConnectionLost, ProtocolError, RunError
from .wire import Frame, LINGER_SECONDS, Wire

T = TypeVar("T")
BREAKS_MAX = 8           # of one call: then it gives up
ACKS_REMEMBERED = 4096   # batches that are known if they come again
GHOST_SECONDS = 30.0     # after a break the run may still think that our old connection lives, holds and pushes


class Session:
    """What Client is built on.  Every attempt of a call runs under `_steadily`: it starts anew where the connection
    that it used broke, and must therefore be harmless twice.  Three sets keep batches from coming twice: `_given` are
    with the caller, `_acked` were acknowledged, `_unconfirmed` of them perhaps in vain."""

    def __init__(self, address: str, secret: Union[bytes, str, None], name: str, timeout: float,
                 connect_seconds: float, reconnect_seconds: float, wishes: Frame):
        self.run_id = ""
        self.version = 0                                           #: of the policy, as last heard
        self.weights_version = 0  #: whose weights were in use at the last handshake; below `version`: a crash lost some
        self.tensors: Dict[str, Tuple[Tuple[int, ...], str]] = {}  #: name -> (shape, dtype), in the run's order
        self.limits: Dict[str, int] = {}                           #: credits_max, prompts_max, keep_versions, ...
        self.breaks = 0                                            #: connections that were lost and made anew
        self._address, self._name, self._timeout, self._wishes = address, name, timeout, wishes
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._reconnect_seconds = reconnect_seconds
        self._welcomed_at = 0                                      # the version that the last welcome told
        self._pushed_version, self._pushed_frames = 0, None        # of the last push that the run took
        self._push_is_lost = False                                 # a crash of the run has lost it
        self._over = False
        self._closed = False
        self._given: Dict[int, None] = {}
        self._unconfirmed: List[int] = []
        self._acked: Deque[int] = collections.deque(maxlen=ACKS_REMEMBERED)
        self._forget_connection()
        self._wire = self._open(connect_seconds)

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye.  What was sent before has arrived when this returns."""
        if self._closed:
            return
        self._timeout = self._wire.timeout = LINGER_SECONDS
        self._reconnect_seconds = min(self._reconnect_seconds, LINGER_SECONDS)
        try:
            if self._unconfirmed and not self._over:
                self._steadily(self._confirm_all)
        except (OSError, ProtocolError):
            pass  # the run has gone first; it will give these batches to whoever comes next
        self._closed = True
        self._wire.leave()

    def _open(self, seconds: float) -> Wire:
        wire = Wire(self._address, seconds, self._timeout, self._take)
        try:
            welcome = wire.shake_hands(self._secret, self._name, self._wishes)
            wire.forgive = self._forgive
        except BaseException:
            wire.close()
            raise
        if self.run_id and welcome["run_id"] != self.run_id:
            wire.close()
            raise ProtocolError(f"expected run {self.run_id} again at {self._address}, found run {welcome['run_id']}: "
                                "another run listens there now; make a new Client for it")
        self.run_id = welcome["run_id"]
        self.version = self._welcomed_at = welcome["version"]
        self.weights_version = welcome.get("weights", self.version)
        self.limits = {key: value for key, value in welcome.items() if key not in ("version", "protocol")
                       and isinstance(value, int)}
        self.tensors = {t["name"]: (tuple(t["shape"]), t["dtype"]) for t in welcome["tensors"]}
        return wire

    def _forget_connection(self) -> None:
        self._weights_ok: Optional[Frame] = None
        self._pongs = 0
        self._last_id = 0                          # of a request
        self._answers: Dict[int, Dict[str, Frame]] = {}  # by the id of the request, then by type
        self._acks_refused = False
        self._opened_at = time.monotonic()

    def _after_break(self) -> bool:
        return self.breaks > 0 and time.monotonic() - self._opened_at < GHOST_SECONDS

    def _forgive(self, frame: Frame) -> bool:
        """Refusals that the waiting call does not raise: of a request, which has an id, and of an acknowledgement
        because our old connection still holds the batch; it is said again until the run has given that one up."""
        if frame.get("id") in self._answers:
            self._answers[frame["id"]]["error"] = frame
            return True
        if frame.get("about") != "ack" or frame.get("code") != "state" or not self._after_break():
            return False
        self._acks_refused = True
        return True

    def _come_back(self, error: Exception) -> None:
        """A new connection in the place of the one that broke, and the acknowledgements that it may have lost."""
        self._wire.close()
        if self._reconnect_seconds <= 0 or self._closed:
            raise error
        deadline = time.monotonic() + self._reconnect_seconds
        while True:
            self._forget_connection()
            try:
                self._wire = self._open(max(0.0, deadline - time.monotonic()))
                self.breaks += 1
                self._push_is_lost = self._pushed_version > self.weights_version
                self._say_again()
                return
            except (ConnectionLost, TimeoutError) as again:
                self._wire.close()
                if time.monotonic() >= deadline:
                    raise ConnectionLost(f"{error}; no way back within {self._reconnect_seconds:g} s: "
                                         f"{again}") from again
            except RunError as refusal:  # busy: the run has not noticed yet that the old connection is gone
                if not refusal.may_retry or time.monotonic() >= deadline:
                    raise
            time.sleep(0.05)

    def _steadily(self, call: Callable[[], T]) -> T:
        """call(), and again on a new connection where the one that it used broke."""
        for n_breaks in range(BREAKS_MAX + 1):
            try:
                return call()
            except ConnectionLost as error:
                if self._over or n_breaks == BREAKS_MAX:
                    raise
                self._come_back(error)
        raise AssertionError("not reached")

    def _take(self, frame: Frame) -> None:
        kind = frame.get("type")
        if kind == "weights_ok":
            self._weights_ok = frame
        elif kind == "pong":
            self._pongs += 1
        elif kind == "bye":
            self._over = True
        elif kind == "evaluation":
            self._take_evaluation(frame)
        elif frame.get("id") in self._answers:
            self._answers[frame["id"]][frame["type"]] = frame
        # a newer run may say more: it does not concern us

    def _take_evaluation(self, frame: Frame) -> None:
        answer = self._answers.get(frame["id"])
        if answer is None:
            return                          # nobody waits for it any more
        parts = answer.setdefault("parts", dict(frame, data=bytearray()))
        parts["data"] += frame["data"]
        if frame["part"] == frame["parts"] - 1:
            answer["evaluation"] = parts

    def _ask(self, frame: Frame, wanted: str, timeout: Optional[float] = None) -> Frame:
        """Send a request and wait for the answer of type `wanted`; RunError where it is refused."""
        self._last_id += 1
        answers = self._answers[self._last_id] = {}
        try:
            self._wire.send({**frame, "id": self._last_id})
            self._wire.wait(lambda: wanted in answers or "error" in answers, timeout)
        finally:
            del self._answers[self._last_id]
        if wanted not in answers:
            raise RunError(answers["error"])
        return answers[wanted]

    def _confirm_all(self) -> None:
        """An answer to what comes behind the acknowledgements says that they have arrived."""
        deadline = time.monotonic() + LINGER_SECONDS
        while self._unconfirmed and not self._over and time.monotonic() < deadline:
            said, self._pongs = list(self._unconfirmed), 0
            self._wire.send({"type": "ping"})
            self._wire.wait(lambda: self._pongs > 0 or self._over)
            if self._acks_refused:
                time.sleep(0.02)
            self._confirmed(said)

    def _confirmed(self, said: List[int]) -> None:
        """Something was answered that was asked behind these acknowledgements."""
        if self._acks_refused:
            self._acks_refused = False
            self._say_again()
        else:
            self._unconfirmed = [batch_id for batch_id in self._unconfirmed if batch_id not in said]

    def _push_again(self) -> None:
        raise NotImplementedError  # client.py

    def _say_again(self) -> None:
        for batch_id in self._unconfirmed:
            self._wire.send({"type": "ack", "batch_id": batch_id})
