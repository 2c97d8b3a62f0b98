#!/bin/bash
# drumroll bench: its lines have the fields that they promise with numbers that can be, a grown model
# gives the same samples, and every wrong request is refused.  Not that anything is fast.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
T=$TEST_TMP/bench; mkdir -p "$T"
MODEL=configs/quickstart
PROMPTS=$MODEL/heldout.jsonl

ok() { if [ "$1" -eq 0 ]; then echo "ok $2"; else echo "not ok $2"; fi; }

# check NAME FILE PYTHON: rows is the list of FILE's JSON lines, positive(row, keys...) asserts
check() {
	python3 - "$2" <<PY
import json, math, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
assert rows
def positive(row, *keys, most=1e6):
    for key in keys:
        assert isinstance(row[key], (int, float)) and math.isfinite(row[key]) and 0 < row[key] < most, (key, row)
$3
PY
	ok $? "$1"
}

# ---- kernels ----
"$DRUMROLL" bench kernels --quick --json --threads 2 >"$T/kernels.jsonl" 2>"$T/log"; ok $? "kernels"
check "kernels: fields of every line" "$T/kernels.jsonl" '
for r in rows:
    assert {"kernel", "isa", "m", "n", "k", "threads", "gbps", "gflops", "bound", "fraction", "format", "runs"} <= r.keys(), r
    assert r["threads"] == 2 and r["bound"] in ("read", "fma", "int8") and r["isa"] == rows[0]["isa"]
    positive(r, "gbps"); positive(r, "fraction", most=200); positive(r, "seconds")
    if r["kernel"].startswith(("matmul", "attend", "head")): positive(r, "gflops", "m", "n", "k")
'
check "kernels: each kernel with each format" "$T/kernels.jsonl" '
names = {r["kernel"] for r in rows}
assert names == {"matmul_bf16", "matmul_q8", "matmul_q32", "attend", "quantize_rtn", "quantize_search", "pack_bf16",
                 "quantize_q8", "head_bf16", "sampling"}, names
formats = {"int4", "int4_g64", "int4_g128", "int4m", "int4m_g64", "int4m_g128", "int5", "int6", "int8", "mxfp4", "nvfp4"}
for kernel in ("matmul_q8", "quantize_rtn", "quantize_search"):
    assert {r["format"] for r in rows if r["kernel"] == kernel} == formats
