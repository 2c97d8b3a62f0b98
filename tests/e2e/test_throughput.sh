#!/bin/bash
# A sweep of tiny runs: lines and files it leaves, a run that fails, Ctrl-C and --resume, refusals; a simulated trainer,
# and a run with one that is killed and goes on.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
check() { if [ "$2" = "$3" ]; then echo "ok $1"; else echo "not ok $1: expected $3, found $2"; fi; }

cat >"$TEST_TMP/tiny.yaml" <<'Y'
run: {name: tiny, steps: 2}
model: {path: configs/quickstart}
data: {prompts: configs/quickstart/prompts.jsonl}
rollout: {group_size: 2, max_tokens: 16}
reward: {kind: steps, pattern: '#(-?\d+)'}
scheduler: {groups_per_step: 2, over_sampling: 1}
worker: {max_active: 8, kv_memory_mb: 16}
trainer: {kind: simulated}
throughput: {ranks: 2, repetitions: 2, metric: trajectories, baseline: small}
sweep:
  rollout.mode: [exact, speculative]
variants:
  small: {}
  large: {scheduler.groups_per_step: 4}
Y

timeout 250 "$DRUMROLL" throughput "$TEST_TMP/tiny.yaml" --out "$TEST_TMP/a" >"$TEST_TMP/log" 2>&1
check "a sweep ends with status 0" $? 0
python3 - "$TEST_TMP/a" <<'PY'
import json, os, sys
out = sys.argv[1]
def check(name, condition, found=""):
    print(("ok " if condition else "not ok ") + name + ("" if condition else f": found {found}"))
rows = [json.loads(line) for line in open(out + "/results.jsonl")]
names = ["mode=exact, small", "mode=exact, large", "mode=speculative, small", "mode=speculative, large"]
check("every combination ran twice", sorted((r["variant"], r["repetition"]) for r in rows) == sorted((n, k) for n in names for k in (0, 1)), rows)
check("runs are numbered as they came", [r["order"] for r in rows] == list(range(8)), rows)
check("the second repetition runs backwards", [r["variant"] for r in rows[:4]] == [r["variant"] for r in rows[7:3:-1]], rows)
check("a repetition has its seed", all(r["seed"] == 1 + r["repetition"] for r in rows), rows)
check("a line has what was set", all(r["set"]["rollout.mode"] in r["variant"] and ("scheduler.groups_per_step" in r["set"]) == ("large" in r["variant"]) for r in rows), rows)
check("the baseline is of the same mode", all(r["baseline"] == r["variant"].replace("large", "small") for r in rows), rows)
check("metrics are the summary's numbers", all(r["exit"] == 0 and r["metrics"] == {k: v for k, v in json.load(open(r["run_dir"] + "/summary.json")).items() if isinstance(v, (int, float))} for r in rows), rows)
check("variants did what they say", all(r["metrics"]["trajectories"] == 2 * 3 * (4 if "large" in r["variant"] else 2) for r in rows), rows)
versions = [[json.loads(line)["version"] for line in open(r["run_dir"] + "/metrics.jsonl")] for r in rows]
check("the simulated trainer makes versions", all(v == [0, 1] for v in versions), versions)
sweep = json.load(open(out + "/sweep.json"))
check("sweep.json says what it was", sweep["metric"] == "trajectories" and sweep["higher_is_better"] is True and sweep["baseline"] == "small" and "throughput" in sweep["command"] and sweep["machine"], sweep)
check("and its variants in the order of the file", sweep["variants"] == names, sweep)
PY
if grep -qE '^mode=exact, large +2 +24 +24..24 .* 2 +2..2 ' "$TEST_TMP/log"; then echo "ok the table has ratios"; else tail -n 8 "$TEST_TMP/log"; echo "not ok the table has ratios"; fi

# Ctrl-C in the middle: what is done stays, the rest comes with --resume, and so does what had failed.
"$DRUMROLL" throughput "$TEST_TMP/tiny.yaml" --set trainer.step_seconds=0.4 --out "$TEST_TMP/b" >"$TEST_TMP/log" 2>&1 &
for i in $(seq 1200); do [ "$(cat "$TEST_TMP/b/results.jsonl" 2>/dev/null | wc -l)" -ge 2 ] && break; sleep 0.1; done
kill -INT $!
wait $!
check "Ctrl-C ends it with status 130" $? 130
n=$(wc -l <"$TEST_TMP/b/results.jsonl")
if [ "$n" -ge 2 ] && [ "$n" -lt 8 ]; then echo "ok what was done is kept"; else echo "not ok what was done is kept: $n lines"; fi
cp "$TEST_TMP/b/results.jsonl" "$TEST_TMP/before"
head -n 1 "$TEST_TMP/before" | sed 's/"exit":0/"exit":1/; s/"metrics":{[^}]*}/"metrics":{}/' >"$TEST_TMP/b/results.jsonl"
tail -n +2 "$TEST_TMP/before" >>"$TEST_TMP/b/results.jsonl"
printf '{"variant":"mode=ex' >>"$TEST_TMP/b/results.jsonl"
timeout 250 "$DRUMROLL" throughput --resume "$TEST_TMP/b" --json >"$TEST_TMP/json" 2>"$TEST_TMP/log"
check "a sweep that is resumed ends well" $? 0
check "it runs what was left out" "$(python3 -c 'import json,sys; print(len({(r["variant"], r["repetition"]) for r in map(json.loads, open(sys.argv[1])) if r["exit"] == 0}))' "$TEST_TMP/b/results.jsonl")" 8
check "and nothing twice" "$(wc -l <"$TEST_TMP/b/results.jsonl")" 8
check "--json prints a line for each combination" "$(python3 -c 'import json,sys; print([json.loads(l)["runs"] for l in open(sys.argv[1])])' "$TEST_TMP/json")" "[2, 2, 2, 2]"

