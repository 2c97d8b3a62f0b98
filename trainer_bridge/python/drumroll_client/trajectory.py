"""One sample as the run recorded it, decoded and verified (PROTOCOL.md, "Trajectory")."""

from __future__ import annotations

import dataclasses
import json
import struct
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from .errors import ProtocolError

xxhash: Any = None
try:
    import xxhash
except ImportError:  # checksums are then not verified
    pass

SCHEMA = 1
_ARRAYS: Dict[str, "np.dtype[Any]"] = {"tokens": np.dtype("<i4"), "logprobs": np.dtype("<f4"),
                                       "versions": np.dtype("<i4"), "mask": np.dtype("u1")}
_OPTIONAL_ARRAYS: Dict[str, "np.dtype[Any]"] = {"target_logprobs": np.dtype("<f4")}
_FINISH = ["none", "stop", "length", "abort", "pruned", "error"]


@dataclasses.dataclass
class Trajectory:
    """n = n_prompt + length of the response.  Item i of an array belongs to token i, which the logits at i - 1
    predicted.  Arrays are views of the bytes that arrived, and read-only: `.copy()` what you change."""

    id: int                            # group * 4096 + sample: stable, unique in a run
    group: int
    sample: int
    group_size: int
    prompt_id: str
    epoch: int
    eval: bool
    seed: int
    answer: Optional[str]
    meta: Optional[str]                # JSON text; see `metadata`
    max_tokens: int
    temperature: float                 # 0: greedy
    top_p: float
    top_k: int
    n_prompt: int
    tokens: np.ndarray                 # [n] int32
    logprobs: np.ndarray               # [n] float32, of the policy that drew them; 0 on the prompt
    versions: np.ndarray               # [n] int32, policy version that drew the token; -1 on the prompt
    mask: np.ndarray                   # [n] uint8, 1 where the loss applies
    segments: List[Tuple[int, int, int, int, int]]  # (start, length, version, rank, mode)
    finish: str                        # stop, length, abort, pruned, error
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
    target_logprobs: Optional[np.ndarray] = None  # [n] float32, quantized mode: the target's for the same tokens

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def is_trained(self) -> bool:
        """It has an advantage and a loss weight; pivots, failures and evaluations do not."""
        return self.advantage is not None and self.loss_weight > 0 and not self.eval and self.finish != "error"

    @property
    def metadata(self) -> Dict[str, Any]:
        """The other fields of the prompt's line."""
        return json.loads(self.meta) if self.meta else {}

    @property
    def old_logprobs(self) -> np.ndarray:
        """[n] float32: of the BF16 policy of the version that drew, whichever copy of it did."""
        return self.logprobs if self.target_logprobs is None else self.target_logprobs


_FIELDS = {field.name for field in dataclasses.fields(Trajectory)}
_REQUIRED = {field.name for field in dataclasses.fields(Trajectory) if field.default is dataclasses.MISSING}


def checksum(record: Mapping[str, Any], n: int) -> int:
    """XXH3-64 of the fields that a repetition of the run reproduces (PROTOCOL.md, "Checksum")."""
    state = xxhash.xxh3_64()

    def integers(*keys: str) -> None:
        for key in keys:
            state.update(struct.pack("<Q", int(record[key]) & 0xFFFFFFFFFFFFFFFF))

    def reals(*keys: str) -> None:
        for key in keys:
            state.update(struct.pack("<d", record[key]))

    integers("id", "group", "sample", "group_size")
    name = record["prompt_id"]
    encoded = b"" if name is None else name.encode("utf-8", "surrogateescape")
    state.update(struct.pack("<Q", 0xFFFFFFFFFFFFFFFF if name is None else len(encoded)) + encoded)
    integers("epoch", "eval", "seed")
    reals("temperature", "top_p")
    integers("top_k")
    if record.get("min_p", 0) > 0:
        reals("min_p")
    integers("max_tokens", "n_prompt")
    state.update(struct.pack("<q", n))
    for key in _ARRAYS:
        state.update(record[key])
    state.update(struct.pack("<q", _FINISH.index(record["finish"])))
    for keys in (("reward", "reward_answer", "reward_steps"), ("advantage", "baseline", "scale")):
        state.update(struct.pack("<q", keys[0] in record))
        if keys[0] in record:
            reals(*keys)
    integers("pivot")
    reals("loss_weight")
    for key in _OPTIONAL_ARRAYS:
        state.update(record.get(key, b""))
    return state.intdigest()


def trajectory_of(record: Mapping[str, Any]) -> Trajectory:
    """The map that travelled; fields that this client does not know are left out."""
    if record.get("schema") != SCHEMA:
        raise ProtocolError(f"a trajectory has schema {record.get('schema')}, this client reads {SCHEMA}: "
                            "use the client that came with the run")
    missing = sorted(_REQUIRED - record.keys())
    if missing:
        raise ProtocolError(f"trajectory {record.get('id')}: expected a field '{missing[0]}', found none")
    n = len(record["tokens"]) // 4
    arrays = dict(_ARRAYS, **{key: dtype for key, dtype in _OPTIONAL_ARRAYS.items() if key in record})
    for key, dtype in arrays.items():
        if len(record[key]) != n * dtype.itemsize:
            raise ProtocolError(f"trajectory {record['id']}: field '{key}': expected {n * dtype.itemsize} bytes "
                                f"for {n} tokens, found {len(record[key])}")
    if xxhash is not None and checksum(record, n) != record["checksum"]:
        raise ProtocolError(f"trajectory {record['id']}: its checksum does not hold, it was damaged on its way")
    known = {key: value for key, value in record.items() if key in _FIELDS}
    for key, dtype in arrays.items():
        known[key] = np.frombuffer(record[key], dtype)
    known["segments"] = list(struct.iter_unpack("<5i", record["segments"]))
    return Trajectory(**known)
