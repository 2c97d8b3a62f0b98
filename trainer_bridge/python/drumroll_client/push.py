"""The frames of a push: full, as a delta or as LoRA pairs, with checksums (PROTOCOL.md, "Weights")."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Dict, Iterator, Mapping, Tuple

import numpy as np

from .bf16 import to_bf16
from .wire import Frame

xxhash: Any = None
zstandard: Any = None
try:
    import xxhash
except ImportError:  # SHA-256 then, which is slower
    pass
try:
    import zstandard
except ImportError:  # no deltas then: every push is full
    pass

CHUNK_HEAD_BYTES_MAX = 512
DELTA_BYTES_MAX = 4 << 20  # xor_bytes of a chunk

Layout = Mapping[str, Tuple[Tuple[int, ...], str]]  #: name -> (shape, dtype), as `welcome` tells it


def check_names(layout: Layout, tensors: Mapping[str, Any]) -> None:
    missing = [name for name in layout if name not in tensors]
    if missing:
        near = [name for name in tensors if name.endswith(missing[0]) or missing[0].endswith(name)]
        raise KeyError(f"{len(missing)} of {len(layout)} tensors of the policy are not there, the first is "
                       f"'{missing[0]}'" + (f"; did you mean '{near[0]}'?" if near else
                                            ": names are those of the Hugging Face checkpoint"))


def tensor_words(layout: Layout, name: str, value: Any) -> np.ndarray:
    """[elements] uint16 BF16 words; ValueError where the size is not the policy's."""
    shape = layout[name][0]
    words = to_bf16(value)
    expected = int(np.prod(shape, dtype=np.int64))
    found = tuple(getattr(value, "shape", (words.size,)))
    if words.size != expected or (len(found) > 1 and found != shape):
        raise ValueError(f"tensor '{name}': expected shape {list(shape)}, found {list(found)}; "
                         "gather sharded tensors before you push them")
    return words.reshape(-1)


def checksum_of(data: memoryview) -> Frame:
    if xxhash is not None:
        return {"xxh3": xxhash.xxh3_64_intdigest(data)}
    return {"sha256": hashlib.sha256(data).digest()}


def chunk_frames(version: int, name: str, data: memoryview, chunk_bytes: int) -> Iterator[Frame]:
    for offset in range(0, len(data), chunk_bytes):
        yield {"type": "weights_chunk", "version": version, "name": name, "offset": offset,
               "data": bytes(data[offset:offset + chunk_bytes])}


def full_frames(layout: Layout, version: int, tensors: Mapping[str, Any], chunk_bytes: int) -> Iterator[Frame]:
    """From weights_begin to weights_commit, made as they are sent: one tensor is in memory at a time."""
    yield {"type": "weights_begin", "version": version, "encoding": "full"}
    for name in layout:
        data = tensor_words(layout, name, tensors[name]).view(np.uint8).data
        yield from chunk_frames(version, name, data, chunk_bytes)
        yield {"type": "weights_tensor", "version": version, "name": name, **checksum_of(data)}
    yield {"type": "weights_commit", "version": version}


# -- against a base


def can_compress() -> bool:
    return zstandard is not None


def planes(words: np.ndarray) -> bytes:
    """Low bytes of all words, then the high ones: a small step changes few high bytes, and zstd sees runs of zeros."""
    return (words & 0xFF).astype(np.uint8).tobytes() + (words >> 8).astype(np.uint8).tobytes()


def delta_frames(layout: Layout, version: int, base_version: int, base: Mapping[str, np.ndarray],
                 words: Mapping[str, np.ndarray], chunk_bytes: int) -> Iterator[Frame]:
    """As full_frames, with the exclusive or of new and old words, compressed; words: name -> [elements] uint16.

    A chunk that does not shrink goes as it is; a tensor that did not change is only named with its checksum.
    """
    compressor = zstandard.ZstdCompressor(level=1)
    items = min(chunk_bytes, DELTA_BYTES_MAX) // 2
    yield {"type": "weights_begin", "version": version, "encoding": "delta", "base": base_version}
    for name in layout:
        changed = words[name] ^ base[name]
        for at in range(0, len(changed) if changed.any() else 0, items):
            raw = words[name][at:at + items].tobytes()
            packed = compressor.compress(planes(changed[at:at + items]))
            frame = {"type": "weights_chunk", "version": version, "name": name, "offset": 2 * at}
            if len(packed) < len(raw):
                yield {**frame, "xor_bytes": len(raw), "data": packed}
            else:
                yield {**frame, "data": raw}
        checksum = checksum_of(words[name].view(np.uint8).data)
        yield {"type": "weights_tensor", "version": version, "name": name, **checksum}
    yield {"type": "weights_commit", "version": version}


def lora_pairs(layout: Layout, adapters: Mapping[str, Any]) -> Tuple[Dict[str, Tuple[np.ndarray, np.ndarray]], int]:
    """Module name -> (A [r][cols], B [rows][r]) in float32, and r.  Names as in PEFT's state dicts, with or without
    `base_model.model.` before and the adapter's name within: MODULE.lora_A[.NAME].weight."""
    found: Dict[str, Dict[str, np.ndarray]] = {}
    for name, value in adapters.items():
        match = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.[^.]+)?\.weight", name)
        if match is None or match.group(1) + ".weight" not in layout:
            example = next((n[:-7] for n in layout if n.endswith("proj.weight")), "MODULE")
            raise KeyError(f"'{name}': expected MODULE.lora_A.weight or MODULE.lora_B.weight of a matrix "
                           f"of the policy, such as {example}.lora_A.weight")
        if hasattr(value, "detach"):
            value = value.detach().float().cpu().numpy()
        found.setdefault(match.group(1), {})[match.group(2)] = np.ascontiguousarray(value, "<f4")
    ranks = {pair["A"].shape[0] for pair in found.values() if "A" in pair}
    if len(ranks) != 1:
        raise ValueError(f"expected one rank in all pairs, found {sorted(ranks) or 'no lora_A'}")
    rank = ranks.pop()
    for module, pair in found.items():
        rows, cols = layout[module + ".weight"][0]
        for side, shape in (("A", (rank, cols)), ("B", (rows, rank))):
            if side not in pair or pair[side].shape != shape:
                raise ValueError(f"{module}.lora_{side}.weight: expected shape {list(shape)}, found "
                                 f"{list(pair[side].shape) if side in pair else 'none'}")
    return {module: (pair["A"], pair["B"]) for module, pair in found.items()}, rank


def lora_frames(layout: Layout, version: int, base_version: int, pairs: Mapping[str, Tuple[np.ndarray, np.ndarray]],
                rank: int, alpha: float, full: Mapping[str, Any], chunk_bytes: int) -> Iterator[Frame]:
    """full: tensors that come whole beside the pairs, such as a trained head."""
    yield {"type": "weights_begin", "version": version, "encoding": "lora", "base": base_version, "rank": rank,
           "alpha": float(alpha)}
    sent = [(f"{module}.lora_{side}.weight", matrix.reshape(-1)) for module, pair in pairs.items()
            for side, matrix in zip("AB", pair)]
    sent += [(name, tensor_words(layout, name, value)) for name, value in full.items()]
    for name, array in sent:
        data = array.view(np.uint8).data
        yield from chunk_frames(version, name, data, chunk_bytes)
        yield {"type": "weights_tensor", "version": version, "name": name, **checksum_of(data)}
    yield {"type": "weights_commit", "version": version}
