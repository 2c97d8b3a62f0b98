"""python_units.py - the parts of the Python client that need no run."""
import array
import math
import os
import struct
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "trainer_bridge", "python"))
from drumroll_client import (Batch, Trajectory, from_bf16, pack, pad, read_safetensors,  # noqa: E402
                             rollout_correction, to_bf16, write_safetensors)
from drumroll_client.batch import split_by_tokens  # noqa: E402
from drumroll_client.push import lora_pairs, planes, tensor_words  # noqa: E402
from drumroll_client.requests import prompt_map, split_by_bytes  # noqa: E402


def wrong(kind, said, call, *args):
    try:
        call(*args)
    except kind as error:
        assert said in str(error), f"'{error}' does not say '{said}'"
        return
    raise AssertionError(f"no {kind.__name__} where one was expected")


def sample(n, n_prompt=2, group=1, **fields):
    given = dict(id=group * 4096, group=group, sample=0, group_size=2, prompt_id="p", epoch=0, eval=False, seed=1,
                 answer=None, meta='{"level": 3}', max_tokens=9, temperature=0.5, top_p=1.0, top_k=0, n_prompt=n_prompt,
                 tokens=np.arange(n, dtype=np.int32) + 10, logprobs=-np.arange(n, dtype=np.float32),
                 versions=np.where(np.arange(n) < n_prompt, -1, 4).astype(np.int32),
                 mask=(np.arange(n) >= n_prompt).astype(np.uint8), segments=[], finish="stop", error=None, deferrals=0,
                 pivot=False, loss_weight=1.0, advantage=2.0, reward=1.0)
    return Trajectory(**{**given, **fields})


def rounding():
    exact = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -0.0, 2**-133, 3.4e38, np.inf, -np.inf, np.nan],
                     np.float32)
    expected = [0x3f80, 0x3f80, 0x3f82, 0x3f81, 0x8000, 0x0001, 0x7f80, 0x7f80, 0xff80, 0x7fc0]
    assert list(to_bf16(exact)) == expected  # halves to even, beyond the largest to infinity
    assert list(to_bf16(array.array("f", exact))) == expected and list(to_bf16(exact.astype(">f4"))) == expected
    every = np.arange(1 << 16, dtype=np.uint16)
    assert all(to_bf16(from_bf16(every))[~np.isnan(from_bf16(every))] == every[~np.isnan(from_bf16(every))])
    assert np.array_equal(to_bf16(every[:6].reshape(2, 3)), every[:6].reshape(2, 3)) and to_bf16(b"\1\0")[0] == 1
    for bad in (np.zeros(2, np.int32), array.array("l", [1]), [1.0], "text"):
        wrong(TypeError, "expected", to_bf16, bad)
    layout = {"m": ((2, 3), "bf16")}
    assert tensor_words(layout, "m", np.zeros((2, 3), np.float32)).shape == (6,)
    wrong(ValueError, "expected shape [2, 3], found [3, 2]", tensor_words, layout, "m", np.zeros((3, 2), np.float32))
    wrong(ValueError, "expected shape [2, 3], found [5]", tensor_words, layout, "m", np.zeros(5, np.float32))
    assert planes(np.array([0x1234, 0xabcd], np.uint16)) == b"\x34\xcd\x12\xab"
    print("ok bf16 rounds to nearest even")


def rounding_as_torch():
    try:
        import torch
    except ImportError:
        print("skip bf16 rounds as torch does no torch (Debian: python3-torch)")
        return
    values = torch.from_numpy(np.random.default_rng(3).integers(0, 2**32, 1 << 20, np.uint32).view(np.float32))
    values = values[~values.isnan()]
    theirs = values.to(torch.bfloat16)
    assert np.array_equal(to_bf16(values), to_bf16(theirs))
    assert to_bf16(torch.ones(2, 3, requires_grad=True)).shape == (2, 3)
    assert np.array_equal(to_bf16(theirs.reshape(-1, 1).t()), to_bf16(values)[None])
    print("ok bf16 rounds as torch does")


def layouts():
    short, long = sample(3), sample(5, group=2, loss_weight=0.5, target_logprobs=np.full(5, -9, np.float32))
    rows = pad([short, long], pad_id=7, multiple_of=4)
    assert rows.tokens.shape == (2, 8) and rows.tokens.dtype == np.int64
    assert list(rows.tokens[0]) == [10, 11, 12] + [7] * 5 and list(rows.tokens[1][:5]) == list(range(10, 15))
    assert rows.attention_mask.sum(1).tolist() == [3, 5]
    assert rows.loss_mask.tolist() == [[0, 0, 1] + [0] * 5, [0, 0, .5, .5, .5, 0, 0, 0]]
    assert rows.logprobs[1].tolist() == [0, -1, -2, -3, -4, 0, 0, 0]
    assert rows.target_logprobs[0].tolist() == [0, -1, -2, 0, 0, 0, 0, 0] and rows.target_logprobs[1][0] == -9
    assert rows.versions[0].tolist() == [-1, -1, 4] + [-1] * 5 and rows.groups.tolist() == [1, 2]
    flat = pack([short, long])
    assert flat.cu_seqlens.tolist() == [0, 3, 8] and flat.max_seqlen == 5 and flat.cu_seqlens.dtype == np.int32
    assert flat.positions.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert flat.loss_mask.tolist() == [0, 0, 1, 0, 0, .5, .5, .5] and (flat.advantages == 2).all()
    assert pad([]).tokens.shape == (0, 0) and pack([]).cu_seqlens.tolist() == [0]
    left_out = [sample(4, eval=True), sample(4, advantage=None), sample(4, loss_weight=0.0), sample(4, finish="error")]
    batch = Batch(1, 1, 4, [short, long] + left_out)
    assert batch.trained == [short, long] and batch.loss_tokens == 1 + 1.5 and short.metadata == {"level": 3}
    assert sum(len(m.lengths) for m in batch.micro_batches(4)) == 2
    assert [m.groups.tolist() for part in (0, 1) for m in batch.micro_batches(99, part=part, parts=2)] == [[1], [2]]
    print("ok rows, packed rows and what is trained on")


