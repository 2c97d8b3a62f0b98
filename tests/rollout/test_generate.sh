#!/bin/bash
# drumroll generate and score: the same samples whatever the circumstances, scores equal to what was
# recorded, and every wrong request refused with status 2 and a sentence.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
T=$TEST_TMP/generate; mkdir -p "$T"

MODEL=configs/quickstart
[ -e $MODEL/model.safetensors ] || MODEL=${DRUMROLL_DATA:-../shared/data}/models/stories15M
[ -e "$MODEL/model.safetensors" ] || { echo "skip generate neither configs/quickstart nor stories15M is here"; exit 0; }

cat >"$T/prompts.jsonl" <<'JSON'
{"prompt": "Once upon a time"}
{"prompt": "12 + 30 =", "id": "sum", "answer": "42"}

{"prompt": "The", "id": 17}
JSON

ok() { if [ "$1" -eq 0 ]; then echo "ok $2"; else echo "not ok $2"; fi; }
generate() { "$DRUMROLL" generate --model "$MODEL" --prompts "$T/prompts.jsonl" --samples 3 --max-tokens 24 --threads 1 "$@" 2>"$T/log"; }
stable() { python3 - "$1" <<'PY'
import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    print({k: v for k, v in row.items() if k not in ("drafted", "accepted", "verify_calls")})
PY
}
same() { # same NAME A B
	stable "$T/$2.jsonl" >"$T/a"; stable "$T/$3.jsonl" >"$T/b"
	[ -s "$T/a" ] && cmp -s "$T/a" "$T/b"; ok $? "$1"
}

generate --mode exact --seed 5 --out "$T/exact.jsonl"; ok $? "exact mode"
grep -q "tokens/s" "$T/log"; ok $? "summary on standard error"
python3 - "$T/exact.jsonl" <<'PY'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
assert [(r["prompt_id"], r["sample"]) for r in rows] == [(p, s) for p in ("0", "sum", "17") for s in range(3)]
for r in rows:
    assert len(r["tokens"]) == len(r["logprobs"]) and 1 <= len(r["tokens"]) <= 24 and len(r["prompt_tokens"]) >= 1
    assert r["finish_reason"] == ("length" if len(r["tokens"]) == 24 else "stop"), r["finish_reason"]
    assert all(p <= 0 for p in r["logprobs"]) and isinstance(r["text"], str) and r["temperature"] == 1
    assert r["drafted"] == r["accepted"] == r["verify_calls"] == 0
assert len({tuple(r["tokens"]) for r in rows}) > 3, "samples differ"
PY
ok $? "lines in order, with their fields"

generate --mode speculative --seed 5 --out "$T/spec.jsonl"; same "speculation changes no bit" exact spec
generate --mode speculative --draft-length 3 --seed 5 --out "$T/spec3.jsonl"; same "drafts of a given length change no bit" exact spec3
grep -q "acceptance" "$T/log"; ok $? "acceptance is told"
generate --seed 5 --draft-length 1 --threads 2 --out "$T/one.jsonl"; same "draft length 1, two threads" exact one
generate --seed 5 --draft-length 9 --max-active 2 --out "$T/nine.jsonl"; same "draft length 9, two at a time" exact nine
generate --seed 5 --max-active 1 --mode exact >"$T/stdout.jsonl"; same "one at a time, to standard output" exact stdout
DRUMROLL_CPU=scalar generate --seed 5 --mode exact --out "$T/scalar.jsonl"; same "scalar kernels" exact scalar
generate --mode exact --seed 6 --out "$T/seed.jsonl"; ! cmp -s "$T/exact.jsonl" "$T/seed.jsonl"; ok $? "another seed, other samples"

