#!/bin/bash
# One slow verifier (0.2 s a sample) and three times as many groups as a batch needs: batches do not wait for verdicts that
# they do not need, verdicts that come beside training count, and a run that is killed among them goes on.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
mkdir "$TEST_TMP/notes"

check() { if "${@:2}"; then echo "ok $1"; else tail -n 8 "$TEST_TMP"/*.log; echo "not ok $1"; fi; }
# Without partial rollouts every sample of every group is done before a batch goes out: all of them would be judged by then.
surplus() { # surplus NAME SET...
	local name=$1; shift
	timeout 200 mpirun -n 3 "$DRUMROLL" run configs/verifiers/run.yaml --set run.dir="$TEST_TMP/$name" --set run.steps=3 \
		--set scheduler.groups_per_step=2 --set rollout.group_size=4 --set rollout.max_tokens=24 --set scheduler.over_sampling=3 \
		--set scheduler.partial_rollouts=false --set advantage.estimator=grpo --set advantage.drop_degenerate=false \
		--set reward.program="python3 tests/e2e/slow_verifier.py $TEST_TMP/notes 0.2" --set reward.program_processes=1 \
		"$@" >"$TEST_TMP/$name.log" 2>&1
}
delivered() { "$DRUMROLL" export "$TEST_TMP/$1" --delivered --out "$TEST_TMP/$1.jsonl"; }

check "a run with a slow verifier ends" surplus run
check "its batches are exported" delivered run
check "batches do not wait for surplus verdicts, which count where they come" \
	python3 - "$TEST_TMP"/run/metrics.jsonl "$TEST_TMP"/run.jsonl "$TEST_TMP"/notes/asked <<'PY'
import collections, json, sys
steps = [json.loads(line) for line in open(sys.argv[1])]
samples = [json.loads(line) for line in open(sys.argv[2])]
asked = [tuple(map(int, line.split())) for line in open(sys.argv[3])]
key = "reward/verifier/"
judged = [s[key + "judged"] for s in steps]
assert [s["step"] for s in steps] == [1, 2, 3], steps
assert steps[0][key + "waiting"] > 0, "the first batch waited for every verdict"
assert 8 <= judged[0] < 24, judged
assert sum(judged) >= 24, f"verdicts beside training are lost: {judged}"
assert sum(s[key + "requests"] for s in steps) <= len(asked) and len(asked) == len(set(asked)), "asked twice"
assert sum(judged) + steps[-1][key + "waiting"] <= 4 * len({group for group, _ in asked}) + 24
assert len(samples) == 24 and all(t["reward"] == (t["group_id"] + t["sample"]) % 2 for t in samples)
groups = collections.Counter(t["group_id"] for t in samples)
assert len(groups) == 6 and set(groups.values()) == {4}, groups
PY

# Killed when a batch has been trained on and others are judged.
rm -r "$TEST_TMP/notes"; mkdir "$TEST_TMP/notes"
surplus killed &
running=$!
for i in $(seq 600); do grep -qs '"step":1' "$TEST_TMP/killed/metrics.jsonl" && break; sleep 0.05; done
controller=$(ps -o ppid= -p "$(tail -n 1 "$TEST_TMP/notes/pids")")
[ "${controller:-1}" -gt 1 ] && kill -9 $controller
wait $running 2>/dev/null
check "a run that was killed among verdicts goes on" eval 'timeout 200 mpirun -n 3 "$DRUMROLL" run --resume "$TEST_TMP/killed" >"$TEST_TMP/resumed.log" 2>&1'
check "and is exported" delivered killed
check "each group is delivered once, with the rewards of its samples" python3 - "$TEST_TMP"/killed.jsonl <<'PY'
import collections, json, sys
samples = [json.loads(line) for line in open(sys.argv[1])]
assert len(samples) == 24 and all(t["reward"] == (t["group_id"] + t["sample"]) % 2 for t in samples), len(samples)
steps = collections.defaultdict(set)
for t in samples:
    steps[t["step"]].add(t["group_id"])
assert sorted(steps) == [1, 2, 3] and all(len(g) == 2 for g in steps.values()), steps
assert len(set.union(*steps.values())) == 6, steps
PY
