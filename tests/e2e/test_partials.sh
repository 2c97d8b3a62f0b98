#!/bin/bash
# What partial rollouts cost and what they select, on the quickstart model with fixed weights: no prompt and no
# token is computed twice but what has to be done again for a resumed sample, and that is counted apart.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

run() {
	local name=$1; shift
	timeout 240 mpirun -n 3 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/$name" --set run.steps=10 \
		--set trainer.kind=none --set data.eval_prompts= --set scheduler.groups_per_step=8 --set scheduler.over_sampling=2 \
		--set worker.max_active=24 "$@" >"$TEST_TMP/$name.log" 2>&1 || { tail -n 5 "$TEST_TMP/$name.log"; echo "not ok $name runs"; }
}

# holds NAME TEXT EXPRESSION: over the steps' metrics, a list `s` of dicts
holds() {
	if python3 - "$TEST_TMP/$1/metrics.jsonl" "$3" <<'PY'
import json, sys
s = [json.loads(line) for line in open(sys.argv[1])]
total = lambda key: sum(step[key] for step in s)
def needed():  # prompts once per group and rank, and response tokens
    return sum((step["rollout/prefill_tokens"] + step["rollout/tokens"]) / step["rollout/computed_ratio"] for step in s)
if not eval(sys.argv[2]):
    print({key: [round(step[key], 4) for step in s] for key in s[0] if "ratio" in key or "_tokens" in key})
    sys.exit(1)
PY
	then echo "ok $2"; else echo "not ok $2"; fi
}

computed='(total("rollout/prefill_tokens") + total("rollout/tokens")) / needed() < 1.05'
run recompute --set scheduler.migrate_kv=recompute
holds recompute "partials are put aside and resumed" 'total("partial/resumed") > 20'
holds recompute "at most 5 % is computed that nobody needed" "$computed"
holds recompute "what resumed samples computed again is counted apart" 'total("rollout/recomputed_tokens") > 500 and total("rollout/imported_tokens") == 0'
run ship --set scheduler.migrate_kv=ship
holds ship "at most 5 % is computed that nobody needed where KV travels" "$computed"
holds ship "KV that travels spares nearly all of the rest" 'total("rollout/imported_tokens") > 500 and total("rollout/recomputed_tokens") < 0.05 * needed()'
holds ship "the batch's length bias is in the metrics" 'all(0.3 < step["rollout/length_bias"] < 3 for step in s)'
run longest --set scheduler.order=longest
holds longest "the longest first: every step has its batch" 'all(step["rollout/trajectories"] == 8 * 9 for step in s)'
run wait --set scheduler.over_sampling=1 --set scheduler.migrate=false --set advantage.drop_degenerate=false
holds wait "what waits for everything has no length bias" 'all(abs(step["rollout/length_bias"] - 1) < 1e-9 for step in s)'
# A prompt is done again for a sibling that comes to a rank when the others there have left.
holds wait "without partials at most 5 % is computed twice, whatever for" \
	'(total("rollout/prefill_tokens") + total("rollout/tokens") + total("rollout/recomputed_tokens")) / needed() < 1.05'
holds wait "nothing moves unless it may" 'total("partial/migrated") == 0'
