"""A batch as the arrays that a training step wants: padded, packed (varlen), or in micro-batches of either.

All arrays are aligned with tokens: item i belongs to token i, which the logits at i - 1 predict.  With `logp[:, i]`
the log-probability of token i + 1 under the trainer, compare with `logprobs[:, 1:]`.
B: samples, T: longest of them, N: their tokens together.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, Iterator, List, Optional, Sequence

import numpy as np

from .trajectory import Trajectory


@dataclasses.dataclass
class Padded:
    """Samples as rows, filled up on the right."""

    tokens: np.ndarray           # [B][T] int64; pad_id behind the end
    attention_mask: np.ndarray   # [B][T] bool; False behind the end
    loss_mask: np.ndarray        # [B][T] float32; the sample's loss weight where the loss applies, else 0
    logprobs: np.ndarray         # [B][T] float32; behaviour: of the policy that drew, after temperature and truncation
    target_logprobs: np.ndarray  # [B][T] float32; of that version's BF16 policy (equal unless a quantized copy drew)
    versions: np.ndarray         # [B][T] int32; -1 on prompt and padding
    advantages: np.ndarray       # [B] float32; 0 where there is none
    rewards: np.ndarray          # [B] float32; NaN where there is none
    lengths: np.ndarray          # [B] int64
    prompt_lengths: np.ndarray   # [B] int64
    groups: np.ndarray           # [B] int64; of one prompt.  Never group by position
    temperatures: np.ndarray     # [B] float32; 1 where greedy
    trajectories: List[Trajectory]


@dataclasses.dataclass
class Packed:
    """Samples one behind the other, without padding, as flash-attention's varlen functions take them."""

    tokens: np.ndarray           # [N] int64
    positions: np.ndarray        # [N] int64; from 0 in each sample
    cu_seqlens: np.ndarray       # [B + 1] int32; sample b is [cu_seqlens[b], cu_seqlens[b + 1])
    max_seqlen: int
    loss_mask: np.ndarray        # [N] float32; as in Padded
    logprobs: np.ndarray         # [N] float32
    target_logprobs: np.ndarray  # [N] float32
    versions: np.ndarray         # [N] int32
    advantages: np.ndarray       # [N] float32; its sample's, on every token
    temperatures: np.ndarray     # [N] float32
    trajectories: List[Trajectory]


@dataclasses.dataclass
class Lengths:
    """What is coming: told before the bodies of a batch, so that packing can be planned meanwhile."""

    batch_id: int
    micro: Optional[int]         # which piece of a batch (Client.steps), else None
    groups: np.ndarray           # [B] int64
    prompts: np.ndarray          # [B] int32, tokens
    responses: np.ndarray        # [B] int32, tokens


def _advantage(t: Trajectory) -> float:
    return 0.0 if t.advantage is None else t.advantage


def _temperature(t: Trajectory) -> float:
    return t.temperature if t.temperature > 0 else 1.0


def _loss_mask(t: Trajectory) -> np.ndarray:
    return t.mask * np.float32(t.loss_weight)


