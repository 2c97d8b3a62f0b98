"""torch_units.py DRUMROLL FOLDER - the PyTorch example without a run: its objectives by their formulas, and its
log-probabilities of random models of every family against those of `drumroll score`."""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import torch

python = os.path.join(os.path.dirname(__file__), "..", "..", "trainer_bridge", "python")
sys.path[:0] = [python, os.path.join(python, "examples")]
from drumroll_client import write_safetensors  # noqa: E402
from grpo_torch import Trainer  # noqa: E402
from llama_torch import Llama  # noqa: E402

drumroll, folder = sys.argv[1:3]
QUICKSTART = os.path.join(os.path.dirname(__file__), "..", "..", "configs", "quickstart")


def by_formula(o, logp, proximal, behaviour, a):
    """One token, in doubles: trainer_bridge/trainer/objective.h."""
    old = behaviour if o.objective == "clipped" else proximal
    c = 1.0 if o.objective == "clipped" else math.exp(proximal - behaviour)
    c = min(c, o.tis_clip) if o.objective == "tis" else c
    r = math.exp(logp - old)
    clipped = r > 1 + o.clip_high if a > 0 else r < 1 - o.clip_low
    bound = 1 + o.clip_high if a > 0 else 1 - o.clip_low
    return -c * (bound if clipped else r) * a, 0.0 if clipped else -c * r * a, clipped


def objectives():
    chance = np.random.default_rng(7)
    for objective in ("clipped", "decoupled", "tis"):
        o = argparse.Namespace(objective=objective, tis_clip=2.0, clip_low=0.2, clip_high=0.28)
        trainer = Trainer.__new__(Trainer)
        trainer.options = o
        logp, proximal, behaviour, a = chance.normal(-2, 0.5, (4, 500)).astype(np.float32)
        at = torch.tensor(logp, requires_grad=True)
        loss, weight, clipped = trainer.objective(at, *map(torch.from_numpy, (proximal, behaviour, a)))
        loss.sum().backward()
        for i in range(500):
            expected = by_formula(o, *(float(x[i]) for x in (logp, proximal, behaviour, a)))
            assert abs(float(loss[i]) - expected[0]) < 1e-5 * max(1, abs(expected[0]))
            assert abs(float(at.grad[i]) - expected[1]) < 1e-5 * max(1, abs(expected[1]))
            assert bool(clipped[i]) == expected[2]
        assert 50 < int(clipped.sum()) < 450
        same = torch.from_numpy(logp)
        loss, weight, clipped = trainer.objective(same, same, same, torch.from_numpy(a))
        assert torch.equal(loss, -torch.from_numpy(a)) and (weight == 1).all() and not clipped.any()
    print("ok objectives and their gradients are their formulas")


def random_model(name, chance, **changes):
    """A directory with a random model of the family, and the quickstart's tokenizer."""
    with open(os.path.join(QUICKSTART, "config.json"), encoding="utf-8") as f:
        config = {**json.load(f), "model_type": name, "hidden_size": 48, "num_attention_heads": 4, "head_dim": 16,
                  "intermediate_size": 80, "num_hidden_layers": 2, "rope_theta": 5000.0, **changes}
    config["architectures"] = [{"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[name] + "ForCausalLM"]
    d, h, f, v = config["hidden_size"], config["head_dim"], config["intermediate_size"], config["vocab_size"]
    shapes = {"model.embed_tokens": (v, d), "model.norm": (d,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head"] = (v, d)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes.update({layer + "input_layernorm": (d,), layer + "post_attention_layernorm": (d,),
                       layer + "mlp.gate_proj": (f, d), layer + "mlp.up_proj": (f, d), layer + "mlp.down_proj": (d, f),
                       layer + "self_attn.o_proj": (d, 4 * h)})
        for which, heads in (("q", 4), ("k", config["num_key_value_heads"]), ("v", config["num_key_value_heads"])):
            shapes[f"{layer}self_attn.{which}_proj"] = (heads * h, d)
            if name == "qwen2":
                shapes[f"{layer}self_attn.{which}_proj.bias"] = (heads * h,)
            if name == "qwen3" and which != "v":
                shapes[f"{layer}self_attn.{which}_norm"] = (h,)
    tensors = {}
    for key, shape in shapes.items():
        noise = chance.standard_normal(shape).astype(np.float32)
        flat = len(shape) == 1 and not key.endswith(".bias")
        tensors[key if key.endswith(".bias") else key + ".weight"] = 1 + noise / 8 if flat else noise / 5
    path = os.path.join(folder, name + str(config["tie_word_embeddings"]))
    os.makedirs(path)
    write_safetensors(os.path.join(path, "model.safetensors"), tensors)
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(os.path.join(QUICKSTART, file), path)
    with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    return path


def compare(path, chance):
    """Mean difference of log-probabilities of random tokens, in nats."""
    model = Llama(path)
    lines, rows = [], [chance.integers(1, 257, n).tolist() for n in (2, 17, 40)]
    for tokens in rows:
        lines.append(json.dumps({"prompt_tokens": tokens[:1], "tokens": tokens[1:]}))
    answer = subprocess.run([drumroll, "score", "--model", path, "--in", "-", "--kv-format", "f32"], check=True,
                            input="\n".join(lines), stdout=subprocess.PIPE, encoding="utf-8").stdout
    gaps = []
    for tokens, line in zip(rows, answer.splitlines()):
        with torch.no_grad():
            every = torch.log_softmax(model.logits(model.hidden(torch.tensor([tokens[:-1]]))), -1)[0]
        ours = every.gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0].numpy()
        gaps += list(np.abs(ours - np.array(json.loads(line)["logprobs"], np.float32)))
    assert len(gaps) == 1 + 16 + 39
    return float(np.mean(gaps))


def families():
    chance = np.random.default_rng(11)
    for name, changes in (("llama", {}), ("llama", {"tie_word_embeddings": False}),
                          ("qwen2", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
                          ("qwen3", {"head_dim": 8})):
        gap = compare(random_model(name, chance, **changes), chance)
        assert gap < 1e-5, f"{name} {changes}: {gap:.2e}"
        print(f"log-probabilities of a random {name} differ by {gap:.1e} on average")
    print("ok log-probabilities of Llama, Qwen2 and Qwen3 are the engine's")


def padding():
    """A sample's log-probabilities do not depend on what it shares its rows with."""
    model = Llama(QUICKSTART)
    short, long = torch.arange(40, 50)[None], torch.arange(50, 90)[None]
    rows = torch.zeros(2, 40, dtype=torch.int64)
    rows[0, :10], rows[1] = short, long
    with torch.no_grad():
        together, alone = model.hidden(rows), model.hidden(short)
    assert (together[0, :10] - alone[0]).abs().max() < 1e-4
    print("ok padding changes nothing")


torch.set_num_threads(1)
objectives()
families()
padding()
