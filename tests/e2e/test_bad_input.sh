#!/bin/bash
# Bad input is refused before work starts: a clear sentence, a status that is not 0, no crash.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
Q=configs/quickstart
printf 'data:\n  template_kwargs: {enable_thinking: false}\n' >"$TEST_TMP/kwargs.yaml"

# refuse NAME TEXT COMMAND...: ends with 1 or 2 and says TEXT (a regular expression) on stderr
refuse() {
	local name=$1 text=$2; shift 2
	timeout 60 "$@" >"$TEST_TMP/out" 2>"$TEST_TMP/err" </dev/null
	local status=$?
	if { [ $status -eq 1 ] || [ $status -eq 2 ]; } && grep -qiE "$text" "$TEST_TMP/err"; then echo "ok $name"
	else echo "status $status"; head -n 5 "$TEST_TMP/err"; echo "not ok $name"; fi
}
run() { echo mpirun -n 2 "$DRUMROLL" run $Q/run.yaml --set run.dir="$TEST_TMP/run" "$@"; }

refuse "unknown key names the nearest" "temperature" $(run --set rollout.temprature=1)
refuse "unknown section" "section|rollout" $(run --set rolout.temperature=1)
refuse "wrong type" "steps" $(run --set run.steps=many)
refuse "out of bounds" "top_p" $(run --set rollout.top_p=1.5)
refuse "NaN" "temperature" $(run --set rollout.temperature=nan)
refuse "missing config" "nothing.yaml" "$DRUMROLL" run $TEST_TMP/nothing.yaml
refuse "missing model" "nowhere" $(run --set model.path=$TEST_TMP/nowhere)
refuse "missing prompts" "nothing.jsonl" $(run --set data.prompts=$TEST_TMP/nothing.jsonl)
refuse "model beyond the memory budget" "memory" $(run --set worker.memory_mb=2)
refuse "group of one with a group estimator" "group_size" $(run --set advantage.estimator=grpo --set rollout.group_size=1)
refuse "no worker" "worker|mpirun" "$DRUMROLL" run $Q/run.yaml --set run.dir="$TEST_TMP/alone"
refuse "bridge address of no kind" "bridge.listen.*unix:PATH" $(run --set bridge.listen=foo:1)
refuse "public address without a secret" "secret" $(run --set bridge.listen=tcp:0.0.0.0:0)
refuse "submitted prompts without a trainer" "data.source .*trainer.kind is none" $(run --set data.source=both --set trainer.kind=none)
refuse "a reference trainer submits nothing" "reference trainer submits no prompts" $(run --set data.source=trainer)
refuse "kept versions without a trainer" "weights.keep_versions" $(run --set weights.keep_versions=2 --set trainer.kind=none)
refuse "score of neither model nor run" "expected --model or --run" "$DRUMROLL" score --in $Q/heldout.jsonl
refuse "score of a run that kept nothing" "config.yaml" "$DRUMROLL" score --run "$TEST_TMP/norun" --in $Q/heldout.jsonl
refuse "template kwargs that are no JSON" "data.template_kwargs: expected a JSON object such as" $(run --set data.template_kwargs={thinking:False})
refuse "template kwargs as a YAML mapping" "kwargs.yaml:2: .*template_kwargs" "$DRUMROLL" config "$TEST_TMP/kwargs.yaml"

printf 'run:\n  steps: 3\nrollout:\n  temprature: 1\n' >"$TEST_TMP/bad.yaml"
refuse "config error has its line" "4|line" "$DRUMROLL" config "$TEST_TMP/bad.yaml"

# a port that somebody holds
python3 -c 'import socket,time,sys
s=socket.socket(); s.bind(("127.0.0.1",0)); s.listen(1)
print(s.getsockname()[1], flush=True); time.sleep(60)' >"$TEST_TMP/port" &
holder=$!
while [ ! -s "$TEST_TMP/port" ]; do sleep 0.1; done
refuse "port in use" "in use|already" $(run --set bridge.listen=tcp:127.0.0.1:"$(cat "$TEST_TMP/port")")
kill $holder
if [ -e "$TEST_TMP/run" ]; then echo "not ok a run that did not begin leaves no directory"
else echo "ok a run that did not begin leaves no directory"; fi

# damaged copies of the model
damage() { rm -rf "$TEST_TMP/model"; cp -r $Q "$TEST_TMP/model"; }
generate() { echo "$DRUMROLL" generate --model "$TEST_TMP/model" --prompts "${1:-$Q/heldout.jsonl}" --samples 1 --max-tokens 4 --out /dev/null; }
damage; sed -i 's/"max_position_embeddings": *[0-9]*/"max_position_embeddings": 8192/' "$TEST_TMP/model/config.json"
refuse "kv budget that holds no sequence" "kv budget of 1 MiB cannot hold" \
	$(run --set worker.kv_memory_mb=1 --set rollout.max_tokens=4096 --set model.path=$TEST_TMP/model)
damage; head -c 100000 $Q/model.safetensors >"$TEST_TMP/model/model.safetensors"
refuse "truncated weights" "safetensors|tensor" $(generate)
damage; printf '\377\377\377\377\377\377\377\177{}' >"$TEST_TMP/model/model.safetensors"
refuse "hostile header length" "safetensors|header" $(generate)
damage; head -c 2000 $Q/tokenizer.json >"$TEST_TMP/model/tokenizer.json"
refuse "truncated tokenizer" "tokenizer" $(generate)
damage; echo '{"architectures":["GPT2LMHeadModel"],"model_type":"gpt2"}' >"$TEST_TMP/model/config.json"
refuse "unknown architecture" "gpt2" $(generate)
damage; : >"$TEST_TMP/model/generation_config.json"
refuse "empty generation config" "generation_config" $(generate)
damage; echo '{"prompt": 5}' >"$TEST_TMP/p.jsonl"
refuse "prompt that is no text" "p.jsonl" $(generate "$TEST_TMP/p.jsonl")
echo '{"prompt": "1+' >"$TEST_TMP/p.jsonl"
refuse "prompt line that is no JSON" "p.jsonl" $(generate "$TEST_TMP/p.jsonl")
: >"$TEST_TMP/p.jsonl"
refuse "no prompts at all" "p.jsonl" $(generate "$TEST_TMP/p.jsonl")
refuse "unknown option" "sampels" "$DRUMROLL" generate --model $Q --prompts $Q/heldout.jsonl --sampels 3
refuse "unknown command" "genrate" "$DRUMROLL" genrate

# lines for score that say two things, or one that would be misread
score() { echo "$1" >"$TEST_TMP/s.jsonl"; refuse "score: $2" "s.jsonl:1: .*$3" "$DRUMROLL" score --model $Q --in "$TEST_TMP/s.jsonl"; }
score '{"prompt":"1+","messages":[],"tokens":[5]}' "prompt and messages" "one of them"
score '{"tokens":[5,6],"tokens":[7]}' "tokens twice" "duplicate"
score '{"tokens":[5,6],"top_k":1.5}' "top_k with a fraction" "whole number"
score '{"tokens":[5,257]}' "token beyond the vocabulary" "vocabulary"
score '{"tokens":[5,6.0]}' "token that is no whole number" "token id"
