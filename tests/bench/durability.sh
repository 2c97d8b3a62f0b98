#!/bin/bash
# What durability costs: the same run with run.durability off, process and power in turn, REPEATS (4) times.
#   rollouts   no trainer, batches of 256 samples in 40 ms: 30 times what a store usually gets
#   training   the reference trainer in the loop: weights and its checkpoint are kept as well, 9 + 1.5 MB a step
# Prints microseconds per generated token, the median over all steps of all runs (a busy neighbour on the machine is
# in few of them), the least and greatest median of a run, the difference to off, the same difference in processor time
# of all ranks (what is left of it where every core is busy; waiting takes none), and the share of the run's time that the
# controller spent in the store (timing_s/store: most of it beside the ranks' work).
set -u
cd "$(dirname "$0")/../.." || exit 1
DRUMROLL=${DRUMROLL:-build/drumroll}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
TIMEFORMAT='%U %S'

# one CASE DURABILITY STEPS [--set ...]
one() {
	local dir="$tmp/$1.$2.$i"
	{ time timeout 80 mpirun -n 3 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$dir" --set run.durability="$2" --set run.steps="$3" \
		--set data.eval_prompts= "${@:4}" >"$dir.log" 2>&1 || { tail -n 3 "$dir.log" >&3; exit 1; }; } 3>&2 2>"$dir.cpu"
	python3 - "$dir" "$1" "$2" >>"$tmp/results" <<'PY'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1] + "/metrics.jsonl")]
share = sum(x["timing_s/store"] for x in lines) / json.load(open(sys.argv[1] + "/summary.json"))["seconds"]
steps = [1e6 * (x["perf/rollout_time"] + x["timing_s/train"] + x["timing_s/update_weights"]) / x["rollout/tokens"] for x in lines[2:]]
processor = 1e6 * sum(map(float, open(sys.argv[1] + ".cpu").read().split())) / sum(x["rollout/tokens"] for x in lines)
print(sys.argv[2], sys.argv[3], share, processor, *steps)
PY
	rm -rf "$dir"
}
for i in $(seq "${REPEATS:-4}"); do
	for durability in $([ $((i % 2)) = 1 ] && echo off process power || echo power process off); do
		one rollouts $durability "${STEPS:-60}" --set trainer.kind=none --set scheduler.groups_per_step=28
		[ "${CASES:-both}" = rollouts ] || one training $durability "${TRAIN_STEPS:-10}"
	done
done
python3 - "$tmp/results" <<'PY'
import statistics, sys
runs, share, processor = {}, {}, {}
for line in open(sys.argv[1]):
    case, durability, store, cpu, *steps = line.split()
    runs.setdefault((case, durability), []).append([float(x) for x in steps])
    share.setdefault((case, durability), []).append(float(store))
    processor.setdefault((case, durability), []).append(float(cpu))
for (case, durability), found in runs.items():
    pooled = statistics.median(x for run in found for x in run)
    off = statistics.median(x for run in runs[case, "off"] for x in run)
    cpu = statistics.median(processor[case, durability]) / statistics.median(processor[case, "off"]) - 1
    medians = [statistics.median(run) for run in found]
    print(f"{case:9} {durability:8} {pooled:8.2f} us/token ({min(medians):.2f} to {max(medians):.2f}), {100 * (pooled / off - 1):+6.2f} %, "
          f"processor {100 * cpu:+6.2f} %; "
          f"{100 * statistics.median(share[case, durability]):.2f} % in the store")
PY