# A run that fails is recorded and ends nothing.
sed 's/large: .*/large: {worker.memory_mb: 1}/; s/mode: \[exact, speculative\]/mode: [exact]/' "$TEST_TMP/tiny.yaml" >"$TEST_TMP/fails.yaml"
timeout 250 "$DRUMROLL" throughput "$TEST_TMP/fails.yaml" --repeat 1 --out "$TEST_TMP/c" >"$TEST_TMP/log" 2>&1
check "failed runs make the status 1" $? 1
check "the others are there" "$(python3 -c 'import json,sys; print(sorted((r["variant"], r["exit"] == 0, "memory" in r.get("error", "")) for r in map(json.loads, open(sys.argv[1]))))' "$TEST_TMP/c/results.jsonl")" \
	"[('mode=exact, large', False, True), ('mode=exact, small', True, False)]"

refuse() {
	local name=$1 part=$2
	shift 2
	"$DRUMROLL" throughput "$@" --out "$TEST_TMP/none" >"$TEST_TMP/refusal" 2>&1
	local status=$?
	if [ $status -eq 2 ] && grep -qF -- "$part" "$TEST_TMP/refusal" && [ ! -e "$TEST_TMP/none" ]; then echo "ok refuses $name"
	else cat "$TEST_TMP/refusal"; echo "not ok refuses $name (status $status)"; fi
}
sed 's/rollout.mode: \[/rollout.mod: [/' "$TEST_TMP/tiny.yaml" >"$TEST_TMP/bad.yaml"
refuse "an unknown key" 'the nearest known one is "rollout.mode"' "$TEST_TMP/bad.yaml"
sed 's/rollout.mode: .*/rollout.mode: exact/' "$TEST_TMP/tiny.yaml" >"$TEST_TMP/bad.yaml"
refuse "a value that is no list" "expected a list of values" "$TEST_TMP/bad.yaml"
sed 's/large: .*/large: {scheduler.asynchrony: async, scheduler.max_staleness: 0}/' "$TEST_TMP/tiny.yaml" >"$TEST_TMP/bad.yaml"
refuse "a combination that makes no run" "mode=exact, large: scheduler.max_staleness is 0" "$TEST_TMP/bad.yaml"
refuse "a baseline that is not there" "throughput.baseline" "$TEST_TMP/tiny.yaml" --set throughput.baseline=medium
refuse "--set of what is swept" "the sweep varies it" "$TEST_TMP/tiny.yaml" --set rollout.mode=exact
refuse "no config" "usage: drumroll throughput" --list

# mpirun around it says how many ranks a run has.
sed '/^sweep:/,$d; s/baseline: small/baseline: base/' "$TEST_TMP/tiny.yaml" >"$TEST_TMP/one.yaml"
timeout 100 mpirun -n 3 "$DRUMROLL" throughput "$TEST_TMP/one.yaml" --repeat 1 --set throughput.warmup=0 --out "$TEST_TMP/d" >"$TEST_TMP/log" 2>&1
check "under mpirun it runs once" "$? $(wc -l <"$TEST_TMP/d/results.jsonl") $(grep -c 'controller and 2 workers' "$TEST_TMP"/d/runs/*.log)" "0 1 1"

# A simulated trainer has nothing to lose: a run with one goes on where it was killed.
mpirun -n 2 "$DRUMROLL" run "$TEST_TMP/tiny.yaml" --set run.dir="$TEST_TMP/run" --set run.steps=6 --set trainer.step_seconds=0.3 >"$TEST_TMP/log" 2>&1 &
run=$!
for i in $(seq 600); do grep -q '"step":3' "$TEST_TMP/run/metrics.jsonl" 2>/dev/null && break; sleep 0.05; done
kill -KILL $run $(pgrep -f "run.dir=$TEST_TMP/run") 2>/dev/null
wait $run 2>/dev/null
sleep 0.3
timeout 100 mpirun -n 2 "$DRUMROLL" run --resume "$TEST_TMP/run" --set trainer.step_seconds=0 >"$TEST_TMP/log" 2>&1
check "a run with a simulated trainer is resumed" $? 0
check "all its steps were made once" "$(python3 -c 'import json,sys; print([m["step"] for m in map(json.loads, open(sys.argv[1])) if "reward/mean" in m])' "$TEST_TMP/run/metrics.jsonl")" "[1, 2, 3, 4, 5, 6]"
