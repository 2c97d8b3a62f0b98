#!/usr/bin/env python3
"""Goldens for test_logprobs.c: log-probabilities in double precision, from the published equations.

    python3 make_logprobs.py OUT_DIR [--models DATA_DIR] [--transformers]     (numpy; with --models minutes)

Writes logprobs_families.json: for each case a config.json as transformers write it, the seed of its random
weights and tokens, and log p(token i + 1 | tokens 0 .. i) for 512 tokens.  With --models also
logprobs_models.json, for stories15M, stories260K and minimind2-small of DATA_DIR/models, on tokens that
the model itself draws.  Weights are BF16 values; all arithmetic is float64; nothing is cached or batched.

--transformers compares every family but MiniMind, which has no class there, with Hugging Face transformers in
float32 instead of writing.
Written with numpy 1.24.2; checked against transformers 5.12.1 with torch 2.14.1 (largest difference 1.1e-5).
"""
import json
import math
import os
import struct
import sys

import numpy as np

N = 512
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 160, "vocab_size": 96, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
         "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SMALL}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **SMALL, "rope_theta": 1e6}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", **SMALL, "rope_theta": 1e6, "head_dim": 32}
FAMILIES = {
    "llama_mha": {**LLAMA, "num_key_value_heads": 4, "rope_scaling": None},
    "tinyllama": {**LLAMA, "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 172,
                  "tie_word_embeddings": False, "torch_dtype": "float32"},
    "smollm2": {**LLAMA, "hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3, "rope_theta": 100000,
                "rope_interleaved": False, "is_llama_config": True, "dtype": "bfloat16"},
    "llama3": {**LLAMA, "rope_theta": 500000.0, "tie_word_embeddings": False, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128}},
    "llama3_parameters": {**LLAMA, "rope_parameters": {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64, "rope_theta": 500000.0}},
    "llama_linear": {**LLAMA, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama_dynamic": {**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
    "llama_biases": {**LLAMA, "attention_bias": True, "mlp_bias": True, "intermediate_size": 150},
    "llama_yarn_mscale": {**LLAMA, "rope_scaling": {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "mscale": 0.7,
        "mscale_all_dim": 1.2, "beta_fast": 16, "beta_slow": 2}},
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", **SMALL, "head_dim": 24,
                "sliding_window": 512, "max_position_embeddings": 1024, "tie_word_embeddings": False},
    "qwen2_mqa": {**QWEN2, "num_key_value_heads": 1, "use_sliding_window": False, "sliding_window": 32,
                  "max_window_layers": 1},
    "qwen2_yarn": {**QWEN2, "max_position_embeddings": 128, "rope_scaling": {
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
    "qwen3": {**QWEN3, "attention_bias": False},
    "qwen3_biases": {**QWEN3, "attention_bias": True, "tie_word_embeddings": False},
    "qwen3_yarn": {**QWEN3, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128,
        "attention_factor": 1.25, "truncate": False}},
    "minimind": {"architectures": ["MiniMindForCausalLM"], "model_type": "minimind", **SMALL,
                 "intermediate_size": None, "use_moe": False, "n_routed_experts": 4, "inference_rope_scaling": False},
}


# ---- weights: splitmix64, in the engine's canonical order (policy/weights.h) ----

