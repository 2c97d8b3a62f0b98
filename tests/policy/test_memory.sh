#!/bin/bash
# Peak memory of a whole process: packed weights and little more, although the files are larger.
# A model whose vocabulary is most of it, in FP32: one tensor's pages are twice the packed weights.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
[ "${VARIANT:-release}" = release ] || { echo "skip peak memory the sanitizers' own memory would be measured"; exit 0; }

python3 - "$DRUMROLL" "$TEST_TMP" <<'PY'
import json, os, struct, subprocess, sys
drumroll, tmp = sys.argv[1:]
DIM, VOCABULARY, FFN = 256, 131072, 512
MIB = 1 << 20

def model(dir, tied):
    os.makedirs(dir)
    layer = {"input_layernorm": [DIM], "post_attention_layernorm": [DIM], "mlp.gate_proj": [FFN, DIM], "mlp.up_proj": [FFN, DIM],
             "mlp.down_proj": [DIM, FFN], **{f"self_attn.{x}_proj": [DIM, DIM] for x in "qkvo"}}
    shapes = {"model.embed_tokens.weight": [VOCABULARY, DIM], "model.norm.weight": [DIM],
              **{f"model.layers.{i}.{name}.weight": shape for i in range(2) for name, shape in layer.items()}}
    if not tied: shapes["lm_head.weight"] = [VOCABULARY, DIM]
    header, end = {}, 0
    for name, shape in shapes.items():
        n = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + n]}
        end += n
    text = json.dumps(header).encode()
    with open(dir + "/model.safetensors", "wb") as f:  # zeros, without a place on the disk
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + end)
    json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": DIM, "num_hidden_layers": 2,
               "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": FFN, "vocab_size": VOCABULARY,
               "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": tied,
               "hidden_act": "silu", "eos_token_id": 0}, open(dir + "/config.json", "w"))

def peak(*command):
    child = subprocess.Popen([drumroll, *command], stdout=subprocess.PIPE)
    child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    assert status == 0, (command, status)
    return usage.ru_maxrss * 1024

with open(tmp + "/in.jsonl", "w") as f: print('{"prompt_tokens": [1, 2, 3], "tokens": [4, 5, 6, 7]}', file=f)
for tied in True, False:
    dir = f"{tmp}/tied{tied}"
    model(dir, tied)
    packed = json.loads(subprocess.run([drumroll, "inspect", dir, "--json"], capture_output=True).stdout)["weight_bytes"]["bf16"]
    bytes = peak("score", "--model", dir, "--in", tmp + "/in.jsonl", "--threads", "2", "--out", "-")
    bound = 1.2 * packed + 16 * MIB  # 16 MiB: the program, its libraries, the sampler's and forward pass's scratch
    print(f"{packed / MIB:.1f} MiB packed, peak {bytes / MIB:.1f}, bound {bound / MIB:.1f}")
    print("ok" if bytes <= bound else "not ok", "score of FP32 weights,", "tied" if tied else "with a head of its own")
PY