def pad(trajectories: Sequence[Trajectory], pad_id: int = 0, multiple_of: int = 1) -> Padded:
    """T is the longest sample rounded up to a multiple of `multiple_of`."""
    lengths = np.array([t.n_tokens for t in trajectories], np.int64)
    width = -(-int(lengths.max(initial=0)) // multiple_of) * multiple_of

    def rows(of: Callable[[Trajectory], np.ndarray], fill: float, dtype: type) -> np.ndarray:
        out: np.ndarray = np.full((len(trajectories), width), fill, dtype)
        for row, t in zip(out, trajectories):
            row[:t.n_tokens] = of(t)
        return out

    def column(of: Callable[[Trajectory], float], dtype: type) -> np.ndarray:
        return np.array([of(t) for t in trajectories], dtype)

    return Padded(
        tokens=rows(lambda t: t.tokens, pad_id, np.int64),
        attention_mask=np.arange(width)[None, :] < lengths[:, None],
        loss_mask=rows(_loss_mask, 0, np.float32),
        logprobs=rows(lambda t: t.logprobs, 0, np.float32),
        target_logprobs=rows(lambda t: t.old_logprobs, 0, np.float32),
        versions=rows(lambda t: t.versions, -1, np.int32),
        advantages=column(_advantage, np.float32),
        rewards=column(lambda t: np.nan if t.reward is None else t.reward, np.float32),
        lengths=lengths,
        prompt_lengths=column(lambda t: t.n_prompt, np.int64),
        groups=column(lambda t: t.group, np.int64),
        temperatures=column(_temperature, np.float32),
        trajectories=list(trajectories))


def pack(trajectories: Sequence[Trajectory]) -> Packed:
    def join(of: Callable[[Trajectory], np.ndarray], dtype: type) -> np.ndarray:
        return np.concatenate([of(t) for t in trajectories] or [np.zeros(0)]).astype(dtype)

    lengths = [t.n_tokens for t in trajectories]
    return Packed(
        tokens=join(lambda t: t.tokens, np.int64),
        positions=join(lambda t: np.arange(t.n_tokens), np.int64),
        cu_seqlens=np.cumsum([0] + lengths, dtype=np.int32),
        max_seqlen=max(lengths, default=0),
        loss_mask=join(_loss_mask, np.float32),
        logprobs=join(lambda t: t.logprobs, np.float32),
        target_logprobs=join(lambda t: t.old_logprobs, np.float32),
        versions=join(lambda t: t.versions, np.int32),
        advantages=join(lambda t: np.full(t.n_tokens, _advantage(t)), np.float32),
        temperatures=join(lambda t: np.full(t.n_tokens, _temperature(t)), np.float32),
        trajectories=list(trajectories))


def split_by_tokens(trajectories: Sequence[Trajectory], max_tokens: int, padded: bool) -> List[List[Trajectory]]:
    """Parts of at most max_tokens tokens each, padding counted if `padded`; one sample alone may have more.

    Longest first.  Packed: into the first part that has room (first fit decreasing: at most 11/9 of the fewest parts
    that there can be, and one).  Padded: neighbours in length share a part, so that little of it is padding.
    """
    parts: List[List[Trajectory]] = []
    room: List[int] = []
    for t in sorted(trajectories, key=lambda t: (-t.n_tokens, t.id)):
        if padded:
            if not parts or (len(parts[-1]) + 1) * parts[-1][0].n_tokens > max_tokens:
                parts.append([])
            parts[-1].append(t)
            continue
        i = next((i for i, left in enumerate(room) if t.n_tokens <= left), len(parts))
        if i == len(parts):
            parts.append([])
            room.append(max_tokens)
        parts[i].append(t)
        room[i] -= t.n_tokens
    return parts


@dataclasses.dataclass
class Batch:
    """Trajectories that the run gave together; `batch_id` is the same if it has to give them again."""

    batch_id: int
    step: int
    version: int                     # the policy's when the batch was made
    trajectories: List[Trajectory]

    @property
    def trained(self) -> List[Trajectory]:
        """Those to train on (Trajectory.is_trained)."""
        return [t for t in self.trajectories if t.is_trained]

    def padded(self, pad_id: int = 0, multiple_of: int = 1) -> Padded:
        """What is trained on, as rows [B][T]."""
        return pad(self.trained, pad_id, multiple_of)

    def packed(self) -> Packed:
        """What is trained on, as one row [N]."""
        return pack(self.trained)

    def micro_batches(self, max_tokens: int, pad_id: int = 0, part: int = 0, parts: int = 1) -> Iterator[Padded]:
        """What is trained on, in rows of similar length: at most max_tokens at a time, their padding included.

        parts > 1: several optimizer steps per batch.  Sample i belongs to part i mod parts, so each part has
        members of every group.
        """
        for samples in split_by_tokens(self.trained[part::parts], max_tokens, True):
            yield pad(samples, pad_id)

    def packed_micro_batches(self, max_tokens: int, part: int = 0, parts: int = 1) -> Iterator[Packed]:
        """The same without padding."""
        for samples in split_by_tokens(self.trained[part::parts], max_tokens, False):
            yield pack(samples)

    @property
    def loss_tokens(self) -> float:
        """Sum of the loss masks: divide a summed loss by it and micro-batches add up to the batch's mean."""
        return float(sum(t.mask.sum() * t.loss_weight for t in self.trained))

    @property
    def reward_mean(self) -> Optional[float]:
        rewards = [t.reward for t in self.trajectories if t.reward is not None]
        return sum(rewards) / len(rewards) if rewards else None