# Scores of what was generated, under each setting.
check_score() { # check_score NAME FILE [OPTIONS]
	local name=$1 file=$2; shift 2
	"$DRUMROLL" score --model "$MODEL" --in "$T/$file.jsonl" --out "$T/score.jsonl" --threads 1 "$@" 2>"$T/log" &&
	python3 - "$T/$file.jsonl" "$T/score.jsonl" <<'PY'
import json, sys
a, b = ([json.loads(line) for line in open(p)] for p in sys.argv[1:])
assert len(a) == len(b) > 0
for x, y in zip(a, b):
    assert x["logprobs"] == y["logprobs"] and x["prompt_id"] == y["prompt_id"] and x["sample"] == y["sample"]
PY
	ok $? "$name"
}
check_score "scores equal records" spec
generate --seed 2 --temperature 0.7 --top-p 0.9 --out "$T/top_p.jsonl"; check_score "scores equal records with top-p" top_p
generate --seed 2 --temperature 1.3 --top-k 5 --mode exact --out "$T/top_k.jsonl"; check_score "scores equal records with top-k" top_k
generate --seed 2 --temperature 1.3 --top-p 0.98 --min-p 0.05 --out "$T/min_p.jsonl"; check_score "scores equal records with min-p" min_p
generate --seed 2 --temperature 0 --out "$T/greedy.jsonl"; check_score "scores equal records when greedy" greedy

# Quantized mode: the copy's own samples, whatever is beside them; scores are the target's of the same tokens.
check_target() { # check_target NAME FILE
	"$DRUMROLL" score --model "$MODEL" --in "$T/$2.jsonl" --out "$T/score.jsonl" --threads 1 2>"$T/log2" &&
	python3 - "$T/$2.jsonl" "$T/score.jsonl" <<'PY'
import json, sys
a, b = ([json.loads(line) for line in open(p)] for p in sys.argv[1:])
assert len(a) == len(b) > 0
for x, y in zip(a, b):
    assert x["target_logprobs"] == y["logprobs"] and len(x["logprobs"]) == len(x["tokens"])
    assert all(p is not None and p <= 0 for p in x["logprobs"]) and x["drafted"] == 0
assert any(x["target_logprobs"] != x["logprobs"] for x in a)
PY
	ok $? "$1"
}
generate --mode quantized --seed 5 --out "$T/quantized.jsonl"; grep -q "rescored by the target" "$T/log"; ok $? "quantized mode tells of rescoring"
check_target "target_logprobs are the target's scores" quantized
! cmp -s "$T/exact.jsonl" "$T/quantized.jsonl"; ok $? "quantized samples are not the target's"
generate --mode quantized --seed 5 --max-active 1 --threads 2 --out "$T/quantized_one.jsonl"
same "quantized, one at a time, two threads" quantized quantized_one
DRUMROLL_CPU=scalar generate --mode quantized --seed 5 --out "$T/quantized_scalar.jsonl"
same "quantized, scalar kernels" quantized quantized_scalar
generate --mode quantized --seed 2 --temperature 1.3 --top-k 3 --draft-format nvfp4 --out "$T/quantized_top.jsonl"
check_target "target_logprobs with top-k: null outside the kept set" quantized_top

# Maximal coupling: the same samples again where the draft lengths are given, other ones than coupled, greedy the same.
generate --seed 5 --coupling maximal --drafter quant --draft-length 3 --out "$T/maximal.jsonl"
generate --seed 5 --coupling maximal --drafter quant --draft-length 3 --threads 2 --max-active 3 --out "$T/maximal_2.jsonl"
same "maximal coupling is reproducible at a given draft length" maximal maximal_2
! cmp -s <(sed 's/"drafted.*//' "$T/exact.jsonl") <(sed 's/"drafted.*//' "$T/maximal.jsonl"); ok $? "maximal coupling draws other samples"
check_score "scores equal records under maximal coupling" maximal
generate --seed 2 --temperature 0 --coupling maximal --out "$T/maximal_greedy.jsonl"
same "maximal coupling is equality when greedy" greedy maximal_greedy

