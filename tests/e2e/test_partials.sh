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
holds recompute "the ranks are quiet soon after they are told to stop" '0 < total("timing_s/stop") < 0.5 * total("perf/rollout_time")'
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
holds wait "nothing moves unless it may, nor is stopped" 'total("partial/migrated") == 0 and total("timing_s/stop") == 0'

# Fifty steps of short batches, many of them put aside, against generating everything: the first so many groups to their
# end, under the same noise.  Kolmogorov and Smirnov's distance at 5 sigma, 2 exp(-2 x^2) = 5.7e-7 at x = 2.744; the
# samples are mostly the same ones, which makes it stricter.  What the ends of steps alone would select is found out.
run all --set run.steps=1 --set scheduler.groups_per_step=200 --set scheduler.over_sampling=1 --set advantage.drop_degenerate=false
run fifty --set run.steps=50 --set scheduler.groups_per_step=4 --set scheduler.over_sampling=4 --set advantage.drop_degenerate=false
for name in all fifty; do "$DRUMROLL" export "$TEST_TMP/$name" --out "$TEST_TMP/$name.jsonl"; done
python3 - "$TEST_TMP" <<'PY'
import json, math, sys
rows = {name: list(map(json.loads, open(f"{sys.argv[1]}/{name}.jsonl"))) for name in ("all", "fifty")}
length = lambda r: len(r["tokens"]) - r["n_prompt"]
def distance(a, b):
    a, b, most = sorted(a), sorted(b), 0
    i = k = 0
    for x in sorted(set(a + b)):
        while i < len(a) and a[i] <= x: i += 1
        while k < len(b) and b[k] <= x: k += 1
        most = max(most, abs(i / len(a) - k / len(b)))
    return most * math.sqrt(len(a) * len(b) / (len(a) + len(b)))
everything = [length(r) for r in rows["all"]]
delivered = [r for r in rows["fifty"] if r["state"] == "delivered"]
resumed = [r for r in delivered if r["deferrals"] > 0]
bias = [json.loads(line)["rollout/length_bias"] for line in open(f"{sys.argv[1]}/fifty/metrics.jsonl")]
apart = distance([length(r) for r in delivered], everything)
never = distance([length(r) for r in delivered if r["deferrals"] == 0], everything)
print(f"{len(delivered)} delivered, {len(resumed)} of them put aside before: {apart:.2f} of 2.744; without those {never:.2f}; "
      f"bias of single steps {min(bias):.2f} to {max(bias):.2f}")
same = {r["id"]: r["tokens"] for r in rows["all"]}
sys.exit(not (len(delivered) == 50 * 4 * 9 and len(resumed) > 100 and apart < 2.744 < never and len(bias) == 50
              and min(bias) < 1 and all(r["tokens"] == same[r["id"]] for r in delivered if r["id"] in same)))
PY
[ $? -eq 0 ] && echo "ok over fifty steps what is delivered is as long as everything" ||
	echo "not ok over fifty steps what is delivered is as long as everything"