assert {r["format"] for r in rows if r["kernel"] == "attend"} == {"bf16", "f32"}
assert {1, 8, 64} == {r["m"] for r in rows if r["kernel"] == "matmul_bf16" and not r["cached"]}
assert len({(r["kernel"], r["format"], r["m"], r["n"], r["k"], r["cached"]) for r in rows}) == len(rows), "a case twice"
positive(next(r for r in rows if r["kernel"] == "sampling"), "of_head", most=200)
'
check "kernels: rate, time and shape agree" "$T/kernels.jsonl" '
for r in rows:
    if r["kernel"] == "head_bf16":
        n = -(-r["n"] // 16) * 16
        assert abs(r["gbps"] * r["seconds"] * 1e9 / (2 * n * r["k"]) - 1) < 1e-3
        assert abs(r["gflops"] * r["seconds"] * 1e9 / (2 * n * r["k"] * r["m"]) - 1) < 1e-3
'
"$DRUMROLL" bench kernels --quick --threads 1 --rounds 1 --isa scalar >"$T/table" 2>"$T/log" &&
	grep -q "1 thread(s), kernels scalar, medians of 1" "$T/table" && grep -q "^limits .*GB/s.*GFLOP/s.*GOP/s" "$T/table" &&
	grep -q "^matmul_q8 *int8" "$T/table" && grep -q "^attend *f32" "$T/table"
ok $? "kernels: a table for people, scalar kernels"

# ---- decode ----
"$DRUMROLL" bench decode --model $MODEL --batch 1,3 --context 20 --new 2 --threads 2 --format nvfp4 --kv f32 --json >"$T/decode.jsonl" 2>"$T/log"
ok $? "decode"
check "decode: fields of every line" "$T/decode.jsonl" '
assert [(r["phase"], r["part"], r["batch"]) for r in rows] == [("decode", "target", 1), ("decode", "draft", 1),
    ("decode", "target", 3), ("decode", "draft", 3), ("prefill", "target", 1)]
for r in rows:
    assert r["model"] == "configs/quickstart" and r["bound"] in ("read", "fma", "int8") and r["kv"] == "f32"
    assert r["format"] == ("nvfp4" if r["part"] == "draft" else "bf16")
    assert r["context"] == (20 if r["phase"] == "decode" else 256)
    positive(r, "tokens_per_sec", most=1e9); positive(r, "ms_per_call"); positive(r, "fraction", most=200)
    n = r["batch"] if r["phase"] == "decode" else r["context"]
    assert abs(r["tokens_per_sec"] * r["ms_per_call"] / 1000 / n - 1) < 1e-3
# Weights, 2 bytes each, and 4 layers of 2 KV heads of 32 numbers of 4 bytes for K and V at 22.5 positions on average.
assert abs(rows[0]["read_gb"] * 1e9 - (2 * 128 * (4 * (128 + 2 * 64 + 128 + 3 * 352) + 272) + 22.5 * 4 * 2 * 2 * 32 * 4)) < 2000
assert rows[1]["read_gb"] < 0.45 * rows[0]["read_gb"]
'
"$DRUMROLL" bench decode --model $MODEL --batch 1 --context 8 --new 1 --threads 1 --grow 3e6 >"$T/table" 2>"$T/log" &&
	grep -q "configs/quickstart (grown)" "$T/table" && grep -q "^decode drafter *int4" "$T/table"
ok $? "decode: a table for people, grown in memory"

# ---- speculation ----
"$DRUMROLL" bench speculation --model $MODEL --prompts $PROMPTS --active 1,3 --formats int4,auto --lengths 0,3 --samples 2 --max-tokens 24 --repeat 2 --json >"$T/speculation.jsonl" 2>"$T/log"
ok $? "speculation"
check "speculation: fields of every line" "$T/speculation.jsonl" '
assert [(r["active"], r["format"], r["draft_length"]) for r in rows] == [(a, f, l) for a in (1, 3)
    for f, l in (("bf16", 0), ("int4", 0), ("int4", 3), ("auto", 0), ("auto", 3))]
for r in rows:
    exact = r["format"] == "bf16"
    assert r["model"] == "configs/quickstart" and r["mode"] == ("exact" if exact else "speculative") and r["phase"] == "steady"
    positive(r, "tokens_per_sec", "tokens", "seconds"); positive(r, "ratio_to_exact", most=100)
    assert not exact or (r["ratio_to_exact"] == 1 and r["acceptance"] == r["draft_length_mean"] == 0)
    if r["draft_length"] == 3:
        assert 0.5 < r["acceptance"] <= 1 and 1 <= r["draft_length_mean"] <= 3, r
'
"$DRUMROLL" bench speculation --model $MODEL --prompts $PROMPTS --active 8 --step 8 --max-tokens 16 --repeat 1 >"$T/table" 2>"$T/log" &&
	grep -q "whole steps of 8 samples" "$T/table" && grep -q "^auto *chosen *8" "$T/table"
ok $? "speculation: a step, as a table for people"
"$DRUMROLL" bench speculation --model $MODEL --prompts $PROMPTS --active 2 --sweep --samples 1 --max-tokens 24 --repeat 1 --json >"$T/sweep.jsonl" 2>"$T/log"
ok $? "speculation: a sweep"
check "speculation: every fixed length beside the controller, and its share of the best" "$T/sweep.jsonl" '
assert [(r["format"], r["draft_length"]) for r in rows] == [("bf16", 0), ("auto", 0), ("bf16", 0)] + [
    (f, l) for f in ("int8", "int4 part") for l in (1, 2, 3, 4, 6, 8)]
assert [("ratio_to_best_fixed" in r) for r in rows] == [True, True] + [False] * 13
best = max(r["ratio_to_exact"] for r in rows[2:])
for r in rows[:2]: assert abs(r["ratio_to_best_fixed"] * best - r["ratio_to_exact"]) < 1e-3
for r in rows[3:]: assert 0.5 < r["acceptance"] <= 1 and r["draft_length_mean"] <= r["draft_length"], r
assert len({r["tokens"] for r in rows[:1] + rows[2:3]}) == 1
'
"$DRUMROLL" bench speculation --model $MODEL --prompts $PROMPTS --active 8 --step 24 --length-mean 12 --max-tokens 40 --repeat 1 >"$T/table" 2>"$T/log" &&
	grep -q "lengths drawn, end tokens ignored (lognormal, mean 12, sigma 1.* p50 [0-9]*, .*, max 40 tokens\|lengths drawn.*max [1-3][0-9] tokens" "$T/table"
ok $? "speculation: a step of drawn lengths, which are shown"

# ---- calibrate ----
"$DRUMROLL" calibrate --model $MODEL --format auto --rows 8 --threads 1 --out "$T/costs.jsonl" >"$T/table" 2>"$T/log" &&
	"$DRUMROLL" calibrate --model $MODEL --format int4 --rows 8 --threads 1 --out "$T/costs.jsonl" >>"$T/table" 2>"$T/log" &&
	"$DRUMROLL" calibrate --model $MODEL --format int4 --rows 4 --threads 1 --out "$T/costs.jsonl" >>"$T/table" 2>"$T/log"
ok $? "calibrate"
check "calibrate: a line for each setup" "$T/costs.jsonl" '
assert len(rows) == 2 and [sum(d is not None for d in r["drafters"]) for r in rows] == [2, 1]
assert rows[0]["target"]["rows"] == [1, 2, 3, 4, 5, 6, 7, 8] and rows[1]["target"]["rows"] == [1, 2, 3, 4]
for r in rows:
    for table in [r["target"], *filter(None, r["drafters"])]:
        assert all(0 < s < 60 for s in table["seconds"]) and 0 <= table["per_position"] < 1
'

# ---- formats ----
"$DRUMROLL" bench formats --model $MODEL --prompts $PROMPTS --limit 3 --tokens 16 --formats int4,bf16,int8 --threads 2 --json \
	>"$T/formats.jsonl" 2>"$T/log"; ok $? "formats"
check "formats: fields of every line" "$T/formats.jsonl" '
assert len(rows) == 9
for r in rows:
    assert {"model", "format", "head", "quantizer", "activations", "bits", "error"} <= r.keys()
    positive(r, "draft_ms", "target_ms", "entropy"); positive(r, "maximal", "coupled", most=1.0000001)
    assert 3 <= r["positions"] <= 48 and r["temperature"] == 1
target = next(r for r in rows if r["format"] == "bf16")
assert target["maximal"] == 1 and target["coupled"] == 1 and target["error"] == 0 and target["bits"] == 16
cases = {(r["format"], r["head"], r["quantizer"], r["activations"]): r for r in rows}
assert len(cases) == 9
int4, rtn, int8 = (cases[k] for k in (("int4", "int4", "search", "int8"), ("int4", "int4", "rtn", "int8"),
                                      ("int8", "int8", "search", "int8")))
assert 0.03 < int4["error"] < rtn["error"] < 0.2 and int8["error"] < 0.02
assert 0.5 < int4["maximal"] < 1 and int8["maximal"] > int4["maximal"] and int4["bits"] == 4.5
'
"$DRUMROLL" bench formats --model $MODEL --prompts $PROMPTS --limit 1 --tokens 4 --formats int4 --threads 1 >"$T/table" 2>"$T/log" &&
	grep -q "entropy" "$T/table" && [ "$(grep -c '^int4 ' "$T/table")" -eq 4 ]
ok $? "formats: a table for people"

# ---- grow ----
"$DRUMROLL" bench grow --model $MODEL --parameters 8e6 --layers 12 --out "$T/grown" >"$T/out" 2>"$T/log"; ok $? "grow"
python3 - "$T/grown" <<'PY'
import json, os, sys
old, new = (json.load(open(d + "/config.json")) for d in ("configs/quickstart", sys.argv[1]))
assert new["num_hidden_layers"] == 12 and new["intermediate_size"] > old["intermediate_size"]
assert all(new[k] == old[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size"))
assert 16e6 <= os.path.getsize(sys.argv[1] + "/model.safetensors") < 18e6
PY
ok $? "grow: the shape that was asked for"
head -n 4 $PROMPTS >"$T/prompts.jsonl"
generate() { "$DRUMROLL" generate --model "$1" --prompts "$T/prompts.jsonl" --samples 2 --max-tokens 24 --threads 2 --mode "$2" 2>"$T/log"; }
stable() { python3 -c '
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    print({k: v for k, v in row.items() if k not in ("verify_calls", "drafted", "accepted")})'; }
generate $MODEL exact | stable >"$T/own"
generate "$T/grown" exact | stable >"$T/grown_exact"
generate "$T/grown" speculative | stable >"$T/grown_speculative"
[ -s "$T/own" ] && cmp -s "$T/own" "$T/grown_exact"; ok $? "grow: the same tokens and log-probabilities"
cmp -s "$T/own" "$T/grown_speculative"; ok $? "grow: and with speculation"

# ---- refusals ----
# refuse STATUS NAME TEXT ARGUMENTS...: that status, and TEXT (a regular expression) on standard error
refuse() {
	local status=$1 name=$2 text=$3; shift 3
	timeout 60 "$DRUMROLL" bench "$@" >"$T/out" 2>"$T/err" </dev/null
	local found=$?
	if [ $found -eq "$status" ] && grep -qE -e "$text" "$T/err"; then echo "ok refused: $name"
	else echo "status $found, expected $status"; head -n 3 "$T/err"; echo "not ok refused: $name"; fi
}
refuse 2 "nothing to measure" "drumroll bench kernels"
refuse 2 "unknown part" "unknown part 'kernel'" kernel
refuse 2 "unknown option" "--fast'" kernels --fast
refuse 2 "unknown instruction set" "'mmx' is no table" kernels --isa mmx
refuse 2 "no threads" "--threads: expected 1" kernels --threads 0
refuse 2 "no model" "--model is missing" decode
refuse 2 "batch that is no list" "--batch: expected .* found '1,x'" decode --model $MODEL --batch 1,x
refuse 2 "batch of nothing" "--batch: expected .* found '0'" decode --model $MODEL --batch 0
refuse 2 "unknown format" "--format: expected one of int4" decode --model $MODEL --format int3
refuse 1 "beyond the context" "more than the model's context of 256" decode --model $MODEL --batch 1 --context 250
refuse 2 "grown to less than it is" "parameters already" decode --model $MODEL --grow 1000
refuse 2 "unknown format in a list" "found 'int3'" formats --model $MODEL --prompts $PROMPTS --formats int4,int3
refuse 2 "no temperature" "--temperature" formats --model $MODEL --prompts $PROMPTS --temperature 0
refuse 2 "prompts that are not there" "nothing.jsonl" formats --model $MODEL --prompts "$T/nothing.jsonl"
refuse 2 "a drafter that is the target" "found 'bf16'" speculation --model $MODEL --prompts $PROMPTS --formats bf16
refuse 2 "a draft too long" "--lengths: expected" speculation --model $MODEL --prompts $PROMPTS --lengths 33
refuse 2 "onto itself" "is the model itself" grow --model $MODEL --out $MODEL/. --parameters 2e6
refuse 2 "smaller than it is" "parameters already" grow --model $MODEL --out "$T/small" --parameters 1000
[ ! -e "$T/small" ]; ok $? "a refused model leaves nothing"
for part in kernels decode formats grow; do
	"$DRUMROLL" bench $part --help | grep -q -- "--"; ok $? "help for $part"
done
