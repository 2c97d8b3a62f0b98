#!/bin/bash
# What durability costs: the same run with run.durability off, process and power in turn, REPEATS (4) times.
#   rollouts   no trainer, batches of 256 samples in 40 ms: 30 times what a store usually gets
#   training   the reference trainer in the loop: weights and its checkpoint are kept as well, 9 + 1.5 MB a step
# Prints trajectories per second of steps, medians over the repetitions, and the ratio to off.
set -u
cd "$(dirname "$0")/../.." || exit 1
DRUMROLL=${DRUMROLL:-build/drumroll}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# one CASE DURABILITY STEPS [--set ...]
one() {
	local dir="$tmp/$1.$2.$i"
	timeout 80 mpirun -n 3 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$dir" --set run.durability="$2" --set run.steps="$3" \
		--set data.eval_prompts= "${@:4}" >"$dir.log" 2>&1 || { tail -n 3 "$dir.log" >&2; exit 1; }
	python3 - "$dir" "$1" "$2" >>"$tmp/results" <<'PY'
import json, sys
m = [json.loads(line) for line in open(sys.argv[1] + "/metrics.jsonl")][1:]
s = json.load(open(sys.argv[1] + "/summary.json"))
seconds = s["seconds"]
print(sys.argv[2], sys.argv[3], sum(x["rollout/trajectories"] for x in m) / seconds, sum(x["rollout/tokens"] for x in m) / seconds)
PY
	rm -rf "$dir"
}
for i in $(seq "${REPEATS:-4}"); do
	for durability in off process power; do
		one rollouts $durability "${STEPS:-60}" --set trainer.kind=none --set scheduler.groups_per_step=28
		[ "${CASES:-both}" = rollouts ] || one training $durability "${TRAIN_STEPS:-8}"
	done
done
python3 - "$tmp/results" <<'PY'
import statistics, sys
rates = {}
for line in open(sys.argv[1]):
    case, durability, trajectories, tokens = line.split()
    rates.setdefault((case, durability), []).append((float(trajectories), float(tokens)))
for case in ("rollouts", "training"):
    for durability in ("off", "process", "power"):
        r = rates.get((case, durability))
        if not r:
            continue
        median = statistics.median(x[0] for x in r)
        base = statistics.median(x[0] for x in rates[case, "off"])
        print(f"{case:9} {durability:8} {median:9.1f} trajectories/s, {statistics.median(x[1] for x in r):9.0f} tokens/s, "
              f"{100 * (median / base - 1):+6.2f} % ({min(x[0] for x in r):.0f} to {max(x[0] for x in r):.0f})")
PY
