#!/bin/bash
# A trainer of one's own on the socket: pushes weights before it asks for any batch, goes down with a batch
# unacknowledged, returns, and sees every batch of the run.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack, numpy' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip external trainer no Python with msgpack and numpy (Debian: python3-msgpack, python3-numpy)"; exit 0; fi

# The first evaluation is long enough for the trainer to be there before the first step.
timeout 700 mpirun -n 3 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/run" --set run.steps=3 \
	--set trainer.kind=external --set rollout.group_size=3 --set scheduler.groups_per_step=4 --set eval.samples=4 \
	--set run.stall_seconds=240 >"$TEST_TMP/log" 2>&1 &
run=$!
for _ in $(seq 100); do [ -S "$TEST_TMP/run/bridge.sock" ] && break; sleep 0.1; done
timeout 700 $python -B tests/e2e/external_trainer.py "unix:$TEST_TMP/run/bridge.sock" configs/quickstart >"$TEST_TMP/seen" 2>&1
trainer=$?
wait $run
status=$?
if [ $status -eq 0 ] && [ $trainer -eq 0 ]; then echo "ok run and trainer end well"
else tail -n 5 "$TEST_TMP/log" "$TEST_TMP/seen"; echo "not ok run ($status) and trainer ($trainer) end well"; exit 1; fi
if [ "$(cat "$TEST_TMP/seen")" = "[1, 1, 2, 3]" ]; then echo "ok the unacknowledged batch came again, the others once"
else cat "$TEST_TMP/seen"; echo "not ok the unacknowledged batch came again, the others once"; fi
versions=$(grep '"reward/mean"' "$TEST_TMP/run/metrics.jsonl" | sed 's/.*"version":\([0-9]*\).*/\1/' | tr '\n' ' ')
if [ "$versions" = "1 2 3 " ]; then echo "ok weights pushed early are those of the first step"
else echo "not ok weights pushed early are those of the first step: versions $versions"; fi
if [ "$(grep -c '"trainer/loss":0.5' "$TEST_TMP/run/metrics.jsonl")" -eq 3 ]; then echo "ok its reports are in the metrics"
else echo "not ok its reports are in the metrics"; fi
