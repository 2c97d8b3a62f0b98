#!/bin/bash
# Real weights and real prompts: MiniMind2-small on GSM8K completes steps with the reference trainer.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
DATA=${DRUMROLL_DATA:-../shared/data}
MODEL=$DATA/models/minimind2-small
if [ ! -d "$MODEL" ]; then echo "skip GSM8K on MiniMind2-small $MODEL is not here"; exit 0; fi
if [ "${VARIANT:-}" = tsan ]; then echo "skip GSM8K on MiniMind2-small takes many minutes under the thread sanitizer"; exit 0; fi

timeout 280 mpirun -n 3 "$DRUMROLL" run configs/gsm8k.yaml --set model.path="$MODEL" \
	--set data.prompts="$DATA/prompts/gsm8k_train.jsonl" --set data.limit=40 --set run.dir="$TEST_TMP/run" \
	--set run.steps=2 --set rollout.max_tokens=40 --set rollout.group_size=4 --set scheduler.groups_per_step=2 \
	--set trainer.kind=reference --set bridge.listen=unix:{run}/bridge.sock >"$TEST_TMP/log" 2>&1
status=$?
if [ $status -eq 0 ] && grep -q '^run directory: ' "$TEST_TMP/log"; then echo "ok two steps of GSM8K"
else tail -n 5 "$TEST_TMP/log" "$TEST_TMP/run/trainer.log"; echo "not ok two steps of GSM8K (status $status)"; fi
if [ "$(grep -c '"trainer/tokens"' "$TEST_TMP/run/metrics.jsonl")" -eq 2 ]; then echo "ok both were trained on"
else echo "not ok both were trained on"; fi

head -n 3 "$DATA/prompts/gsm8k_test.jsonl" | sed 's/"question"/"prompt"/' >"$TEST_TMP/prompts.jsonl"
for mode in exact speculative; do
	"$DRUMROLL" generate --model "$MODEL" --prompts "$TEST_TMP/prompts.jsonl" --samples 2 --mode $mode --seed 7 \
		--max-tokens 24 --threads 2 --out "$TEST_TMP/$mode.jsonl" 2>/dev/null
	"$DRUMROLL" score --model "$MODEL" --in "$TEST_TMP/$mode.jsonl" --out "$TEST_TMP/$mode.scores"
done
python3 - "$TEST_TMP" <<'PY'
import json, sys
def load(name): return [json.loads(line) for line in open(f"{sys.argv[1]}/{name}")]
exact, speculative = load("exact.jsonl"), load("speculative.jsonl")
same = [(r["tokens"], r["logprobs"]) for r in exact] == [(r["tokens"], r["logprobs"]) for r in speculative]
print("ok" if same and len(exact) == 6 else "not ok", "speculative equals exact, bit for bit")
scored = [r["logprobs"] for r in load("speculative.scores")] == [r["logprobs"] for r in speculative]
print("ok" if scored else "not ok", "score equals what generate recorded, bit for bit")
PY
