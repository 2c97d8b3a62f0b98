#!/bin/bash
# A trajectory is a pure function of weights, prompt, seed and settings: the same run on 1, 2 and
# 3 workers, with and without speculation, with 1 and 2 threads, gives byte-identical trajectories.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

# run NAME RANKS [--set ...]: fixed weights, everything that is opened is delivered.  LAST_CPU: one rank
# more, with that instruction set.
run() {
	local name=$1 ranks=$2; shift 2
	local run=("$DRUMROLL" run configs/quickstart/run.yaml \
		--set run.dir="$TEST_TMP/$name" --set run.steps=2 --set trainer.kind=none --set data.eval_prompts= \
		--set rollout.group_size=4 --set scheduler.groups_per_step=4 --set scheduler.over_sampling=1 \
		--set advantage.drop_degenerate=false --set worker.max_active=8 "$@")
	local last=(); [ -z "${LAST_CPU:-}" ] || last=(: -n 1 env "DRUMROLL_CPU=$LAST_CPU" "${run[@]}")
	timeout 240 mpirun -n "$ranks" "${run[@]}" "${last[@]}" >"$TEST_TMP/$name.log" 2>&1 || {
		tail -n 5 "$TEST_TMP/$name.log"; return 1; }
	"$DRUMROLL" export "$TEST_TMP/$name" --stable --out "$TEST_TMP/$name.jsonl"
}

# same NAME TEXT [OTHER]: equal to the first run, or that one
same() {
	if [ -s "$TEST_TMP/$1.jsonl" ] && cmp -s "$TEST_TMP/${3:-one}.jsonl" "$TEST_TMP/$1.jsonl"; then echo "ok $2"
	else echo "not ok $2"; fi
}

run one 2 --set rollout.mode=exact || { echo "not ok first run"; exit 1; }
lines=$(wc -l <"$TEST_TMP/one.jsonl")
if [ "$lines" -eq 40 ]; then echo "ok 2 steps of 4 groups of 5 samples"; else echo "not ok expected 40 trajectories, found $lines"; fi

run speculative 2 --set rollout.mode=speculative --set speculation.draft_length=4; same speculative "speculation changes no bit"
run two 3 --set rollout.mode=speculative --set speculation.draft_length=2; same two "two workers"
run three 4 --set rollout.mode=exact; same three "three workers"
run threads 2 --set worker.threads=2 --set rollout.mode=speculative; same threads "two threads"
run small 3 --set worker.max_active=1 --set worker.prefill_chunk=3; same small "one session at a time, prompts in pieces"
run int8 2 --set speculation.format=int8 --set speculation.drafter=quant --set speculation.draft_length=3
same int8 "an INT8 drafter"
run suffix 2 --set speculation.drafter=suffix; same suffix "drafts from repeated text"
DRUMROLL_CPU=scalar run scalar 3; same scalar "scalar kernels"

# Samples that move between ranks, with their keys and values or without, whatever made those.
# moved NAME KEY: the sum of a metric over the run is not 0
moved() {
	python3 -c 'import json, sys; print(sum(json.loads(l)[sys.argv[2]] for l in open(sys.argv[1])) > 0)' \
		"$TEST_TMP/$1/metrics.jsonl" "$2" | grep -q True
}
move=(--set worker.max_active=12 --set worker.prefill_chunk=8 --set rollout.mode=exact --set rollout.temperature=1.0)
LAST_CPU=scalar run ship 3 --set scheduler.migrate_kv=ship "${move[@]}"
same ship "keys and values that move to another instruction set"
moved ship rollout/imported_tokens || echo "not ok nothing moved: the case above shows nothing"
LAST_CPU=scalar run recompute 3 --set scheduler.migrate_kv=recompute "${move[@]}"
same recompute "samples that move and are computed again"
moved recompute partial/migrated || echo "not ok nothing moved: the case above shows nothing"
run longest 3 --set scheduler.order=longest --set worker.max_active=2; same longest "the longest first"

# The quantized copy's own samples, with the target's log-probabilities, are as pure.
run quantized 2 --set rollout.mode=quantized
DRUMROLL_CPU=scalar run quantized_small 3 --set rollout.mode=quantized --set worker.max_active=2 --set worker.prefill_chunk=3
same quantized_small "quantized: two workers, few sessions at a time, scalar kernels" quantized

# Other seeds are other samples: the comparison above can fail.
run seed 2 --set run.seed=2
if cmp -s "$TEST_TMP/one.jsonl" "$TEST_TMP/seed.jsonl"; then echo "not ok another seed gives other samples"
else echo "ok another seed gives other samples"; fi

# Over-provisioned, with partials put aside and resumed: what both runs hold is equal, sample by sample.
run partial 3 --set run.steps=4 --set scheduler.over_sampling=2 --set worker.max_active=4 --set scheduler.migrate_kv=ship
if python3 - "$TEST_TMP/one.jsonl" "$TEST_TMP/partial.jsonl" <<'PY'
import json, sys
def load(path):
    rows = (json.loads(line) for line in open(path))
    return {(r["prompt_id"], r["epoch"], r["sample"]): (r["tokens"], r["logprobs"], r["finish_reason"], r.get("reward"))
            for r in rows if r["finish_reason"] != "none"}
a, b = load(sys.argv[1]), load(sys.argv[2])
common = a.keys() & b.keys()
assert len(common) >= 10, f"only {len(common)} samples in common"
assert all(a[k] == b[k] for k in common)
PY
then echo "ok partials resumed under the same weights keep every bit"
else echo "not ok partials resumed under the same weights keep every bit"; fi
