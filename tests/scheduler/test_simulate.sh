#!/bin/bash
# drumroll simulate: its lines have the fields that they promise, equal seeds give equal lines, lengths and costs come
# from the files that are named, and every wrong request is refused.  What it computes is test_simulate.c's matter.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
T=$TEST_TMP/simulate; mkdir -p "$T"
MODEL=configs/quickstart

ok() { if [ "$1" -eq 0 ]; then echo "ok $2"; else echo "not ok $2"; fi; }

cat >"$T/small.yaml" <<'YAML'
rollout: {group_size: 4, max_tokens: 500}
scheduler: {groups_per_step: 8, over_sampling: 2}
worker: {max_active: 4}
simulate: {workers: 8, steps: 12, length_mean: 60, length_sigma: 1.2, read_seconds: 0.5, row_seconds: 0.01, prompt_tokens: 10}
YAML
simulate() { timeout 120 "$DRUMROLL" simulate "$@"; }
# without_clock: lines of JSON without what a clock measured
without_clock() { python3 -c '
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    row.pop("events_per_cpu_sec")
    print(json.dumps(row, sort_keys=True))'; }

# check NAME FILE PYTHON: rows is the list of FILE's JSON lines
check() {
	python3 - "$2" <<PY
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
$3
PY
	ok $? "$1"
}

# ---- what is printed ----
simulate "$T/small.yaml" --json --check >"$T/lines" 2>"$T/log"; ok $? "json, every invariant checked"
check "fields of every line" "$T/lines" '
assert [r["mode"] for r in rows] == """sync over-provisioned april april+speculation april+migration
april+speculation+migration one_step_off one_step_off+migration async async+migration""".split()
metrics = """step_seconds_mean step_seconds_p95 rollout_seconds_mean trajectories_per_sec tokens_per_sec slots_busy ranks_busy
tail_share staleness_mean staleness_max staleness_end_max put_aside_per_step given_up_per_step masked_share migrated_per_step dropped_tokens_share length_mean
length_bias tokens_per_round controller_events_per_sec controller_busy events_per_cpu_sec""".split()
for r in rows:
    assert list(r) == ["mode", "workers", "max_active", "steps", "seed"] + metrics, list(r)
    assert (r["workers"], r["max_active"], r["steps"], r["seed"]) == (8, 4, 10, 1)
    assert all(isinstance(r[k], (int, float)) and 0 <= r[k] < 1e12 for k in metrics), r
    assert all(r[k] <= 1 for k in ("slots_busy", "ranks_busy", "tail_share", "dropped_tokens_share"))
    assert abs(r["trajectories_per_sec"] * r["step_seconds_mean"] / 40 - 1) < 1e-4
by = {r["mode"]: r for r in rows}
assert by["sync"]["step_seconds_mean"] > 1.2 * by["april"]["step_seconds_mean"]
assert by["april+speculation"]["tokens_per_round"] > 1.5 and by["april"]["tokens_per_round"] == 1
assert all((r["migrated_per_step"] > 0) == ("migration" in r["mode"]) for r in rows)
assert all((r["put_aside_per_step"] == 0) == (r["mode"] in ("sync", "over-provisioned", "async", "async+migration")) for r in rows)
'
simulate "$T/small.yaml" >"$T/table" 2>"$T/log" && [ "$(grep -c '' "$T/table")" -eq 28 ] &&
	grep -qE '^ +sync +over-provisioned +april +april\+speculation +april\+migration .* async\+migration$' "$T/table" && grep -qE '^tail_share +0\.[0-9]+' "$T/table"
ok $? "a table for people"
simulate "$T/small.yaml" --json --modes april,sync --set simulate.workers=3 >"$T/some" 2>"$T/log"
check "only some modes, --set over the file" "$T/some" 'assert [(r["mode"], r["workers"]) for r in rows] == [("sync", 3), ("april", 3)]'
"$DRUMROLL" simulate --help | grep -q "^  length_bias  *that mean over"; ok $? "help explains what is reported"

# ---- determinism ----
simulate "$T/small.yaml" --json 2>"$T/log" | without_clock >"$T/again"
[ -s "$T/again" ] && without_clock <"$T/lines" | cmp -s - "$T/again"; ok $? "same config, same lines"
simulate "$T/small.yaml" --json --set simulate.seed=2 2>"$T/log" | without_clock | sed 's/"seed": 2/"seed": 1/' | cmp -s - "$T/again"
[ $? -eq 1 ]; ok $? "another seed, other lines"
simulate configs/simulate.yaml --json --modes april --set simulate.steps=4 --set simulate.workers=64 >"$T/committed" 2>"$T/log" &&
	[ "$(grep -c april "$T/committed")" -eq 1 ]
ok $? "configs/simulate.yaml"

# ---- under mpirun ----
if mpirun -n 1 true 2>"$T/log"; then
	timeout 120 mpirun -n 3 "$DRUMROLL" simulate "$T/small.yaml" --json 2>"$T/log" | without_clock | cmp -s - "$T/again"
	ok $? "under mpirun one rank does it"
else
	echo "skip under mpirun one rank does it: mpirun does not start"
fi

# ---- costs ----
cat >"$T/costs.jsonl" <<'JSON'
{"setup": "slow machine, 1 threads", "target": {"rows": [1, 2], "seconds": [2.0, 2.0], "per_position": 0}, "drafters": []}
{"setup": "fast machine, 1 threads", "target": {"rows": [1, 2], "seconds": [1.0, 1.0], "per_position": 0}, "drafters": []}
JSON
one="--modes sync --json --set advantage.estimator=grpo --set rollout.group_size=4 --set scheduler.groups_per_step=1 --set worker.max_active=4
	--set simulate.workers=1 --set simulate.length_sigma=0 --set simulate.prompt_tokens=1 --set simulate.latency_seconds=0 --set simulate.controller_seconds=0"
simulate "$T/small.yaml" $one --costs "$T/costs.jsonl" >"$T/first" 2>"$T/log"
check "--costs: the first line" "$T/first" 'assert rows[0]["step_seconds_mean"] == 60 * 2.0'
simulate "$T/small.yaml" $one --costs "$T/costs.jsonl" --setup fast >"$T/second" 2>"$T/log"
check "--setup: another line" "$T/second" 'assert rows[0]["step_seconds_mean"] == 60 * 1.0'
simulate "$T/small.yaml" $one --set speculation.costs="$T/costs.jsonl" 2>"$T/log" | without_clock | cmp -s - <(without_clock <"$T/first") && [ -s "$T/first" ]
ok $? "speculation.costs names the file too"

# ---- lengths of a run ----
if timeout 200 mpirun -n 2 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$T/run" --set run.steps=2 --set trainer.kind=none \
	--set data.eval_prompts= --set scheduler.groups_per_step=6 --set scheduler.over_sampling=1 --set rollout.max_tokens=60 >"$T/log" 2>&1; then
	"$DRUMROLL" export "$T/run" >"$T/run.jsonl"
	simulate configs/quickstart/run.yaml --json --modes sync --set simulate.lengths=store --set simulate.run="$T/run" --set simulate.workers=1 \
		--set simulate.steps=400 --set scheduler.groups_per_step=6 >"$T/stored" 2>"$T/log"; ok $? "lengths from a store"
	python3 - "$T/run.jsonl" "$T/stored" <<'PY'
import json, math, sys
prompts = {}
for line in open(sys.argv[1]):
    r = json.loads(line)
    prompts.setdefault(r["prompt_id"], []).append(len(r["tokens"]) - r["n_prompt"])
means = [sum(l) / len(l) for l in prompts.values()]
mean = sum(means) / len(means)  # prompts are drawn, then samples
spread = math.sqrt(sum(sum((x - mean) ** 2 for x in l) / len(l) for l in prompts.values()) / len(prompts))
found = json.load(open(sys.argv[2]))["length_mean"]
bound = 5 * spread / math.sqrt(398 * 6)  # samples of a group may be all alike
assert abs(found - mean) < bound, (found, mean, bound)
PY
	ok $? "their mean is the run's"
else
	echo "skip lengths from a store: no run under mpirun: $(tail -n 1 "$T/log")"
fi

# ---- refusals ----
# refuse STATUS NAME TEXT ARGUMENTS...: that status, and TEXT (a regular expression) on standard error
refuse() {
	local status=$1 name=$2 text=$3; shift 3
	simulate "$@" >"$T/out" 2>"$T/err" </dev/null
	local found=$?
	if [ $found -eq "$status" ] && grep -qE -e "$text" "$T/err" && [ ! -s "$T/out" ]; then echo "ok refused: $name"
	else echo "status $found, expected $status"; head -n 3 "$T/err"; echo "not ok refused: $name"; fi
}
refuse 2 "no config" "expected a config file"
refuse 1 "a config that is not there" "nothing.yaml" "$T/nothing.yaml"
refuse 2 "unknown option" "unknown option '--fast'" "$T/small.yaml" --fast x
refuse 2 "--set without a value" "--set: expected section.key=value" "$T/small.yaml" --set
refuse 2 "--modes without a value" "--modes needs a value" "$T/small.yaml" --modes
refuse 2 "unknown mode" "expected names of sync, .*found 'asink'" "$T/small.yaml" --modes sync,asink
refuse 2 "unknown key" 'nearest known one is "simulate.workers"' "$T/small.yaml" --set simulate.worker=3
refuse 2 "no workers" "simulate.workers: expected .*found \"0\"" "$T/small.yaml" --set simulate.workers=0
refuse 2 "a tail without a mean" "simulate.length_alpha: expected" "$T/small.yaml" --set simulate.length_alpha=1
refuse 2 "nothing but warm-up" "warmup is 12 of 12 steps, .*set simulate.steps to more" "$T/small.yaml" --set simulate.warmup=12
refuse 2 "rounds that take no time" "are both 0: a round must take some time" "$T/small.yaml" --set simulate.read_seconds=0 --set simulate.row_seconds=0
refuse 1 "more samples than there is memory for" "samples in flight: expected at most" "$T/small.yaml" --set scheduler.groups_per_step=1000000 --set rollout.group_size=1000
refuse 2 "second stages, which go by rewards" "allocation.kind goes by rewards" "$T/small.yaml" --set allocation.kind=dars_et
refuse 2 "a store without a run" "simulate.run is empty: name a run directory" "$T/small.yaml" --set simulate.lengths=store
refuse 2 "a run without a store" "set simulate.lengths to store, or take the run out" "$T/small.yaml" --set simulate.run=runs/x
refuse 1 "a run that is not there" "simulate.run: .*nothing" "$T/small.yaml" --set simulate.lengths=store --set simulate.run="$T/nothing"
refuse 2 "costs that are not there" "--costs: cannot read" "$T/small.yaml" --costs "$T/nothing"
refuse 1 "costs that are none" "small.yaml line 1 is no line of .drumroll calibrate." "$T/small.yaml" --costs "$T/small.yaml"
refuse 1 "a setup that is not there" "no line whose setup holds 'medium'" "$T/small.yaml" --costs "$T/costs.jsonl" --setup medium
refuse 2 "a setup without costs" "name the file with --costs" "$T/small.yaml" --setup fast
