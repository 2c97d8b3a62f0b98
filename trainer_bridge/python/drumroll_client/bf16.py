"""BF16 without a library for it: the upper 16 bits of a float32, rounded to nearest, halves to even.

Words are numpy.uint16.  This is the rounding of torch's `.to(torch.bfloat16)` and of the run itself, so a trainer
that keeps an FP32 master and computes with `master.to(torch.bfloat16)` pushes exactly the weights it computes with.
"""

from __future__ import annotations

import array
from typing import Any

import numpy as np

QUIET_NAN = np.uint16(0x7FC0)


def from_bf16(words: Any) -> np.ndarray:
    """float32 of the same shape; exact.  words: uint16 or int16 array, or bytes (then one dimension)."""
    if isinstance(words, (bytes, bytearray, memoryview)):
        words = np.frombuffer(words, np.uint16)
    return (np.asarray(words).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    """uint16 words of float32 values, of the same shape.  NaN stays NaN; beyond the largest BF16 becomes infinite."""
    exact = np.ascontiguousarray(values, np.float32)
    bits = exact.view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(exact), QUIET_NAN, rounded).reshape(np.shape(values))


def to_bf16(values: Any) -> np.ndarray:
    """uint16 words, C-contiguous, from whatever holds a tensor:

    - torch.bfloat16 tensors, on any device: as they are
    - other floating torch tensors, numpy arrays, array.array('f'): rounded to nearest even
    - items of 2 bytes (numpy uint16/int16, memoryview 'H', ml_dtypes.bfloat16) and bytes: BF16 already
    """
    if hasattr(values, "detach"):  # torch, without importing it where nobody uses it
        values = values.detach().cpu().contiguous()
        if str(values.dtype) == "torch.bfloat16":
            import torch
            return values.view(torch.int16).numpy().view(np.uint16)
        values = values.numpy()
    if isinstance(values, (bytes, bytearray)):
        return np.frombuffer(values, np.uint16)
    if isinstance(values, (array.array, memoryview)):
        values = np.asarray(values)
    if not isinstance(values, np.ndarray):
        raise TypeError(f"expected a torch tensor, a numpy array or BF16 bytes, found {type(values).__name__}")
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values).view(np.uint16)
    if values.dtype in (np.uint16, np.int16) or values.dtype.name == "bfloat16":
        return np.ascontiguousarray(values).view(np.uint16)
    if values.dtype.kind != "f":
        raise TypeError(f"expected BF16 words or floating point values, found {values.dtype} items; "
                        "weights are not integers: dequantize them first")
    return round_to_bf16(values)
