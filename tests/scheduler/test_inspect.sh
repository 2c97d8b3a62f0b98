#!/bin/bash
# drumroll inspect: what a model directory is, what it takes, and what of it is refused, with status 1.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
T=$TEST_TMP/inspect; mkdir -p "$T"

MODEL=configs/quickstart
[ -e $MODEL/model.safetensors ] || { echo "skip inspect configs/quickstart is not here"; exit 0; }

ok() { if [ "$1" -eq 0 ]; then echo "ok $2"; else echo "not ok $2"; fi; }

"$DRUMROLL" inspect $MODEL >"$T/text" 2>"$T/err"; ok $? "a model that can be used"
grep -q "^refused *nothing$" "$T/text" && grep -q "^architecture *LlamaForCausalLM" "$T/text"; ok $? "as text"
"$DRUMROLL" inspect $MODEL --json >"$T/json" 2>"$T/err" && python3 - "$T/json" $MODEL <<'PY'
import json, os, struct, sys
facts, model = json.load(open(sys.argv[1])), sys.argv[2]
config = json.load(open(model + "/config.json"))
with open(model + "/model.safetensors", "rb") as f:
    header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
shapes = [t["shape"] for name, t in header.items() if name != "__metadata__"]
count = sum(s[0] * (s[1] if len(s) > 1 else 1) for s in shapes)
assert facts["parameters"] == count, (facts["parameters"], count)
assert facts["layers"] == config["num_hidden_layers"] and facts["vocabulary"] == config["vocab_size"]
assert sum(facts["tensors"].values()) == len(shapes)
assert facts["files"]["model.safetensors"] == os.path.getsize(model + "/model.safetensors")
weights, kv = facts["weight_bytes"], facts["kv_bytes_per_1000"]
assert set(weights) == {"bf16", "int4", "int4_g64", "int4_g128", "int4m", "int4m_g64", "int4m_g128", "int5", "int6",
                        "int8", "mxfp4", "nvfp4"}
assert 2 * count <= weights["bf16"] < 2.3 * count and weights["int4"] < weights["int8"] < weights["bf16"]
d = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
least = 1000 * config["num_hidden_layers"] * config["num_key_value_heads"] * 2 * d
assert 2 * least <= kv["bf16"] <= 2.1 * least and 4 * least <= kv["f32"] <= 4.2 * least
assert facts["tokenizer"]["vocabulary"] <= facts["vocabulary"] and facts["tokenizer"]["kind"] == "BPE"
assert facts["refused"] == [] and facts["chat_template"] is None
eos = json.load(open(model + "/generation_config.json"))["eos_token_id"]
assert facts["eos_ids"] == (eos if isinstance(eos, list) else [eos])
PY
ok $? "as JSON, each number against the files"

# refused NAME CHANGE... : CHANGE (Python on `config`, `dir`) breaks a copy; the rest expects texts in the output
broken() { # broken NAME CHANGE TEXT...
	local name=$1 change=$2 dir=$T/broken; shift 2
	rm -rf "$dir"; cp -r $MODEL "$dir"
	python3 - "$dir" "$change" <<'PY'
import json, os, sys
dir = sys.argv[1]
config = json.load(open(dir + "/config.json"))
exec(sys.argv[2])
json.dump(config, open(dir + "/config.json", "w"))
PY
	timeout 60 "$DRUMROLL" inspect "$dir" >"$T/out" 2>"$T/err"
	local status=$? text
	for text in "$@"; do
		grep -qE -e "$text" "$T/out" && continue
		echo "expected '$text' in:"; head -n 40 "$T/out"; status="without '$text'"
	done
	[ "$status" = 1 ] && timeout 60 "$DRUMROLL" inspect "$dir" --json | python3 -c 'import json, sys; assert json.load(sys.stdin)["refused"]'
	ok $? "refused: $name"
}
broken "unknown architecture, and its shape all the same" 'config.update(architectures=["GemmaForCausalLM"], model_type="gemma")' \
	"expected one of LlamaForCausalLM.*found .GemmaForCausalLM" "^shape +[0-9]+ layers" "^parameters +[0-9]+" "^memory"
broken "everything that is refused, at once" 'config.update(logit_scale=0.5, quantization_config={"bits": 4}, num_experts=8)' \
	"quantization_config: take the unquantized" "num_experts: mixtures" "logit_scale: .*0.5" "^tokenizer +BPE"
