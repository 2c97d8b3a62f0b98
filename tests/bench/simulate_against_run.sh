#!/bin/bash
# tests/bench/simulate_against_run.sh [PARAMETERS] [STEPS] [TURNS]: does `drumroll simulate` predict what a run takes?
#
# Two ranks generate with the quickstart model, grown to so many parameters (default 20e6) so that a round takes
# milliseconds, without a trainer.  Runs of 4 and of 8 slots, in step, give the cost of a round: the seconds per token
# of samples that decoded while the queue was not empty, and a line through both; rows of prefill, which share those
# rounds, count as rows.  The runs of 8 slots, in step and (not fitted to) with partials, are then compared with the
# simulator, which draws its lengths from the store of the first.  Machines are shared and change their speed: each
# turn is fitted and compared by itself, and the median of the turns is the result.
set -eu
cd "$(dirname "$0")/../.."
parameters=${1:-20e6} steps=${2:-5} turns=${3:-4}
drumroll=${DRUMROLL:-build/drumroll}
T=$(mktemp -d); trap 'rm -rf "$T"' EXIT
"$drumroll" bench grow --model configs/quickstart --parameters "$parameters" --out "$T/model" >/dev/null 2>&1

common="--set model.path=$T/model --set rollout.mode=exact --set trainer.kind=none --set data.eval_prompts=
	--set advantage.drop_degenerate=false --set worker.threads=1 --set scheduler.rank_backlog=8 --set scheduler.max_deferrals=100"
# run NAME SLOTS OVER: a run of that many slots
run() {
	mpirun -n 3 "$drumroll" run configs/quickstart/run.yaml $common --set run.dir="$T/$1" --set run.steps="$steps" \
		--set worker.max_active="$2" --set scheduler.over_sampling="$3" >"$T/$1.log" 2>&1 || { tail -n 5 "$T/$1.log"; exit 1; }
	"$drumroll" export "$T/$1" >"$T/$1.jsonl"
}
# fit TURN: seconds of a round, and of a row
fit() {
	python3 - "$T" "$1" <<'PY'
import json, statistics, sys
def fit(name):
    rows = [json.loads(line) for line in open(f"{sys.argv[1]}/{name}{sys.argv[2]}.jsonl")]
    length = lambda r: len(r["tokens"]) - r["n_prompt"]
    prompts = sum({r["group_id"]: r["n_prompt"] - 1 for r in rows}.values())
    rows_per_token = 1 + prompts / sum(map(length, rows))  # with prefill
    # Steps of 16 groups: the first half of each is done before slots run empty.
    rows = [r for r in rows if (r["group_id"] - 1) % 16 < 8 and length(r) >= 8]
    return statistics.median(r["decode_seconds"] / length(r) for r in rows), rows_per_token
(four, each), (eight, _) = fit("four"), fit("sync")
row = max((eight - four) / (4 * each), 0)
print(max(four - 4 * each * row, 0), row)
PY
}
# predict TURN MODE OVER READ ROW: a line of JSON
predict() {
	"$drumroll" simulate configs/quickstart/run.yaml $common --modes "$2" --json --set worker.max_active=8 --set simulate.workers=2 \
		--set scheduler.over_sampling="$3" --set simulate.lengths=store --set simulate.run="$T/sync$1" --set simulate.steps=300 \
		--set simulate.read_seconds="$4" --set simulate.row_seconds="$5" --set simulate.position_seconds=0 >"$T/$2$1.json"
}

for turn in $(seq "$turns"); do
	run "four$turn" 4 1; run "sync$turn" 8 1; run "april$turn" 8 1.5
	read -r read_seconds row_seconds < <(fit "$turn")
	predict "$turn" sync 1 "$read_seconds" "$row_seconds"; predict "$turn" april 1.5 "$read_seconds" "$row_seconds"
done
python3 - "$T" "$turns" <<'PY'
import json, statistics, sys
T, turns = sys.argv[1], range(1, int(sys.argv[2]) + 1)
for mode in ("sync", "april"):
    real = [[json.loads(line) for line in open(f"{T}/{mode}{i}/metrics.jsonl")] for i in turns]
    found = [json.load(open(f"{T}/{mode}{i}.json")) for i in turns]
    seconds = [statistics.mean(r["perf/rollout_time"] for r in rows) for rows in real]
    off = sorted(100 * (f["rollout_seconds_mean"] / s - 1) for f, s in zip(found, seconds))
    aside = statistics.mean(r["partial/put_aside"] for rows in real for r in rows)
    print(f'{mode}: a step took {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f}); predicted '
          f'{statistics.median(off):+.1f} % ({off[0]:+.1f} to {off[-1]:+.1f}); '
          f'put aside {aside:.1f}, predicted {statistics.mean(f["put_aside_per_step"] for f in found):.1f}')
PY
