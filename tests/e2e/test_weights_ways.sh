#!/bin/bash
# However new weights travel, whole or as deltas, to one rank or down chains and trees of them, samples are drawn
# with the same bits: two updates of the reference trainer, and every trajectory of the three steps is compared.
# And with a rank killed while they travel, the others get them around it.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

run() {
	local name=$1 ranks=$2; shift 2
	timeout 240 mpirun -n "$ranks" "$DRUMROLL" run configs/quickstart/run.yaml \
		--set run.dir="$TEST_TMP/$name" --set run.steps=3 --set data.eval_prompts= --set trainer.threads=1 \
		--set rollout.group_size=4 --set scheduler.groups_per_step=4 --set scheduler.over_sampling=1 \
		--set scheduler.partial_rollouts=false --set advantage.drop_degenerate=false --set bridge.chunk_bytes=65536 \
		--set trainer.learning_rate=0.001 "$@" >"$TEST_TMP/$name.log" 2>&1 || { tail -n 5 "$TEST_TMP/$name.log"; return 1; }
	"$DRUMROLL" export "$TEST_TMP/$name" --stable --out "$TEST_TMP/$name.jsonl"
}

same() {
	if [ -s "$TEST_TMP/$1.jsonl" ] && cmp -s "$TEST_TMP/one.jsonl" "$TEST_TMP/$1.jsonl"; then echo "ok $2"
	else echo "not ok $2"; fi
}

run one 2 || { echo "not ok first run"; exit 1; }
lines=$(wc -l <"$TEST_TMP/one.jsonl")
if [ "$lines" -eq 60 ]; then echo "ok 3 steps of 4 groups of 5 samples"; else echo "not ok expected 60 trajectories, found $lines"; fi
run delta 2 --set trainer.push=delta; same delta "deltas"
run chain 4 --set weights.fanout=1; same chain "a chain of three ranks"
run tree 7 --set weights.fanout=2 --set trainer.push=delta; same tree "a tree of six ranks, from deltas"
if [ "$(grep -o '"timing_s/weights_receive":[^,}]*' "$TEST_TMP/tree/metrics.jsonl" | grep -vc ':0\(\.0*\)\?$')" -ge 3 ]; then echo "ok the way is timed"
else echo "not ok the way is timed"; fi

# The first of a chain stops, and all below it would get nothing: the others get the weights around it, and it takes
# them when it is back.  Weights come from a directory, one version per step.
python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip a stopped link, weights as files no Python with msgpack (Debian: python3-msgpack)"; exit 0; fi
timeout 120 mpirun -n 5 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/link" --set run.steps=4 \
	--set data.eval_prompts= --set rollout.group_size=3 --set scheduler.groups_per_step=4 --set trainer.kind=external \
	--set weights.fanout=1 --set weights.watch_dir="$TEST_TMP/versions" --set cluster.silence_seconds=1 \
	--set bridge.chunk_bytes=65536 --set run.stall_seconds=60 >"$TEST_TMP/link.log" 2>&1 &
mpirun=$!
timeout 120 "$python" -B tests/e2e/trainer_by_files.py "$TEST_TMP/link" "$TEST_TMP/versions" configs/quickstart >"$TEST_TMP/link.seen" 2>&1
trainer=$?
wait $mpirun; status=$?
if [ $status -eq 0 ] && [ $trainer -eq 0 ]; then echo "ok weights from a directory, past a rank that is stopped"
else tail -n 5 "$TEST_TMP/link.log" "$TEST_TMP/link.seen"; echo "not ok weights from a directory, past a rank that is stopped ($status, $trainer)"; fi
if grep -q '"event":"lost","rank":1' "$TEST_TMP/link/events.jsonl" && grep -q '"event":"back","rank":1' "$TEST_TMP/link/events.jsonl"; then
	echo "ok which was given up and came back"
else echo "not ok which was given up and came back"; fi
versions=$(grep '"reward/mean"' "$TEST_TMP/link/metrics.jsonl" | sed 's/.*"version":\([0-9]*\).*/\1/' | tr '\n' ' ')
if [ "$versions" = "0 1 2 3 " ]; then echo "ok each step with the version of the one before"
else echo "not ok each step with the version of the one before: $versions"; fi