broken "rotation that is not done" 'config.update(rope_scaling={"rope_type": "longrope", "factor": 2})' "expected type .*longrope"
broken "more layers than there are" 'config["num_hidden_layers"] += 1' "tensor model.layers.[0-9]+.input_layernorm.weight: expected shape"
broken "truncated weights" 'f = open(dir + "/model.safetensors", "r+b"); f.truncate(5000)' "weights: .*model.safetensors"
broken "a name that its message cuts within a character" 'import struct
header = b"{" + json.dumps("\x1b" + "\u00e9" * 3000, ensure_ascii=False).encode() + b":0}"
open(dir + "/model.safetensors", "wb").write(struct.pack("<Q", len(header)) + header)' "weights: .*tensor .*expected an object with dtype"
broken "a name that would move the cursor" 'config["architectures"] = ["a\x1b[31m" + "b" * 500]' "^architecture +a.\[31mb+\.\.\.$"
broken "no weights" 'os.remove(dir + "/model.safetensors")' "neither model.safetensors nor model.safetensors.index.json"
broken "no tokenizer" 'os.remove(dir + "/tokenizer.json")' "tokenizer: .*tokenizer.json"
broken "a broken config" 'config = ["no object"]' "config.json: expected a JSON object|expected a JSON object"
broken "more tokens than the model has" 'config["vocab_size"] = 10; config.update(bos_token_id=None, eos_token_id=1)
open(dir + "/generation_config.json", "w").write("{}")' "tokenizer: expected ids below the model.s vocabulary of 10"
"$DRUMROLL" inspect "$T/nowhere" >"$T/out" 2>"$T/err"; [ $? -eq 1 ] && grep -q "nowhere/config.json" "$T/out"; ok $? "refused: no such directory"

# Where the chat template is, in the layouts of the hub, each before the one before it.
template() { # template NAME FILE
	"$DRUMROLL" inspect "$T/chat" >"$T/out" 2>&1 && grep -q "^chat template *$2$" "$T/out" &&
	"$DRUMROLL" inspect "$T/chat" --json | python3 -c 'import json, sys; assert (json.load(sys.stdin)["chat_template"] or "none") == sys.argv[1]' "$2"
	ok $? "chat template: $1"
}
rm -rf "$T/chat"; cp -r $MODEL "$T/chat"; rm -f "$T/chat/tokenizer_config.json"; template "none" none
echo '{"chat_template": "{{ messages[0].content }}"}' >"$T/chat/chat_template.json"; template "chat_template.json" chat_template.json
echo '{"chat_template": [{"name": "default", "template": "x"}]}' >"$T/chat/tokenizer_config.json"; template "a list of named ones" tokenizer_config.json
echo '{{ messages[0].content }}' >"$T/chat/chat_template.jinja"; template "chat_template.jinja" chat_template.jinja
template_refused() { # template_refused NAME TEXT
	"$DRUMROLL" inspect "$T/chat" >"$T/out" 2>&1; [ $? -eq 1 ] && grep -qE "^refused *messages: .*$2" "$T/out"; ok $? "refused: $1"
}
echo '{{ raise_exception("no") }' >"$T/chat/chat_template.jinja"; template_refused "a template that does not compile" "chat_template.jinja: line 1"
rm "$T/chat/chat_template.jinja"; echo '{"chat_template": [{"name": "rag", "template": "x"}]}' >"$T/chat/tokenizer_config.json"
template_refused "no template called default" 'tokenizer_config.json: chat_template has no template called "default"'
echo '{"chat_template": ' >"$T/chat/tokenizer_config.json"; template_refused "a tokenizer_config.json that is no JSON" "tokenizer_config.json: line"

# A window ends the context, which is no refusal.
rm -rf "$T/window"; cp -r $MODEL "$T/window"
python3 - "$T/window" <<'PY'
import json, sys
path = sys.argv[1] + "/config.json"
config = json.load(open(path))
config.update(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=64)
json.dump(config, open(path, "w"))
PY
"$DRUMROLL" inspect "$T/window" >"$T/out" 2>&1 && grep -q "^context *64: attention slides over the last 64" "$T/out"; ok $? "a sliding window"

"$DRUMROLL" inspect >"$T/out" 2>"$T/err"; [ $? -eq 2 ] && grep -q usage "$T/err"; ok $? "no directory given"
"$DRUMROLL" inspect $MODEL --jsn >"$T/out" 2>"$T/err"; [ $? -eq 2 ] && grep -q "unexpected argument '--jsn'" "$T/err"; ok $? "unknown option"
"$DRUMROLL" inspect --help | grep -q "usage: drumroll inspect"; ok $? "help"
