#!/bin/bash
# tests/bench/apr.sh [CASE ...]: complete trajectories per second of over-provisioned steps with partial
# rollouts (apr) against steps that wait for all they began (sync), at the same trainer batch.
#
# Two workers of one thread and 16 slots, as many as a batch has samples; weights fixed; exact and with speculation.
# Models are grown to GROW weights (drumroll bench grow: same tokens), so that a call of one sample costs nearly what a
# full one does, as in models that people train.  Cases, by where their lengths come from:
#   arithmetic  the quickstart's own, temperature 1.3: half answer at once, the rest works it out; 4 groups of 8
#   lognormal   MiniMind2-small and GSM8K; limits of prompts (max_tokens): median 32, sigma 1, at most 512; 8 of 4
#   pareto      the same with limits of a Pareto distribution: at least 12, exponent 1.3, at most 512
#   gsm8k, zh   MiniMind2-small's own, which have little tail (below MODELS, not grown); 2 groups of 8
# Default: the first three.  Limits are the distribution's quantiles at 40 prompts in a fixed order.
#
# Every epoch has these 40 prompts (TRAIN_PROMPTS) once, and as many groups are measured on either side: sync from its
# first step on, for its steps do not depend on each other; apr after as many steps before, when as much is put aside as
# is resumed.  Whether that was enough, `made` says: tokens made over tokens delivered in the steps that count, 1 in the
# long run; and `bias`: length of what apr delivered over sync's.  tok x is the ratio of tokens made per second.
#
#   REPEATS=1 TRAIN_PROMPTS=40 MODES="exact speculative" GROW=120e6
#   MODELS=../shared/data/models PROMPTS=../shared/data/prompts
#   APR="--set scheduler.over_sampling=1.5" SYNC=...   options of either side
#   ONCE=COMMAND   put before all runs of a case and mode, such as one that waits for an idle machine
set -u
cd "$(dirname "$0")/../.." || exit 1
drumroll=${DRUMROLL:-build/drumroll} repeats=${REPEATS:-1} modes=${MODES:-exact speculative} grow=${GROW:-120e6}
n_prompts=${TRAIN_PROMPTS:-40}
models=${MODELS:-../shared/data/models} prompts=${PROMPTS:-../shared/data/prompts}
sync=${SYNC:---set scheduler.over_sampling=1 --set scheduler.partial_rollouts=false --set scheduler.migrate=false}
apr=${APR:---set scheduler.over_sampling=1.5 --set scheduler.partial_rollouts=true}
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
[ $# -gt 0 ] || set -- arithmetic lognormal pareto

options() {
	local limited="--set model.path=$out/minimind --set rollout.max_tokens=512 --set rollout.group_size=4 --set scheduler.groups_per_step=8"
	local short="--set model.path=$models/minimind2-small --set rollout.max_tokens=1536 --set rollout.group_size=8 --set scheduler.groups_per_step=2"
	case $1 in
	arithmetic) echo "--set model.path=$out/quickstart --set rollout.temperature=1.3 --set rollout.max_tokens=224
		--set rollout.group_size=8 --set scheduler.groups_per_step=4" ;;
	lognormal | pareto) echo "$limited --set data.prompts=$out/$1.jsonl" ;;
	gsm8k) echo "$short --set data.prompts=$out/gsm8k.jsonl" ;;
	zh) echo "$short --set data.prompts=tests/bench/questions_zh.jsonl" ;;
	*) echo "apr.sh: no case '$1': arithmetic, lognormal, pareto, gsm8k or zh" >&2; return 1 ;;
	esac
}

# epoch CASE: steps that have every prompt once
epoch() { echo $((n_prompts / $(options "$1" | grep -o 'groups_per_step=[0-9]*' | cut -d= -f2))); }

# one NAME OPTIONS...: a run below $out/NAME
one() {
	local name=$1; shift
	rm -rf "$out/$name"
	mpirun -n 3 "$drumroll" run configs/quickstart/run.yaml --set run.dir="$out/$name" \
		--set trainer.kind=none --set data.eval_prompts= --set reward.kind=none --set advantage.estimator=grpo \
		--set data.limit="$n_prompts" --set worker.threads=1 --set worker.max_active=16 --set worker.kv_memory_mb=768 \
		"$@" >"$out/$name.log" 2>&1 || { tail -n 3 "$out/$name.log" >&2; return 1; }
}

