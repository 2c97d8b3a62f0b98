#!/bin/bash
# The Python client against a real run: prompts of its own, evaluations, scores, deltas, LoRA pairs, pieces of a step.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack, numpy' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip python requests no Python with msgpack and numpy (Debian: python3-msgpack, python3-numpy)"; exit 0; fi
if ! $python -c 'import zstandard' 2>/dev/null; then echo "skip python requests no zstandard for deltas (Debian: python3-zstandard)"; exit 0; fi

timeout 280 mpirun -n 2 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/run" --set run.steps=7 \
	--set trainer.kind=external --set rollout.group_size=2 --set scheduler.groups_per_step=2 \
	--set scheduler.over_sampling=1 --set data.source=trainer --set data.prompts= --set reward.kind=exact \
	--set eval.limit=24 --set eval.every=0 --set weights.keep_versions=8 --set run.stall_seconds=240 >"$TEST_TMP/log" 2>&1 &
run=$!
for _ in $(seq 100); do [ -S "$TEST_TMP/run/bridge.sock" ] && break; sleep 0.1; done
timeout 250 $python -B tests/e2e/python_requests.py "unix:$TEST_TMP/run/bridge.sock" configs/quickstart >"$TEST_TMP/said" 2>&1
trainer=$?
[ $trainer -eq 0 ] || kill $run 2>/dev/null
wait $run
status=$?
grep '^ok ' "$TEST_TMP/said"
if [ $status -eq 0 ] && [ $trainer -eq 0 ]; then echo "ok run and trainer end well"
else tail -n 20 "$TEST_TMP/log" "$TEST_TMP/said"; echo "not ok run ($status) and trainer ($trainer) end well"; fi