# The cache's numbers: BF16 keys and values are other samples' odds, and scores agree where both use them.
generate --seed 5 --mode exact --kv-format bf16 --out "$T/narrow.jsonl"; ok $? "BF16 cache"
generate --seed 5 --mode speculative --kv-format bf16 --threads 2 --out "$T/narrow_spec.jsonl"
same "speculation changes no bit over a BF16 cache" narrow narrow_spec
DRUMROLL_CPU=scalar generate --seed 5 --mode exact --kv-format bf16 --out "$T/narrow_scalar.jsonl"
same "scalar kernels over a BF16 cache" narrow narrow_scalar
! cmp -s "$T/exact.jsonl" "$T/narrow.jsonl"; ok $? "the two caches differ"
check_score "scores equal records of a BF16 cache" narrow --kv-format bf16
"$DRUMROLL" score --model "$MODEL" --in "$T/narrow.jsonl" --kv-format f32 >"$T/f32_score" 2>"$T/log"
"$DRUMROLL" score --model "$MODEL" --in "$T/narrow.jsonl" --kv-format bf16 >"$T/bf16_score" 2>>"$T/log"
! cmp -s "$T/f32_score" "$T/bf16_score"; ok $? "scores follow --kv-format"

# The context is checked before anything is generated.
generate --mode exact --samples 1 --max-tokens 100000 --out "$T/long.jsonl"
grep -qE "come to [0-9]+ tokens, but the model's context is [0-9]+" "$T/log"; ok $? "a response that may outgrow the context is told of"

# The same, from text, and with other settings or nothing before the tokens.
python3 - "$T/exact.jsonl" "$T" <<'PY'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
with open(sys.argv[2] + "/text.jsonl", "w") as text, open(sys.argv[2] + "/bare.jsonl", "w") as bare:
    for r in rows:
        text.write(json.dumps({k: r[k] for k in ("prompt", "tokens", "prompt_id", "sample", "logprobs")}) + "\n")
        bare.write(json.dumps({"tokens": r["prompt_tokens"] + r["tokens"]}) + "\n")
PY
check_score "scores from prompt text" text
"$DRUMROLL" score --model "$MODEL" --in "$T/bare.jsonl" >"$T/bare_score.jsonl" 2>"$T/log" &&
python3 - "$T/exact.jsonl" "$T/bare_score.jsonl" <<'PY'
import json, sys
a, b = ([json.loads(line) for line in open(p)] for p in sys.argv[1:])
for x, y in zip(a, b):
    assert y["logprobs"][0] is None and y["logprobs"][len(x["prompt_tokens"]):] == x["logprobs"]
PY
ok $? "scores of tokens alone"
"$DRUMROLL" score --model "$MODEL" --in "$T/exact.jsonl" --temperature 0.5 >"$T/cold.jsonl" 2>"$T/log"
! cmp -s "$T/cold.jsonl" <("$DRUMROLL" score --model "$MODEL" --in "$T/exact.jsonl"); ok $? "a flag overrides the line's setting"

# Variables for the chat template: in the prompt that generate shows, and in the tokens that score scores.
rm -rf "$T/chat"; cp -r "$MODEL" "$T/chat"
cat >"$T/chat/chat_template.jinja" <<'JINJA'
{% for m in messages %}{{ m.content }}{% endfor %}
{%- if enable_thinking is defined and enable_thinking is false %}no thought {{ date_string }}{% endif %}
JINJA
echo '{"messages": [{"role": "user", "content": "1+2"}]}' >"$T/messages.jsonl"
KWARGS='{"enable_thinking": false, "date_string": "2 May 2031"}'
"$DRUMROLL" generate --model "$T/chat" --prompts "$T/messages.jsonl" --max-tokens 4 --mode exact --out "$T/plain.jsonl" 2>"$T/log" &&
"$DRUMROLL" generate --model "$T/chat" --prompts "$T/messages.jsonl" --max-tokens 4 --mode exact --template-kwargs "$KWARGS" \
	--out "$T/kwargs.jsonl" 2>"$T/log" &&