def random_bits(seed, first, n):
    """Draws first .. first + n - 1 of the stream (tests/support/random_model.c)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(first + 1, first + n + 1, dtype=np.uint64) * np.uint64(0x9e3779b97f4a7c15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
        return z ^ (z >> np.uint64(31))


def to_bf16(x):
    """Nearest BF16 value of float32, ties to even, as float64."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7fff + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xffff0000)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def shape_of(c):
    family, heads = c["model_type"], c["num_attention_heads"]
    d = c.get("head_dim") or c["hidden_size"] // heads
    ffn = c.get("intermediate_size") or (c["hidden_size"] * 8 // 3 + 63) // 64 * 64
    qkv_bias = family == "qwen2" or bool(c.get("attention_bias"))
    return dict(d=d, heads=heads, kv=c["num_key_value_heads"], ffn=ffn, qkv_bias=qkv_bias,
                o_bias=bool(c.get("attention_bias")), mlp_bias=bool(c.get("mlp_bias")), qk_norm=family == "qwen3")


def layout(c):
    s, h, v = shape_of(c), c["hidden_size"], c["vocab_size"]
    q, kv = s["heads"] * s["d"], s["kv"] * s["d"]
    yield "model.embed_tokens.weight", (v, h)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (h,)
        for name, n in (("q", q), ("k", kv), ("v", kv)):
            yield f"{p}self_attn.{name}_proj.weight", (n, h)
        for name, n in (("q", q), ("k", kv), ("v", kv)):
            if s["qkv_bias"]:
                yield f"{p}self_attn.{name}_proj.bias", (n,)
        for name in "qk":
            if s["qk_norm"]:
                yield f"{p}self_attn.{name}_norm.weight", (s["d"],)
        yield p + "self_attn.o_proj.weight", (h, q)
        if s["o_bias"]:
            yield p + "self_attn.o_proj.bias", (h,)
        yield p + "post_attention_layernorm.weight", (h,)
        yield p + "mlp.gate_proj.weight", (s["ffn"], h)
        yield p + "mlp.up_proj.weight", (s["ffn"], h)
        yield p + "mlp.down_proj.weight", (h, s["ffn"])
        for name, n in (("gate", s["ffn"]), ("up", s["ffn"]), ("down", h)):
            if s["mlp_bias"]:
                yield f"{p}mlp.{name}_proj.bias", (n,)
    yield "model.norm.weight", (h,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (v, h)


def random_weights(c, seed):
    weights, drawn = {}, 0
    for name, shape in layout(c):
        n = math.prod(shape)
        bits = random_bits(seed, drawn, n)
        drawn += n
        total = sum(((bits >> np.uint64(16 * i)) & np.uint64(0xffff)).astype(np.int64) for i in range(4))
        normal = (total.astype(np.float32) - np.float32(131070.0)) * np.float32(np.float32(1.0) / np.float32(37837.2))
        norm, bias = "norm" in name, ".bias" in name
        vocabulary = shape[0] == c["vocab_size"] and "layers" not in name
        deviation = np.float32(2.0 if vocabulary else 1.0) / np.sqrt(np.float32(shape[-1]))
        deviation = np.float32(0.1) if norm else np.float32(0.2) if bias else deviation
        weights[name] = to_bf16(np.float32(1.0 if norm else 0.0) + deviation * normal).reshape(shape)
    return weights


def file_weights(folder):
    raw = open(os.path.join(folder, "model.safetensors"), "rb").read()
    header = json.loads(raw[8:8 + struct.unpack("<Q", raw[:8])[0]])
    base, weights = 8 + struct.unpack("<Q", raw[:8])[0], {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        data = raw[base + t["data_offsets"][0]:base + t["data_offsets"][1]]
        if t["dtype"] == "BF16":
            x = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        else:
            x = to_bf16(np.frombuffer(data, np.float32 if t["dtype"] == "F32" else np.float16).astype(np.float32))
        weights[name] = x.reshape(t["shape"])
    return weights


# ---- rotation ----

def rotation(c, d):
    """Angle per position of each pair, and what cos and sin are multiplied by."""
    scaling = c.get("rope_parameters") or c.get("rope_scaling") or {}
    theta = scaling.get("rope_theta") or c.get("rope_theta") or (1e6 if c["model_type"] == "minimind" else 1e4)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    frequency = theta ** (-np.arange(0, d, 2) / d)
    factor = scaling.get("factor", 1.0)
    original = scaling.get("original_max_position_embeddings") or c["max_position_embeddings"]
    if kind in ("default", "dynamic"):
        return frequency, 1.0
    if kind == "linear":
        return frequency / factor, 1.0
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        wavelength = 2 * np.pi / frequency
        blend = (original / wavelength - low) / (high - low)
        blended = (1 - blend) * frequency / factor + blend * frequency
        return np.where(wavelength > original / low, frequency / factor,
                        np.where(wavelength < original / high, frequency, blended)), 1.0
    assert kind == "yarn"

    def pair(turns):
        return d * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(scaling.get("beta_fast") or 32), pair(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d - 1)
    ramp = np.clip((np.arange(d // 2) - low) / (high - low if high != low else 0.001), 0, 1)

    def mscale(m):
        return 0.1 * m * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention = scaling.get("attention_factor")
    if attention is None:
        both = scaling.get("mscale") and scaling.get("mscale_all_dim")
        attention = mscale(scaling["mscale"]) / mscale(scaling["mscale_all_dim"]) if both else mscale(1)
    return frequency / factor * ramp + frequency * (1 - ramp), attention


# ---- the model ----

def norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * weight


def logits(c, w, tokens, rows=slice(None)):
    s, eps, n = shape_of(c), c["rms_norm_eps"], len(tokens)
    d, group = s["d"], s["heads"] // s["kv"]
    frequency, scale = rotation(c, d)
    angle = np.arange(n)[:, None, None] * frequency
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    hidden = np.triu(np.full((n, n), -np.inf), 1)

    def linear(x, name):
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)

    def rotate(x):
        a, b = x[..., :d // 2], x[..., d // 2:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        y = norm(x, w[p + "input_layernorm.weight"], eps)
        q, k, v = (linear(y, f"{p}self_attn.{m}_proj").reshape(n, -1, d) for m in "qkv")
        if s["qk_norm"]:
            q, k = norm(q, w[p + "self_attn.q_norm.weight"], eps), norm(k, w[p + "self_attn.k_norm.weight"], eps)
        q, k = rotate(q), rotate(k)
        mixed = np.empty_like(q)
        for h in range(s["heads"]):
            score = q[:, h] @ k[:, h // group].T / math.sqrt(d) + hidden
            score = np.exp(score - score.max(-1, keepdims=True))
            mixed[:, h] = score / score.sum(-1, keepdims=True) @ v[:, h // group]
        x = x + linear(mixed.reshape(n, -1), p + "self_attn.o_proj")
        y = norm(x, w[p + "post_attention_layernorm.weight"], eps)
        gate = linear(y, p + "mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(y, p + "mlp.up_proj"), p + "mlp.down_proj")
    head = w["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
    return norm(x[rows], w["model.norm.weight"], eps) @ head.T


def logprobs(c, w, tokens):
    z = logits(c, w, tokens)[:-1]
    top = z.max(-1, keepdims=True)
    return (z - top - np.log(np.exp(z - top).sum(-1, keepdims=True)))[np.arange(len(tokens) - 1), tokens[1:]]


def own_tokens(c, w, n, seed):
    """What the model draws at temperature 1, but for its end."""
    rng, tokens = np.random.default_rng(seed), [1]
    while len(tokens) < n:
        z = logits(c, w, tokens, slice(-1, None))[0]
        p = np.exp(z - z.max())
        p[c["eos_token_id"]] = 0
        tokens.append(int(rng.choice(len(p), p=p / p.sum())))
    return tokens


def write(path, cases):
    with open(path, "w") as out:
        out.write('{"made_by": "make_logprobs.py", "cases": [\n')
        out.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in cases))
        out.write("\n]}\n")


def rounded(x):
    return [round(float(v), 7) for v in x]


def compare_with_transformers():
    import torch
    import transformers
    for seed, (name, c) in enumerate(FAMILIES.items(), 1):
        if c["model_type"] == "minimind":
            continue
        w, tokens = random_weights(c, seed), (random_bits(1000 + seed, 0, N) % np.uint64(c["vocab_size"])).astype(int)
        config = transformers.AutoConfig.for_model(**json.loads(json.dumps(c)))
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        state = {k: torch.tensor(v, dtype=torch.float32) for k, v in w.items()}
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        model.tie_weights()
        with torch.no_grad():
            z = torch.log_softmax(model(torch.tensor(tokens)[None]).logits[0, :-1].double(), -1)
        theirs = z[torch.arange(N - 1), torch.tensor(tokens[1:])].numpy()
        difference = np.abs(theirs - logprobs(c, w, tokens))
        print(f"{name:20} max {difference.max():.1e}, mean {difference.mean():.1e}")


def main():
    out = sys.argv[1]
    if "--transformers" in sys.argv:
        return compare_with_transformers()
    cases = []
    for seed, (name, c) in enumerate(FAMILIES.items(), 1):
        tokens = (random_bits(1000 + seed, 0, N) % np.uint64(c["vocab_size"])).astype(int)
        result = rounded(logprobs(c, random_weights(c, seed), tokens))
        cases.append({"name": name, "config": c, "seed": seed, "logprobs": result})
    write(os.path.join(out, "logprobs_families.json"), cases)
    if "--models" not in sys.argv:
        return
    cases = []
    for name in ("stories260K", "stories15M", "minimind2-small"):
        folder = os.path.join(sys.argv[sys.argv.index("--models") + 1], "models", name)
        c = json.load(open(os.path.join(folder, "config.json")))
        w = file_weights(folder)
        tokens = own_tokens(c, w, min(N, c["max_position_embeddings"]), 1)
        cases.append({"name": name, "tokens": tokens, "logprobs": rounded(logprobs(c, w, tokens))})
    write(os.path.join(out, "logprobs_models.json"), cases)


main()
