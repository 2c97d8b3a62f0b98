#!/bin/bash
# tests/bench/simulate_against_run.sh [PARAMETERS] [STEPS] [TURNS]: does `drumroll simulate` predict what a run takes?
#
# Two ranks generate with the quickstart model, grown to so many parameters (default 20e6) so that a round takes
# milliseconds.  Runs of 4 and of 8 slots, in step, give the cost of a round: the seconds per token of samples that
# decoded while the queue was not empty, and a line through both; rows of prefill, which share those rounds, count as
# rows.  The runs of 8 slots, in step and (not fitted to) with partials, with migration (and no over-sampling, so that
# there is something to move), one step off and async, are then
# compared with the simulator, which draws its lengths from the store of the first.  In the latter two a trainer pulls
# batches, is TRAIN seconds (default 0.5) at each and gives the same weights back; what it took until they had come and
# until the ranks had them is taken from the run's metrics.  Machines are shared and change their speed: each turn is
# fitted and compared by itself, and the median of the turns is the result.
#
#   MODES="sync april april+migration one_step_off async"
set -eu
cd "$(dirname "$0")/../.."
parameters=${1:-20e6} steps=${2:-5} turns=${3:-4}
drumroll=${DRUMROLL:-build/drumroll} train=${TRAIN:-0.5} modes=${MODES:-sync april april+migration one_step_off async}
python=python3
for p in python3 /usr/bin/python3; do $p -c 'import msgpack' 2>/dev/null && { python=$p; break; }; done
T=$(mktemp -d); trap 'rm -rf "$T"' EXIT
"$drumroll" bench grow --model configs/quickstart --parameters "$parameters" --out "$T/model" >/dev/null 2>&1

common="--set model.path=$T/model --set rollout.mode=exact --set data.eval_prompts= --set advantage.drop_degenerate=false
	--set worker.threads=1 --set scheduler.rank_backlog=8 --set scheduler.max_deferrals=100 --set scheduler.max_staleness=2"
# A trainer that gives back what it was given: ADDRESS MODEL SECONDS.
cat >"$T/trainer.py" <<'PY'
import json, struct, sys, time
sys.path.insert(0, "trainer_bridge/python")
from drumroll_client import Client, RunError
address, model, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
data = open(model + "/model.safetensors", "rb").read()
n = struct.unpack("<Q", data[:8])[0]
at = lambda offsets: memoryview(data)[8 + n + offsets[0]:8 + n + offsets[1]].cast("H")
weights = {k: at(t["data_offsets"]) for k, t in json.loads(data[8:8 + n]).items() if k != "__metadata__"}
with Client(address, name="same", timeout=60) as client:
    for version, batch in enumerate(client.batches(), 1):
        print(time.monotonic(), flush=True)
        time.sleep(seconds)
        for attempt in range(1000):  # the version before may still be on its way
            try:
                client.push_weights(version, weights)
                break
            except RunError as error:
                if "still on its way" not in str(error):
                    raise
                time.sleep(0.01)
PY

# options MODE: of a run and of its simulation
options() {
	case $1 in
	sync) echo "--set trainer.kind=none --set scheduler.over_sampling=1 --set scheduler.migrate=false" ;;
	april) echo "--set trainer.kind=none --set scheduler.over_sampling=1.5 --set scheduler.migrate=false" ;;
	april+migration) echo "--set trainer.kind=none --set scheduler.over_sampling=1 --set scheduler.migrate=true --set scheduler.migrate_kv=recompute" ;;
	one_step_off | async) echo "--set trainer.kind=external --set scheduler.over_sampling=1.5 --set scheduler.migrate=false --set scheduler.asynchrony=$1" ;;
	*) echo "simulate_against_run.sh: no mode '$1'" >&2; exit 2 ;;
	esac
}
# run NAME SLOTS MODE
run() {
	mpirun -n 3 "$drumroll" run configs/quickstart/run.yaml $common $(options "$3") --set run.dir="$T/$1" --set run.steps="$steps" \
		--set worker.max_active="$2" >"$T/$1.log" 2>&1 &
	local pid=$!
	case $3 in one_step_off | async)
		for _ in $(seq 300); do [ -S "$T/$1/bridge.sock" ] && break; sleep 0.1; done
		$python -B "$T/trainer.py" "unix:$T/$1/bridge.sock" "$T/model" "$train" >"$T/$1.trainer" 2>&1 || tail -n 3 "$T/$1.trainer" ;;
	esac
	wait $pid || { tail -n 5 "$T/$1.log"; exit 1; }
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
# trained TURN MODE: what a trainer and a broadcast take, as options
trained() {
	python3 - "$T/$2$1/metrics.jsonl" <<'PY'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])][1:-1]
mean = lambda key: statistics.mean(r[key] for r in rows) if rows else 0
print(f'--set simulate.train_seconds={mean("timing_s/train")} --set simulate.broadcast_seconds={mean("timing_s/update_weights")}')
PY
}
# predict TURN MODE READ ROW: a line of JSON
predict() {
	"$drumroll" simulate configs/quickstart/run.yaml $common $(options "$2") $(trained "$1" "$2") --modes "$2" --json \
		--set worker.max_active=8 --set simulate.workers=2 --set simulate.lengths=store --set simulate.run="$T/sync$1" \
		--set simulate.steps=300 --set simulate.read_seconds="$3" --set simulate.row_seconds="$4" \
		--set simulate.position_seconds=0 >"$T/$2$1.json"
}

for turn in $(seq "$turns"); do
	run "four$turn" 4 sync
	run "sync$turn" 8 sync
	for mode in $modes; do [ "$mode" = sync ] || run "$mode$turn" 8 "$mode"; done
	read -r read_seconds row_seconds < <(fit "$turn")
	for mode in $modes; do predict "$turn" "$mode" "$read_seconds" "$row_seconds"; done
done
python3 - "$T" "$turns" $modes <<'PY'
import json, statistics, sys
T, turns, modes = sys.argv[1], range(1, int(sys.argv[2]) + 1), sys.argv[3:]
for mode in modes:
    beside = mode in ("one_step_off", "async")
    real = [[json.loads(line) for line in open(f"{T}/{mode}{i}/metrics.jsonl")] for i in turns]
    found = [json.load(open(f"{T}/{mode}{i}.json")) for i in turns]
    # Beside training a step lasts from one batch that the trainer gets to the next, from the second on.
    if beside:
        times = [[float(line) for line in open(f"{T}/{mode}{i}.trainer")][1:] for i in turns]
        seconds = [(t[-1] - t[0]) / (len(t) - 1) for t in times]
    else:
        seconds = [statistics.mean(r["perf/rollout_time"] for r in rows) for rows in real]
    predicted = [f["step_seconds_mean" if beside else "rollout_seconds_mean"] for f in found]
    off = sorted(100 * (f / s - 1) for f, s in zip(predicted, seconds))
    mean = lambda key: statistics.mean(r[key] for rows in real for r in rows)
    also = lambda key: statistics.mean(f[key] for f in found)
    print(f'{mode}: a step took {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f}); predicted '
          f'{statistics.median(off):+.1f} % ({off[0]:+.1f} to {off[-1]:+.1f}); put aside {mean("partial/put_aside"):.1f}, predicted '
          f'{also("put_aside_per_step"):.1f}; moved {mean("partial/migrated"):.1f}, predicted {also("migrated_per_step"):.1f}; '
          f'lag {mean("staleness/mean"):.2f}, predicted {also("staleness_mean"):.2f}')
PY
