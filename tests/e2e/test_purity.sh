#!/bin/bash
# A trajectory is a pure function (DESIGN: weights, prompt, seed, settings): the same run on 1, 2 and
# 3 workers, with and without speculation, with 1 and 2 threads, gives byte-identical trajectories.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

# run NAME RANKS [--set ...]: fixed weights, everything that is opened is delivered
run() {
	local name=$1 ranks=$2; shift 2
	timeout 240 mpirun -n "$ranks" "$DRUMROLL" run configs/quickstart/run.yaml \
		--set run.dir="$TEST_TMP/$name" --set run.steps=2 --set trainer.kind=none --set data.eval_prompts= \
		--set rollout.group_size=4 --set scheduler.groups_per_step=4 --set scheduler.over_sampling=1 \
		--set advantage.drop_degenerate=false --set worker.max_active=8 "$@" >"$TEST_TMP/$name.log" 2>&1 || {
		tail -n 5 "$TEST_TMP/$name.log"; return 1; }
	"$DRUMROLL" export "$TEST_TMP/$name" --stable --out "$TEST_TMP/$name.jsonl"
}

# same NAME TEXT: equal to the first run
same() {
	if [ -s "$TEST_TMP/$1.jsonl" ] && cmp -s "$TEST_TMP/one.jsonl" "$TEST_TMP/$1.jsonl"; then echo "ok $2"
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

# Other seeds are other samples: the comparison above can fail.
run seed 2 --set run.seed=2
if cmp -s "$TEST_TMP/one.jsonl" "$TEST_TMP/seed.jsonl"; then echo "not ok another seed gives other samples"
else echo "ok another seed gives other samples"; fi

# Over-provisioned, with partials put aside and resumed: what both runs hold is equal, sample by sample.
run partial 3 --set run.steps=4 --set scheduler.over_sampling=2 --set worker.max_active=4
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
