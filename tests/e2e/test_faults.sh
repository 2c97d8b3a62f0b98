#!/bin/bash
# Processes of real runs are killed, stopped and delayed at random moments (faults.py says what is checked); then how a
# run ends when it cannot go on.  FAULT_SEEDS=100 for the long version (about ten minutes).
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack' 2>/dev/null; then python=$p; fi
done
[ -n "$python" ] || echo "skip an external trainer among the faults no Python with msgpack (Debian: python3-msgpack)"
${python:-python3} -B tests/e2e/faults.py "$DRUMROLL" "$TEST_TMP" "${FAULT_SEEDS:-3}" || echo "faults.py: exit status $?"

# living NAME: processes with the run's directory in their command line
living() { pgrep -f "^(mpirun|$DRUMROLL run|drumroll trainer) .*$TEST_TMP/$1[/ ]" | while read -r p; do
	grep -q '^State:[^ZX]*$' "/proc/$p/status" 2>/dev/null && echo "$p"; done; }
# rank NAME NUMBER: process id of a rank, whose parent is its guard
rank() {
	local p parent
	for p in $(living "$1"); do
		parent=$(awk '/^PPid/ { print $2 }' "/proc/$p/status" 2>/dev/null)
		if tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -qx "PMI_RANK=$2" &&
			tr '\0' '\n' <"/proc/$parent/environ" 2>/dev/null | grep -qx "PMI_RANK=$2"; then echo "$p"; return; fi
	done
}
# begin NAME RANKS [--set ...]: a run in the background, at its second step
begin() {
	local name=$1 ranks=$2; shift 2
	timeout 120 mpirun -n "$ranks" "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/$name" \
		--set data.eval_prompts= --set cluster.silence_seconds=1 --set cluster.controller_seconds=3 \
		--set cluster.wait_seconds=1 --set run.steps=500 "$@" >"$TEST_TMP/$name.log" 2>&1 &
	mpirun=$!
	for _ in $(seq 300); do [ -s "$TEST_TMP/$name/metrics.jsonl" ] && break; sleep 0.1; done
}
# ended NAME SECONDS TEXT STATUS: the run ends so soon and so, and nothing of it is left
ended() {
	local name=$1 seconds=$2 start=$SECONDS status
	while kill -0 $mpirun 2>/dev/null && [ $((SECONDS - start)) -le "$seconds" ]; do sleep 0.1; done
	if kill -0 $mpirun 2>/dev/null; then echo "not ok $3: it goes on after $seconds s"; kill -9 $mpirun; return; fi
	wait $mpirun; status=$?
	for _ in $(seq 50); do [ -z "$(living "$name")" ] && break; sleep 0.1; done
	if [ -n "$(living "$name")" ]; then echo "not ok $3: processes are left: $(living "$name" | tr '\n' ' ')"
	elif [ $status -ne "$4" ]; then tail -n 3 "$TEST_TMP/$name.log"; echo "not ok $3: status $status, expected $4"
	else echo "ok $3"; fi
}
said() { if grep -q "$2" "$TEST_TMP/$1.log"; then echo "ok $3"; else tail -n 3 "$TEST_TMP/$1.log"; echo "not ok $3"; fi; }

begin controller 3
kill -9 "$(rank controller 0)"
ended controller 10 "the controller is killed: everybody ends with it, the trainer too" 137

begin mpirun 3
kill -9 "$(pgrep -f "^mpirun .*$TEST_TMP/mpirun ")"
ended mpirun 10 "mpirun is killed: nothing is left" 137

begin alone 3
kill -9 "$(rank alone 1)" "$(rank alone 2)"
ended alone 20 "no worker is left: the run stops" 1
said alone "no worker is left" "and says why"
"$DRUMROLL" export "$TEST_TMP/alone" --out "$TEST_TMP/alone.jsonl" >/dev/null
steps=$(grep -c reward/mean "$TEST_TMP/alone/metrics.jsonl")
if [ "$steps" -ge 1 ] && [ "$(grep -c '"state":"delivered"' "$TEST_TMP/alone.jsonl")" -ge $((144 * steps)) ]; then echo "ok and keeps what was there"
else echo "not ok and keeps what was there"; fi

begin trainer 3 --set run.stall_seconds=2 --set trainer.stall_seconds=5 --set run.report_seconds=1
kill -STOP "$(pgrep -f "^drumroll trainer $TEST_TMP/trainer/")"
ended trainer 20 "a trainer that hangs: the run stops after trainer.stall_seconds, not before" 1
said trainer "waiting for new weights from the trainer since .* is stopped by a signal" "and has said what it waited for"
said trainer "nothing has happened for [5-7] s (trainer.stall_seconds)" "and says why"
