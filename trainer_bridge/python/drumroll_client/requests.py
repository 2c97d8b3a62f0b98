"""Prompts of the trainer's own, as the maps that travel (PROTOCOL.md, "Requests")."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

import msgpack
import numpy as np

from .trajectory import Trajectory
from .wire import Frame

PROMPTS_MAX = 4096        # in one request
SEQUENCES_MAX = 4096
TOKENS_MAX = 1 << 20      # of all sequences of a `score`
HEAD_BYTES = 512          # of a frame beside prompts or sequences
SETTINGS = ("samples", "max_tokens", "temperature", "top_p", "top_k", "min_p")
FIELDS = ("prompt_id", "text", "messages", "tokens", "answer", "meta", "epoch", "reward") + SETTINGS

Prompt = Union[str, Sequence[Mapping[str, str]], Sequence[int], np.ndarray, Mapping[str, Any]]


@dataclasses.dataclass
class Evaluation:
    """Samples that were drawn under one version to be looked at, never trained on."""

    version: int
    trajectories: List[Trajectory]     # in the order of the prompts, `samples` of each

    @property
    def pass_rate(self) -> float:
        """Share of samples with a right answer; NaN where nothing was scored."""
        scored = [t.reward_answer for t in self.trajectories if t.reward_answer is not None]
        return float(np.mean(scored)) if scored else float("nan")


@dataclasses.dataclass
class Scores:
    """Log-probabilities of given tokens under one kept version."""

    version: int
    logprobs: List[np.ndarray]         # of each sequence: [n] float32, 0 on its prompt


def check_settings(settings: Mapping[str, Any]) -> None:
    for key in settings:
        if key not in SETTINGS:
            near = difflib.get_close_matches(key, SETTINGS, 1)
            raise TypeError(f"'{key}' is no setting: expected {', '.join(SETTINGS)}" +
                            (f"; did you mean '{near[0]}'?" if near else ""))


def prompt_map(prompt: Prompt) -> Frame:
    """A text to continue, a chat (list of messages), token ids, or a map with these and other fields of a prompt."""
    if isinstance(prompt, str):
        fields: Dict[str, Any] = {"text": prompt}
    elif isinstance(prompt, Mapping):
        fields = {key: value for key, value in prompt.items() if value is not None}
    elif len(prompt) > 0 and isinstance(prompt[0], Mapping):
        fields = {"messages": prompt}
    else:
        fields = {"tokens": prompt}
    for key in fields:
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, 1)
            raise KeyError(f"'{key}' is no field of a prompt" + (f": did you mean '{near[0]}'?" if near else
                           ": what is your own goes into 'meta', and comes back"))
    said = [key for key in ("text", "messages", "tokens") if key in fields]
    if len(said) != 1:
        raise ValueError(f"a prompt: expected exactly one of text, messages and tokens, found {said or 'none'}")
    if "tokens" in fields:
        fields["tokens"] = np.ascontiguousarray(fields["tokens"], "<i4").tobytes()
    for key in ("messages", "meta"):
        if key in fields and not isinstance(fields[key], str):
            fields[key] = json.dumps(fields[key], ensure_ascii=False)
    if "answer" in fields:
        fields["answer"] = str(fields["answer"])
    if "prompt_id" not in fields:  # the same prompt has the same name
        content = fields[said[0]]
        fields["prompt_id"] = hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]
    return fields


def split_by_bytes(items: Sequence[Frame], bytes_max: int, count_max: int) -> Iterator[List[Frame]]:
    """In order, so that each part fits a frame."""
    part: List[Frame] = []
    n_bytes = 0
    for item in items:
        size = len(msgpack.packb(item, use_bin_type=True))
        if part and (n_bytes + size > bytes_max - HEAD_BYTES or len(part) == count_max):
            yield part
            part, n_bytes = [], 0
        part.append(item)
        n_bytes += size
    if part:
        yield part


def sequence_map(sequence: Union[Trajectory, Sequence[int], np.ndarray], n_prompt: Optional[int]) -> Frame:
    if isinstance(sequence, Trajectory):
        return {"tokens": np.ascontiguousarray(sequence.tokens, "<i4").tobytes(), "n_prompt": sequence.n_prompt}
    return {"tokens": np.ascontiguousarray(sequence, "<i4").tobytes(), "n_prompt": 1 if n_prompt is None else n_prompt}
