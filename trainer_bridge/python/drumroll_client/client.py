"""The connection to a run as a trainer uses it: batches in; weights, prompts, questions and reports out."""

from __future__ import annotations

import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Union

import numpy as np

from .batch import Lengths
from .errors import ConnectionLost, RunError
from .push import (CHUNK_HEAD_BYTES_MAX, can_compress, check_names, delta_frames, full_frames, lora_frames, lora_pairs,
                   tensor_words)
from .receive import Receiver, trajectories_of
from .requests import (Evaluation, HEAD_BYTES, PROMPTS_MAX, Prompt, SEQUENCES_MAX, SETTINGS, Scores, TOKENS_MAX,
                       check_settings, prompt_map, sequence_map, split_by_bytes)
from .trajectory import Trajectory
from .wire import Frame

assert sys.byteorder == "little", "arrays travel little endian and are not converted here"


class Client(Receiver):
    """One trainer at a run.  Blocking; not for use from several threads.

    address: "unix:PATH" or "tcp:HOST:PORT".  secret: the first line of the run's bridge.secret_file without white
    space around it.  timeout: seconds without a byte moving after which a call gives up (TimeoutError).
    connect_seconds: how long to wait for the run to listen.  reconnect_seconds: the same after the connection broke;
    0: never come back (ConnectionLost).

    order: of the groups in a batch, "prompt" or "completion".  micro_batch: groups after which a piece of a step's
    batch is sent while the rest is still generated (see `steps`); 0: batches come whole.  on_lengths: called with the
    lengths of a batch's samples before their bodies arrive.

    **Exactly once.**  A batch is acknowledged by `ack`, or by `batches()` when it is asked for the next one.  When
    the connection breaks, the acknowledgements that may have been lost with it are the first thing said on the next
    one, a batch that was arriving is asked for again, and a batch that comes a second time is not given out twice.
    What a killed trainer had not acknowledged comes again, with the same `batch_id`, to the one that is started in
    its place: a trainer that has saved a batch's work before it could acknowledge begins with `ack(batch_id)`.
    """

    def __init__(self, address: str, secret: Union[bytes, str, None] = None, name: str = "python",
                 timeout: float = 600.0, connect_seconds: float = 30.0, reconnect_seconds: float = 60.0,
                 order: str = "prompt", micro_batch: int = 0, on_lengths: Optional[Callable[[Lengths], None]] = None):
        wishes: Frame = {} if order == "prompt" else {"order": order}
        if micro_batch:
            wishes["micro_batch"] = micro_batch
        if on_lengths:
            wishes["lengths"] = True
        self._epochs: Dict[str, int] = {}             # how often a prompt was submitted
        self._base: Optional[Dict[str, np.ndarray]] = None  # words of the version that deltas are against
        self._base_version: Optional[int] = None
        super().__init__(address, secret, name, timeout, connect_seconds, reconnect_seconds, wishes,
                         micro_batch=micro_batch, on_lengths=on_lengths)
        if self.version == 0:
            self._base_version = 0

    # -- weights and reports

    def push_weights(self, version: int, tensors: Mapping[str, Any], chunk_bytes: int = 1 << 20,
                     retry_seconds: float = 0.0) -> int:
        """Push every tensor of `self.tensors` by name; others are left out (a tied head, buffers).

        tensors: name -> torch tensor, numpy array or BF16 words (see to_bf16), e.g. `model.state_dict()`; shapes as
        in `self.tensors`.  version: above `self.version`.  retry_seconds: how long to go on where the run says that
        it is busy with another version.  The mapping is kept: should a crash of the run lose the version, the next pull
        pushes it again, with what the tensors hold by then; its number may be higher, so count from `self.version`.
        Returns the bytes of tensor data sent when the run has taken the version; raises RunError with its reason if it
        does not, and the run keeps the version before.
        """
        check_names(self.tensors, tensors)
        if self._base is not None:
            tensors = {name: tensor_words(self.tensors, name, tensors[name]).copy() for name in self.tensors}
        sent = self._push_steadily(version, retry_seconds, lambda number: full_frames(
            self.tensors, number, tensors, self._chunk_bytes(chunk_bytes)))
        self._base_version = version
        if self._base is not None:
            self._base = dict(tensors)
        return sent

    def push_delta(self, version: int, tensors: Mapping[str, Any], chunk_bytes: int = 4 << 20,
                   retry_seconds: float = 0.0) -> int:
        """As push_weights, but only what differs from the version that was pushed before, compressed: an update of a
        usual learning rate changes few BF16 values.  In full where there is nothing to compare with yet (see
        `remember_base`), where the run holds another base, or without the zstandard package.  Keeps a copy of the
        weights, 2 bytes per parameter."""
        check_names(self.tensors, tensors)
        words = {name: tensor_words(self.tensors, name, tensors[name]).copy() for name in self.tensors}
        base, base_version = self._base or {}, -1 if self._base_version is None else self._base_version
        self._base = base  # from now on push_weights remembers, too
        if not base or base_version < 0 or not can_compress():
            return self.push_weights(version, words, chunk_bytes, retry_seconds)
        try:
            sent = self._push_steadily(version, retry_seconds, lambda number: delta_frames(
                self.tensors, number, base_version, base, words, self._chunk_bytes(chunk_bytes)))
        except RunError as refusal:
            if refusal.code != "base":
                raise
            return self.push_weights(version, words, chunk_bytes, retry_seconds)
        self._base, self._base_version = words, version
        self._pushed_frames = lambda number: full_frames(self.tensors, number, words, self._chunk_bytes(chunk_bytes))
        return sent

    def remember_base(self, version: int, tensors: Mapping[str, Any]) -> None:
        """What the run holds as `version`, so that the first push can be a delta: at version 0 the model directory's
        tensors as they are there (read_model(directory, words=True))."""
        check_names(self.tensors, tensors)
        self._base = {name: tensor_words(self.tensors, name, tensors[name]).copy() for name in self.tensors}
        self._base_version = version

    def push_lora(self, version: int, adapters: Mapping[str, Any], alpha: float,
                  full: Optional[Mapping[str, Any]] = None, base: Optional[int] = None,
                  chunk_bytes: int = 1 << 20, retry_seconds: float = 0.0) -> int:
        """Push LoRA pairs, which the run merges: W = bf16(base + alpha / rank * B A), in FP32.

        adapters: MODULE.lora_A.weight [rank][cols] and MODULE.lora_B.weight [rows][rank] by PEFT's names, any floating
        type; they travel as FP32.  full: tensors that were trained whole beside them.  base: the newest version that
        came in full or as a delta, by default the one that this client pushed last, or 0.  A version of adapters
        is no base: the next adapters are against the same one.
        """
        base = self._base_version if base is None else base
        if base is None:
            raise ValueError(f"the run is at version {self.version} and this client did not push it: say against which "
                             "version the adapters are (base=), or push that in full first")
        pairs, rank = lora_pairs(self.tensors, adapters)
        against = base
        return self._push_steadily(version, retry_seconds, lambda number: lora_frames(
            self.tensors, number, against, pairs, rank, alpha, full or {}, self._chunk_bytes(chunk_bytes)))

    def report(self, step: int, tokens: int = 0, **metrics: float) -> None:
        """loss, grad_norm, kl, clip_frac, entropy, tis_mean, learning_rate, seconds: shown and kept by the run."""
        frame = {"type": "report", "step": step, "tokens": tokens, **{k: float(v) for k, v in metrics.items()}}
        self._steadily(lambda: self._wire.send(frame))

    # -- requests

    def submit(self, prompts: Sequence[Prompt], **settings: Any) -> int:
        """Hand prompts to a run whose data.source is `trainer` or `both`; their groups come in the next batches, known
        by `prompt_id` and with `meta` as given.

        A prompt is a text, a chat (list of messages), token ids, or a map with `text`, `messages` or `tokens` and
        optionally `prompt_id`, `answer` (for the run's verifier), `meta`, `epoch`, `reward` ("none": the trainer
        scores) and settings of its own.  settings: samples, max_tokens, temperature, top_p, top_k, min_p of all of
        them.  Without `prompt_id` a prompt is named by a hash of its content; without `epoch` this client counts how
        often it has submitted that name.  Returns for how many more prompts there is room; RunError `busy`, and
        nothing taken of this part, where there is none: try again when a batch has come.  More than 4096 prompts, or
        than fit a frame, go in several parts.
        """
        check_settings(settings)
        maps = [{**settings, **prompt_map(prompt)} for prompt in prompts]
        epochs = dict(self._epochs)
        for fields in maps:
            epoch = epochs.get(fields["prompt_id"], 0)
            fields.setdefault("epoch", epoch)  # with it, what is sent again after a break is not taken twice
            epochs[fields["prompt_id"]] = max(epoch, fields["epoch"]) + 1
        room = self.limits.get("prompts_max", 0)
        for part in split_by_bytes(maps, self._wire.frame_bytes_max, PROMPTS_MAX):
            room = self._steadily(lambda: self._ask({"type": "submit", "prompts": part}, "accepted"))["room"]
            self._epochs.update((fields["prompt_id"], epochs[fields["prompt_id"]]) for fields in part)
        return room

    def evaluate(self, prompts: Optional[Sequence[Prompt]] = None, timeout: Optional[float] = None,
                 **settings: Any) -> Evaluation:
        """Samples that are scored by the run's verifier and never trained on, all under one version; None: of the run's
        held-out prompts.  settings as in `submit`, with plain sampling (temperature 1, one sample) as the default;
        temperature=0 is greedy.  The run serves it between two steps or while it waits for weights, so ask
        before the push.  (A run that waits for prompts, with data.source trainer, has a step open: submit first.)
        After a TimeoutError the evaluation is forgotten."""
        check_settings(settings)
        frame: Frame = {"type": "evaluate", **settings}
        if prompts is None:
            frame["held_out"] = True
        else:
            frame["prompts"] = [prompt_map(prompt) for prompt in prompts]
            for fields in frame["prompts"]:
                if set(fields) & set(SETTINGS):
                    raise TypeError("settings of an evaluation hold for all of its prompts: give them to evaluate()")
        answer = self._steadily(lambda: self._ask(frame, "evaluation", timeout))
        return Evaluation(answer["version"], trajectories_of(answer))

    def score(self, sequences: Sequence[Union[Trajectory, Sequence[int], np.ndarray]], version: int,
              n_prompt: Union[int, Sequence[int]] = 1, timeout: Optional[float] = None, **settings: Any) -> Scores:
        """Log-probabilities of given tokens under `version`, one of the last weights.keep_versions of the run: bit for
        bit what a worker records.  sequences: trajectories (n_prompt is theirs) or token ids; n_prompt of all, or of
        each.  settings: temperature (1), top_p, top_k, min_p; of trajectories give those that drew them."""
        check_settings(settings)
        each = [n_prompt] * len(sequences) if isinstance(n_prompt, int) else list(n_prompt)
        maps = [sequence_map(sequence, n) for sequence, n in zip(sequences, each)]
        frame_bytes = min(self._wire.frame_bytes_max, 4 * TOKENS_MAX + HEAD_BYTES)
        logprobs: List[np.ndarray] = []
        for part in split_by_bytes(maps, frame_bytes, SEQUENCES_MAX):
            answer = self._steadily(lambda: self._ask(
                {"type": "score", "version": version, "sequences": part, **settings}, "scores", timeout))
            logprobs += [np.frombuffer(data, "<f4") for data in answer["logprobs"]]
        return Scores(version, logprobs)

    # -- one attempt each

    def _chunk_bytes(self, wanted: int) -> int:
        return min(wanted, self._wire.frame_bytes_max - CHUNK_HEAD_BYTES_MAX)

    def _push_steadily(self, version: int, retry_seconds: float, frames: Callable[[int], Iterator[Frame]]) -> int:
        start, self._push_in_doubt = time.monotonic(), False
        while True:
            try:
                sent = self._steadily(lambda: self._push(version, frames(version)))
                break
            except RunError as refusal:
                if self._push_in_doubt and self._has_it(refusal):  # its commit had arrived
                    self.version, sent = version, 0
                    break
                if self._push_in_doubt or self._after_break():  # our old connection may push
                    retry_seconds = max(retry_seconds, self._reconnect_seconds)
                if refusal.fatal or not refusal.may_retry or time.monotonic() - start >= retry_seconds:
                    raise
                time.sleep(0.02)
        self._pushed_version, self._pushed_frames = version, frames
        self._push_is_lost = self._push_in_doubt and self._welcomed_at >= version > self.weights_version
        return sent

    @staticmethod
    def _has_it(refusal: RunError) -> bool:
        """The run has the version, or will soon."""
        return refusal.code in ("invalid", "base") and refusal.about == "weights_begin"

    def _push_again(self) -> None:
        """The version that this client pushed last, which a crash of the run has lost (PROTOCOL.md, Weights)."""
        version = self._pushed_version if self._pushed_version > self.version else self.version + 1
        deadline, self._push_in_doubt = time.monotonic() + self._reconnect_seconds, False
        while True:
            try:
                self._push(version, self._pushed_frames(version))
                break
            except RunError as refusal:
                if self._has_it(refusal):  # it was no crash: the version was on its way to the ranks
                    break
                if refusal.fatal or not refusal.may_retry or time.monotonic() >= deadline:
                    raise
                time.sleep(0.02)
        self._pushed_version, self._push_is_lost = version, False

    def _push(self, version: int, frames: Iterator[Frame]) -> int:
        if self._push_in_doubt and self._welcomed_at >= version:
            self.version = version
            return 0                        # the connection broke between its commit and its answer
        said, sent, in_doubt, self._weights_ok = list(self._unconfirmed), 0, False, None
        try:
            for frame in frames:
                in_doubt = frame["type"] == "weights_commit"
                sent += len(frame.get("data", b""))
                self._wire.send(frame)
                self._wire.raise_refusal()
            self._wire.wait(lambda: self._weights_ok is not None)
        except ConnectionLost:
            self._push_in_doubt = self._push_in_doubt or in_doubt
            raise
        assert self._weights_ok is not None
        self._confirmed(said)
        self.version = self._weights_ok["version"]
        return sent
