#!/bin/bash
# tests/bench/apr.sh [CASE ...]: complete trajectories per second of over-provisioned steps with partial
# rollouts (apr) against steps that wait for all they began (sync), at the same trainer batch.
#
# Two workers of one thread, weights fixed, in speculative mode and alone (exact).  The first step of each
# run is left out: apr begins it without partials.  What that step put aside is delivered by later ones, so that
# over few steps the ratio of complete trajectories (traj x) flatters apr; the ratio of tokens made per second
# (tok x), all of which are delivered in the end, is what a long run gains.
# A case is arithmetic (the quickstart model, hot), gsm8k or zh (MiniMind2-small, below MODELS); default: all.
#
#   REPEATS=3 STEPS=8 MODELS=../shared/data/models PROMPTS=../shared/data/prompts MODES="exact speculative"
#   APR="--set scheduler.over_sampling=1.5" SYNC=...   options of either side
#   ONCE=COMMAND   put before all runs of a case and mode, such as one that waits for an idle machine
set -u
cd "$(dirname "$0")/../.." || exit 1
drumroll=${DRUMROLL:-build/drumroll} repeats=${REPEATS:-3} steps=${STEPS:-8} modes=${MODES:-exact speculative}
models=${MODELS:-../shared/data/models} prompts=${PROMPTS:-../shared/data/prompts}
sync=${SYNC:---set scheduler.over_sampling=1 --set scheduler.partial_rollouts=false --set scheduler.migrate=false}
apr=${APR:---set scheduler.over_sampling=1.5 --set scheduler.partial_rollouts=true}
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
[ $# -gt 0 ] || set -- arithmetic gsm8k zh

options() {
	case $1 in
	arithmetic) echo "--set run.steps=$((8 * steps)) --set rollout.max_tokens=224 --set scheduler.groups_per_step=16" ;;
	gsm8k) echo "--set run.steps=$steps --set model.path=$models/minimind2-small --set data.prompts=$out/gsm8k.jsonl
		--set rollout.max_tokens=1536 --set scheduler.groups_per_step=2" ;;
	zh) echo "--set run.steps=$steps --set model.path=$models/minimind2-small --set data.prompts=tests/bench/questions_zh.jsonl
		--set rollout.max_tokens=1536 --set scheduler.groups_per_step=2" ;;
	*) echo "apr.sh: no case '$1': arithmetic, gsm8k or zh" >&2; return 1 ;;
	esac
}

# one NAME OPTIONS...: a run below $out/NAME
one() {
	local name=$1; shift
	rm -rf "$out/$name"
	mpirun -n 3 "$drumroll" run configs/quickstart/run.yaml --set run.dir="$out/$name" \
		--set trainer.kind=none --set data.eval_prompts= --set reward.kind=none --set advantage.estimator=grpo \
		--set rollout.group_size=8 --set worker.threads=1 --set worker.max_active=32 --set worker.kv_memory_mb=512 \
		"$@" >"$out/$name.log" 2>&1 || { tail -n 3 "$out/$name.log" >&2; return 1; }
}

if [ "${1:-}" = --runs ]; then # within ONCE: runs of either side in turn
	trap - EXIT
	rmdir "$out"
	out=$2 case=$3 mode=$4
	for i in $(seq "$repeats"); do
		one sync --set rollout.mode="$mode" $(options "$case") $sync || exit 1
		one apr --set rollout.mode="$mode" $(options "$case") $apr || exit 1
		cp "$out/sync/metrics.jsonl" "$out/$case.$mode.$i.sync"
		cp "$out/apr/metrics.jsonl" "$out/$case.$mode.$i.apr"
	done
	exit
fi

# Questions as a chat, which is what the model was made for.
python3 - "$prompts/gsm8k_test.jsonl" >"$out/gsm8k.jsonl" <<'PY' || exit 1
import json, sys
for i, line in enumerate(open(sys.argv[1])):
    question = json.loads(line)["question"]
    print(json.dumps({"id": f"gsm8k-{i}", "messages": [{"role": "user", "content": question}]}))
PY

printf '%-11s %-11s %8s %8s %6s %9s %9s %6s %6s %7s  %s\n' case mode 'sync/s' 'apr/s' 'traj x' 'sync tok' 'apr tok' 'tok x' bias again 'lengths p50/p90/max'
for case; do
	options "$case" >/dev/null || exit 1
	for mode in $modes; do
		${ONCE:-} "$0" --runs "$out" "$case" "$mode" || exit 1
		python3 - "$case" "$mode" "$out/$case.$mode" "$repeats" <<'PY'
import json, statistics as st, sys
case, mode, prefix, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
def load(side):
    return [[json.loads(l) for l in open(f"{prefix}.{i}.{side}")][1:] for i in range(1, n + 1)]
def per_second(runs, key):
    return [sum(s[key] for s in r) / sum(s["perf/rollout_time"] for s in r) for r in runs]
sync, apr = load("sync"), load("apr")
a, b = per_second(sync, "rollout/trajectories"), per_second(apr, "rollout/trajectories")
ratio = st.median(y / x for x, y in zip(a, b))
t, u = per_second(sync, "rollout/tokens"), per_second(apr, "rollout/tokens")
made = st.median(y / x for x, y in zip(t, u))
# Delivered lengths against those of everything: what over-sampling prefers within these steps.
bias = st.median(sum(s["rollout/response_len/mean"] for s in r) for r in apr) / \
       st.median(sum(s["rollout/response_len/mean"] for s in r) for r in sync)
again = st.median(sum(s["rollout/recomputed_tokens"] for s in r) / sum(s["rollout/tokens"] for s in r) for r in apr)
steps = [s for r in sync for s in r]
lengths = "/".join(str(round(st.mean(s[f"rollout/response_len/{k}"] for s in steps))) for k in ("median", "p90", "max"))
print(f"{case:11} {mode:11} {st.median(a):8.2f} {st.median(b):8.2f} {ratio:6.2f} "
      f"{st.median(t):9.0f} {st.median(u):9.0f} {made:6.2f} {bias:6.2f} {again:7.3f}  {lengths}")
PY
	done
done