if [ "${1:-}" = --runs ]; then # within ONCE: runs of either side in turn
	trap - EXIT
	rmdir "$out"
	out=$2 case=$3 mode=$4
	for i in $(seq "$repeats"); do
		one sync --set rollout.mode="$mode" $(options "$case") --set run.steps=$(epoch "$case") $sync || exit 1
		one apr --set rollout.mode="$mode" $(options "$case") --set run.steps=$((2 * $(epoch "$case"))) $apr || exit 1
		cp "$out/sync/metrics.jsonl" "$out/$case.$mode.$i.sync"
		cp "$out/apr/metrics.jsonl" "$out/$case.$mode.$i.apr"
	done
	exit
fi

# Questions as a chat, which is what the model was made for: as they are, and with limits.
python3 - "$prompts/gsm8k_test.jsonl" "$out" "$n_prompts" <<'PY' || exit 1
import json, math, random, statistics, sys
n = int(sys.argv[3])
questions = [json.loads(line)["question"] for line in open(sys.argv[1])][:n]
exceeded = {"lognormal": lambda q: 32 * math.exp(-statistics.NormalDist().inv_cdf(q)), "pareto": lambda q: 12 * q ** (-1 / 1.3)}
for name in ("gsm8k", *exceeded):
    order = [(i + 0.5) / n for i in range(n)]
    random.Random(1).shuffle(order)
    with open(f"{sys.argv[2]}/{name}.jsonl", "w") as f:
        for i, (question, q) in enumerate(zip(questions, order)):
            row = {"id": f"gsm8k-{i}", "messages": [{"role": "user", "content": question}]}
            if name in exceeded:
                row["max_tokens"] = max(1, min(512, round(exceeded[name](q))))
            print(json.dumps(row), file=f)
PY
grown() { "$drumroll" bench grow --model "$1" --parameters "$grow" --layers 8 --out "$out/$2" >/dev/null || exit 1; }
case " $* " in *" arithmetic "*) grown configs/quickstart quickstart ;; esac
case " $* " in *" lognormal "* | *" pareto "*) grown "$models/minimind2-small" minimind ;; esac

printf '%-11s %-11s %8s %8s %6s %9s %9s %6s %6s %6s %7s  %s\n' case mode 'sync/s' 'apr/s' 'traj x' 'sync tok' 'apr tok' 'tok x' \
	made bias again 'lengths p50/p90/max, mean'
for case; do
	options "$case" >/dev/null || exit 1
	for mode in $modes; do
		${ONCE:-} "$0" --runs "$out" "$case" "$mode" || exit 1
		python3 - "$case" "$mode" "$out/$case.$mode" "$repeats" "$(epoch "$case")" <<'PY'
import json, statistics as st, sys
case, mode, prefix, n, epoch = sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])
def load(side, skip):
    return [[json.loads(l) for l in open(f"{prefix}.{i}.{side}")][skip:] for i in range(1, n + 1)]
def total(run, key):
    return sum(s[key] for s in run)
def per_second(runs, key):
    return [total(r, key) / total(r, "perf/rollout_time") for r in runs]
def delivered(run):
    return sum(s["rollout/response_len/mean"] * s["rollout/trajectories"] for s in run)
sync, apr = load("sync", 0), load("apr", epoch)
a, b = per_second(sync, "rollout/trajectories"), per_second(apr, "rollout/trajectories")
t, u = per_second(sync, "rollout/tokens"), per_second(apr, "rollout/tokens")
ratio, tokens = (st.median(y / x for x, y in zip(*pair)) for pair in ((a, b), (t, u)))
made = st.median(total(r, "rollout/tokens") / delivered(r) for r in apr)
bias = st.median(delivered(y) / total(y, "rollout/trajectories") / (delivered(x) / total(x, "rollout/trajectories"))
                 for x, y in zip(sync, apr))
again = st.median(total(r, "rollout/recomputed_tokens") / total(r, "rollout/tokens") for r in apr)
steps = [s for r in sync for s in r]
lengths = "/".join(str(round(st.mean(s[f"rollout/response_len/{k}"] for s in steps))) for k in ("median", "p90", "max"))
lengths += f', {st.mean(s["rollout/response_len/mean"] for s in steps):.0f}'
print(f"{case:11} {mode:11} {st.median(a):8.2f} {st.median(b):8.2f} {ratio:6.2f} {st.median(t):9.0f} {st.median(u):9.0f} "
      f"{tokens:6.2f} {made:6.2f} {bias:6.2f} {again:7.3f}  {lengths}")
PY
	done
done
