#!/bin/bash
# Runs judged by an external verifier: one that behaves gives what the built-in one gives; one that misbehaves in every
# way costs error marks on its samples and nothing else.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

check() { if "${@:2}"; then echo "ok $1"; else echo "not ok $1"; fi; }
# run NAME SET...: quickstart with fixed weights and small steps; its status is the run's
run() {
	local name=$1; shift
	timeout "${seconds:-240}" mpirun -n 3 "$DRUMROLL" run configs/verifiers/run.yaml --set run.dir="$TEST_TMP/$name" --set run.steps=4 \
		--set trainer.kind=none --set scheduler.groups_per_step=6 --set rollout.group_size=6 --set rollout.max_tokens=64 \
		--set scheduler.over_sampling=1 "$@" >"$TEST_TMP/$name.log" 2>&1
}
says() { grep -qF -- "$2" "$TEST_TMP/$1.log" || { tail -n 5 "$TEST_TMP/$1.log"; false; }; }
export_run() { "$DRUMROLL" export "$TEST_TMP/$1" >"$TEST_TMP/$1.jsonl" && [ -s "$TEST_TMP/$1.jsonl" ]; }
# All that such verifiers started is gone within seconds.
none_left() {
	local i
	for i in $(seq 100); do pgrep -f "$1" >/dev/null || return 0; sleep 0.1; done
	pgrep -af "$1"; false
}

check "the example verifier judges" run example
check "the built-in verifier judges" run built_in --set reward.kind=steps --set 'reward.pattern=#(-?\d+)'
check "both are exported" eval 'export_run example && export_run built_in'
check "the same samples get the same rewards from either" python3 - "$TEST_TMP"/{example,built_in}.jsonl <<'PY'
import json, sys
a, b = ({(t["prompt_id"], t["sample"]): t["reward"] for t in map(json.loads, open(path))} for path in sys.argv[1:])
assert len(a) > 100 and a.keys() == b.keys(), (len(a), len(b))
differ = [key for key in a if a[key] is None or abs(a[key] - b[key]) > 1e-12]
sys.exit(f"{len(differ)} of {len(a)} differ: {differ[:5]}" if differ else 0)
PY

notes=$TEST_TMP/notes; mkdir "$notes"
hostile="python3 tests/e2e/hostile_verifier.py $notes"
check "a run goes on to its end with a hostile verifier" run hostile --set reward.program="$hostile 0.2" \
	--set reward.program_timeout=1 --set reward.program_start=6 --set reward.program_backoff=0.05 --set reward.program_retries=1 \
	--set reward.program_processes=8 --set advantage.min_group=5 --set reward.failure_budget=5
check "it is exported" export_run hostile
check "an error is an error on its sample, never a reward, and groups keep min_group members" \
	python3 - "$TEST_TMP/hostile.jsonl" "$notes/fates" <<'PY'
import collections, json, sys
samples = [t for t in map(json.loads, open(sys.argv[1])) if t["state"] == "delivered"]
fates = dict(line.split()[:2] for line in open(sys.argv[2]))
groups = collections.defaultdict(list)
for t in samples:
    fate = fates.get("%d-%d" % (t["group_id"], t["sample"]), "never asked")
    lost = t["reward"] is None
    # On a machine that is busy a decent process may be late, too, and then one that crashes once is asked no third time.
    late = lost and (fate == "once" or "did not answer" in t["error"])
    assert lost == (fate not in ("judged", "once")) or late, (fate, t["error"])
    assert lost or t["reward"] in (1, 2), t["reward"]
    assert (t["finish_reason"] == "error" and "verifier" in t["error"]) == lost, (fate, t["finish_reason"])
    if lost:
        assert t.get("loss_weight", 0) == 0 and not t.get("pivot"), t
    groups[t["group_id"]].append(lost)
assert len(groups) == 24 and any(any(g) for g in groups.values()), len(groups)
assert all(g.count(False) >= 5 for g in groups.values()), [g.count(False) for g in groups.values()]
met = set(fates.values())
assert len(met) >= 10, f"not every fate was met: {met}"
PY
check "metrics count what was lost" python3 - "$TEST_TMP/hostile/metrics.jsonl" <<'PY'
import json, sys
s = [json.loads(line) for line in open(sys.argv[1])]
total = lambda key: sum(step["reward/verifier/" + key] for step in s)
assert total("failed") > 0 and total("bad_data") > 0 and total("restarts") > 0 and total("stray_replies") > 0
assert total("requests") > total("judged") + total("failed") and s[-1]["reward/verifier/waiting"] >= 0
assert all(1 <= step["reward/mean"] <= 2 for step in s)
PY
check "its log holds its standard error and why it was killed" eval \
	'grep -q "started [0-9]" "$TEST_TMP/hostile/verifier.log" && grep -q "did not answer within" "$TEST_TMP/hostile/verifier.log"'
check "the log stays small" [ "$(stat -c %s "$TEST_TMP/hostile/verifier.log")" -lt 4000000 ]
check "none of its processes is left" none_left "$notes"

check "a verifier that always fails stops the run" eval '! run never --set reward.program="exit 3" --set reward.program_retries=0 --set reward.program_backoff=0.01'
check "and the run says why" says never "ended with status 3"
check "a verifier that cannot judge stops the run by its own budget" eval '! run bad --set reward.program="$hostile 1000000" --set reward.bad_data_budget=0 --set reward.failure_budget=1000 \
	--set reward.program="while read -r l; do i=\${l#*:}; echo \"{\\\"id\\\":\${i%%,*},\\\"error\\\":\\\"no tests\\\"}\"; done"'
check "and names it" says bad "reward.bad_data_budget"
check "a command that does not exist is refused" eval '! run missing --set reward.program=/nonexistent/judge'
check "by its name" says missing "/nonexistent/judge"
check "program without a command line is refused" eval '! run empty --set reward.program='
check "and says which key" says empty "reward.program"
check "a verifier that may be silent for longer than the run is refused" eval '! run silent --set run.stall_seconds=5'
check "the watchdog names the verifier" eval '! run stall --set run.stall_seconds=3 --set reward.program_timeout=2.9 \
	--set reward.program_start=2.9 --set reward.program_retries=0 --set reward.program_backoff=30 --set reward.program="cat >/dev/null" --set reward.failure_budget=1000 --set run.steps=1'
check "and how long it has waited" says stall "samples wait for the verifier"

# The controller is killed while a verifier hangs and ignores everything.
mkdir "$TEST_TMP/lost"
seconds=10 run lost --set reward.program="trap '' HUP TERM INT; echo \$\$ >>$TEST_TMP/lost/pids; exec sleep 987" --set run.stall_seconds=300 &
for i in $(seq 100); do [ -s "$TEST_TMP/lost/pids" ] && break; sleep 0.1; done
controller=$(ps -o ppid= -p "$(head -n 1 "$TEST_TMP/lost/pids")")
kill -9 $controller
check "verifiers die with a controller that is killed" eval \
	'for i in $(seq 50); do ps -p "$(paste -sd, "$TEST_TMP/lost/pids")" >/dev/null || break; sleep 0.1; done; ! ps -p "$(paste -sd, "$TEST_TMP/lost/pids")" >/dev/null'
wait