def micro_batches():
    chance = np.random.default_rng(5)
    for limit in (1, 7, 64, 500):
        samples = [sample(int(n), n_prompt=1, group=i + 1) for i, n in enumerate(chance.integers(1, 60, 100))]
        for padded in (False, True):
            parts = split_by_tokens(samples, limit, padded)
            assert sorted(t.id for part in parts for t in part) == [t.id for t in samples]
            for part in parts:
                tokens = len(part) * max(t.n_tokens for t in part) if padded else sum(t.n_tokens for t in part)
                assert tokens <= limit or len(part) == 1
        fewest = math.ceil(sum(t.n_tokens for t in samples) / limit)
        if limit >= 60:
            assert len(split_by_tokens(samples, limit, False)) <= math.ceil(fewest * 11 / 9) + 1
    print("ok micro-batches hold every sample once, within their limit")


def files():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.safetensors")
        tensors = {"a": np.array([[1, 2.5], [3, -4]], np.float32), "b": np.array([0x3f80], np.uint16)}
        write_safetensors(path, tensors)
        back, words = read_safetensors(path), read_safetensors(path, words=True)
        assert np.array_equal(back["a"], tensors["a"]) and back["b"].tolist() == [1.0]
        assert words["a"].dtype == np.uint16 and words["b"].tolist() == [0x3f80]
        whole = open(path, "rb").read()
        for n in (0, 4, 20, len(whole) - 1):
            with open(path, "wb") as f:
                f.write(whole[:n])
            wrong(ValueError, "is the download complete?", read_safetensors, path)
        header = b'{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}'
        with open(path, "wb") as f:
            f.write(struct.pack("<Q", len(header)) + header + bytes(8))
        wrong(ValueError, "tensor 'a': expected F32, F16 or BF16, found I64", read_safetensors, path)
    print("ok safetensors there and back, and damaged")


def metrics():
    got = rollout_correction([[-1.0, -2.0, 5.0]], [[-1.5, -1.0, -5.0]], [[1, 1, 0]], tis_clip=2.0)
    expected = {"kl": -0.25, "k3_kl": (math.exp(-.5) - 1 + .5 + math.e - 2) / 2,
                "token_mult_prob_error": (math.exp(.5) + math.e) / 2, "logprob_abs_diff": 0.75,
                "rollout_is_mean": (math.exp(-.5) + math.e) / 2, "rollout_is_clipped": 0.5}
    for key, value in expected.items():
        assert abs(got["rollout_corr/" + key] - value) < 1e-12, key
    same = rollout_correction([-1.0], [-1.0], [1])
    assert same["rollout_corr/token_mult_prob_error"] == 1 and same["rollout_corr/kl"] == 0
    assert rollout_correction([], [], [])["rollout_corr/kl"] == 0
    print("ok rollout_corr metrics are their formulas")


def prompts():
    assert prompt_map("1+1=") == {"text": "1+1=", "prompt_id": prompt_map("1+1=")["prompt_id"]}
    chat = prompt_map([{"role": "user", "content": "\u00fc"}])
    assert chat["messages"] == '[{"role": "user", "content": "\u00fc"}]' and len(chat["prompt_id"]) == 16
    assert prompt_map([1, 2])["tokens"] == struct.pack("<2i", 1, 2)
    assert prompt_map({"text": "x", "answer": 4, "meta": {"k": 1}, "epoch": None})["answer"] == "4"
    parts = list(split_by_bytes([{"text": "x" * 300}] * 10, 1536, 4096))
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert [len(part) for part in split_by_bytes([{"a": 1}] * 5, 10**6, 2)] == [2, 2, 1]
    layout = {"m.q_proj.weight": ((3, 4), "bf16")}
    a, b = np.ones((2, 4), np.float32), np.ones((3, 2))
    pairs, rank = lora_pairs(layout, {"base_model.model.m.q_proj.lora_A.x.weight": a, "m.q_proj.lora_B.weight": b})
    assert rank == 2 and list(pairs) == ["m.q_proj"] and pairs["m.q_proj"][1].dtype == np.float32
    wrong(ValueError, "no lora_A", lora_pairs, layout, {"m.q_proj.lora_B.weight": b})
    wrong(ValueError, "found none", lora_pairs, layout, {"m.q_proj.lora_A.weight": a})
    wrong(KeyError, "m.q_proj.lora_A.weight", lora_pairs, layout, {"m.k_proj.lora_A.weight": a})
    print("ok prompts and adapters as they travel")


rounding()
rounding_as_torch()
layouts()
micro_batches()
files()
metrics()
prompts()
