"""Read and write safetensors with numpy alone: 8 bytes length, a JSON header, the tensors' bytes.

BF16, which numpy does not have, is read as float32 (exact) or as uint16 words.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Dict, Mapping, Tuple

import numpy as np

from .bf16 import from_bf16, to_bf16

_DTYPES: Dict[str, "np.dtype[Any]"] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def read_safetensors(path: str, words: bool = False) -> Dict[str, np.ndarray]:
    """name -> float32 array, or with `words` uint16 BF16 words as they are in the file."""
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        start = f.read(8)
        n = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if n > size - 8:
            raise ValueError(f"{path}: expected a header and tensors, found {size} bytes; is the download complete?")
        header = json.loads(f.read(n))
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, "r", offset=8 + n) if size > 8 + n else np.zeros(0, np.uint8)
    out = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{path}: tensor '{name}': expected F32, F16 or BF16, found {entry['dtype']}")
        if end > data.size:
            raise ValueError(f"{path}: tensor '{name}': expected bytes up to {end}, found {data.size}; "
                             "is the download complete?")
        array = data[begin:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        if words:
            out[name] = to_bf16(array)
        else:
            out[name] = from_bf16(array) if entry["dtype"] == "BF16" else array.astype(np.float32)
    return out


def read_model(directory: str, words: bool = False) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
    """config.json and all tensors of a Hugging Face directory, in one file or in parts."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    index = os.path.join(directory, "model.safetensors.index.json")
    files = ["model.safetensors"]
    if os.path.exists(index):
        with open(index, encoding="utf-8") as f:
            files = sorted(set(json.load(f)["weight_map"].values()))
    tensors: Dict[str, np.ndarray] = {}
    for file in files:
        tensors.update(read_safetensors(os.path.join(directory, file), words))
    return config, tensors


def write_safetensors(path: str, tensors: Mapping[str, Any]) -> None:
    """Tensors (see to_bf16) as BF16; the file appears whole or not at all."""
    arrays = {name: np.asarray(to_bf16(value)).reshape(tuple(getattr(value, "shape", (-1,))))
              for name, value in tensors.items()}
    header, at = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            f.write(array.tobytes())
        f.flush()
        os.fsync(f.fileno())
    os.replace(path + ".part", path)
