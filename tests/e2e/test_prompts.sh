#!/bin/bash
# What a run makes of its prompts before work starts: it tells where the model's context will cut responses,
# in generate's words, and hands data.template_kwargs to the chat template.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
Q=configs/quickstart M=$TEST_TMP/model
[ -e $Q/model.safetensors ] || { echo "skip prompts of a run configs/quickstart is not here"; exit 0; }

ok() { if [ "$1" -eq 0 ]; then echo "ok $2"; else echo "not ok $2"; tail -n 5 "$TEST_TMP"/*.err; fi; }
run() { # run NAME OPTION...: one step of one group without a trainer
	local name=$1; shift
	timeout 300 mpirun -n 2 "$DRUMROLL" run $Q/run.yaml --set run.dir="$TEST_TMP/$name" --set run.steps=1 --set model.path="$M" \
		--set data.prompts="$TEST_TMP/prompts.jsonl" --set data.eval_prompts= --set trainer.kind=none --set reward.kind=none \
		--set rollout.group_size=2 --set scheduler.groups_per_step=1 \
		"$@" >"$TEST_TMP/$name.out" 2>"$TEST_TMP/$name.err" </dev/null
}
words() { sed -n "s/.*\(the longest prompt and \)[^ ]* \(come to .*\)/\1OPTION \2/p" "$1"; }

# A model whose attention slides: its context, and why, are in the sentence.
cp -r $Q "$M"
python3 - "$M/config.json" <<'PY'
import json, sys
config = json.load(open(sys.argv[1]))
config.update(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=40)
json.dump(config, open(sys.argv[1], "w"))
PY
echo '{"prompt": "51+48-87+49=\n"}' >"$TEST_TMP/prompts.jsonl"
run short --set rollout.max_tokens=60; ok $? "a run whose responses the context cuts"
"$DRUMROLL" generate --model "$M" --prompts "$TEST_TMP/prompts.jsonl" --max-tokens 60 --out /dev/null 2>"$TEST_TMP/generate.err"
words "$TEST_TMP/short.err" | grep -q "^the longest prompt and OPTION come to 73 tokens, but the model's context is 40 (attention slides over the last 40 of 256 positions.*): samples end there"
ok $? "it says so, with the numbers and why"
[ "$(words "$TEST_TMP/short.err")" = "$(words "$TEST_TMP/generate.err")" ]; ok $? "in the words of generate"
grep -q "and rollout.max_tokens come" "$TEST_TMP/short.err" && grep -q "and --max-tokens come" "$TEST_TMP/generate.err"
ok $? "each names its own option"
run fits --set rollout.max_tokens=27 && ! grep -q "longest prompt" "$TEST_TMP/fits.err"; ok $? "nothing is said where all fits"

# The template decides which prompt the samples continue.
echo '{{ messages[0].content }}{% if enable_thinking is false %}{{ date_string }}{% endif %}' >"$M/chat_template.jinja"
echo '{"messages": [{"role": "user", "content": "1+2="}]}' >"$TEST_TMP/prompts.jsonl"
run kwargs --set rollout.max_tokens=4 --set data.template_kwargs='{"enable_thinking": false, "date_string": "9"}'; ok $? "a run with template kwargs"
echo '"1+2=9"' | "$DRUMROLL" tokenize --model "$M" >"$TEST_TMP/expected"
timeout 60 "$DRUMROLL" export "$TEST_TMP/kwargs" >"$TEST_TMP/export" 2>"$TEST_TMP/export.err" && python3 - "$TEST_TMP/expected" "$TEST_TMP/export" <<'PY'
import json, sys
expected, rows = json.load(open(sys.argv[1])), [json.loads(line) for line in open(sys.argv[2])]
assert len(expected) == 5 and rows
for row in rows: assert row["tokens"][:row["n_prompt"]] == expected, (row["tokens"], expected)
PY
ok $? "the trajectories continue what the template made of them"