python3 - "$T" <<'PY'
import json, sys
plain, kwargs = (json.loads(open(f"{sys.argv[1]}/{name}.jsonl").read()) for name in ("plain", "kwargs"))
assert plain["prompt"] == "1+2" and kwargs["prompt"] == "1+2no thought 2 May 2031", (plain["prompt"], kwargs["prompt"])
line = json.loads(open(f"{sys.argv[1]}/messages.jsonl").read())
json.dump({**line, "tokens": kwargs["tokens"], "logprobs": kwargs["logprobs"]}, open(f"{sys.argv[1]}/rendered.jsonl", "w"))
PY
ok $? "template kwargs reach the prompt"
score_messages() { "$DRUMROLL" score --model "$T/chat" --in "$T/rendered.jsonl" "$@" 2>"$T/log" | python3 -c 'import json, sys
print(json.load(sys.stdin)["logprobs"] == json.load(open(sys.argv[1]))["logprobs"])' "$T/rendered.jsonl"; }
[ "$(score_messages --template-kwargs "$KWARGS")" = True ] && [ "$(score_messages)" = False ]; ok $? "template kwargs reach scores"

# refuse STATUS NAME TEXT COMMAND...: that status, and TEXT (a regular expression) on standard error
refuse() {
	local status=$1 name=$2 text=$3; shift 3
	timeout 60 "$@" >"$T/out" 2>"$T/err" </dev/null
	local found=$?
	if [ $found -eq "$status" ] && grep -qE -e "$text" "$T/err"; then echo "ok refused: $name"
	else echo "status $found, expected $status"; head -n 3 "$T/err"; echo "not ok refused: $name"; fi
}
G="$DRUMROLL generate --model $MODEL --prompts $T/prompts.jsonl"
refuse 2 "unknown option" "--sample'" $G --sample 3
refuse 2 "missing value" "--seed needs a value" $G --seed
refuse 2 "no number" "--samples: expected a whole number, found 'x'" $G --samples x
refuse 2 "number with a tail" "found '4k'" $G --max-tokens 4k
refuse 2 "out of bounds" "--top-p: expected" $G --top-p 1.5
refuse 2 "NaN" "--temperature" $G --temperature nan
refuse 2 "overflow" "--seed" $G --seed 99999999999999999999
refuse 2 "unknown mode" "exact.speculative" $G --mode fast
refuse 2 "no model" "--model is missing" "$DRUMROLL" generate --prompts "$T/prompts.jsonl"
refuse 2 "model that is not there" "$T/nowhere" "$DRUMROLL" generate --model "$T/nowhere" --prompts "$T/prompts.jsonl"
refuse 2 "prompts that are not there" "nothing.jsonl" "$DRUMROLL" generate --model "$MODEL" --prompts "$T/nothing.jsonl"
refuse 2 "template kwargs that are no JSON" "--template-kwargs: expected a JSON object such as .*found .\{thinking: no\}. " $G --template-kwargs "{thinking: no}"
refuse 2 "template kwargs that are no object" "found .7. .no object" "$DRUMROLL" score --model "$MODEL" --in "$T/exact.jsonl" --template-kwargs 7
refuse 2 "score without input" "--in is missing" "$DRUMROLL" score --model "$MODEL"
refuse 1 "output folder that is not there" "nowhere/out" $G --samples 1 --max-tokens 2 --out "$T/nowhere/out"

S="$DRUMROLL score --model $MODEL --in $T/bad.jsonl --out $T/kept"
echo kept >"$T/kept"
bad() { printf '%s\n' '{"tokens": [5, 6]}' "$2" >"$T/bad.jsonl"; refuse 1 "$1" "bad.jsonl:2: .*$3" $S; }
bad "line that is no JSON" '{"tokens": [5' "JSON"
bad "line without tokens" '{"prompt": "The"}' "tokens must be a list"
bad "token that is no number" '{"tokens": [5, "6"]}' "tokens.1. is not"
bad "token beyond the vocabulary" '{"tokens": [5, 2000000000]}' "vocabulary"
bad "bad setting on a line" '{"tokens": [5, 6], "top_p": 7}' "top_p"
[ "$(cat "$T/kept")" = kept ] && [ "$(ls "$T" | grep -c part)" -eq 0 ]; ok $? "a failed command leaves the old file"
