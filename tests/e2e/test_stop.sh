#!/bin/bash
# Signals and disks: a first SIGINT or SIGTERM puts what is in flight aside, a second stops at once, a full disk stops the
# run; all of them can be resumed, and nothing that was delivered is lost.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
Q=configs/quickstart
slow=scalar

sql() { python3 -c 'import sqlite3, sys; print(sqlite3.connect(f"file:{sys.argv[1]}/drumroll.db?mode=ro", uri=True).execute(sys.argv[2]).fetchone()[0])' "$@"; }
begin() {
	DRUMROLL_CPU=$slow mpirun -n 3 "$DRUMROLL" run $Q/run.yaml --set run.dir="$TEST_TMP/$1" --set run.steps=4 --set trainer.kind=none \
		--set data.eval_prompts= --set scheduler.groups_per_step=4 "${@:2}" >"$TEST_TMP/$1.log" 2>&1 &
	mpirun=$!
	for _ in $(seq 300); do [ -f "$TEST_TMP/$1/drumroll.db" ] && grep -q results "$TEST_TMP/$1.log" && break; sleep 0.1; done
}
# resumed NAME: the run goes on to its end, with each trajectory of 4 batches once
resumed() {
	timeout 200 mpirun -n 3 "$DRUMROLL" run --resume "$TEST_TMP/$1" >"$TEST_TMP/$1.again" 2>&1
	local status=$? n
	n=$("$DRUMROLL" export "$TEST_TMP/$1" | python3 -c '
import json, sys
rows = [r for r in map(json.loads, sys.stdin) if r["state"] == "delivered"]
print(len(rows), len({(r["prompt_id"], r["epoch"], r["sample"]) for r in rows}))')
	if [ $status -eq 0 ] && [ "$n" = "144 144" ]; then echo "ok $1: it is resumed to its end, each trajectory once"
	else tail -n 4 "$TEST_TMP/$1.again"; echo "not ok $1: it is resumed to its end, each trajectory once (status $status, $n)"; fi
}

for signal in INT TERM; do
	begin "$signal"
	sleep 1.5
	kill -$signal $mpirun
	wait $mpirun
	text=$(grep "stopped by signal" "$TEST_TMP/$signal.log")
	if [[ $text == *" 0 as last committed; go on with: mpirun -n 3 drumroll run --resume $TEST_TMP/$signal" ]]; then
		echo "ok SIG$signal: everything in flight is put aside, and the last words say how to go on"
	else tail -n 4 "$TEST_TMP/$signal.log"; echo "not ok SIG$signal: everything in flight is put aside, and the last words say how to go on"; fi
	if [ "$(sql "$TEST_TMP/$signal" 'SELECT count(*) FROM trajectories t JOIN groups g ON g.id = t.group_id WHERE g.state < 2')" -gt 0 ] && grep -q '"status": "stopped"' "$TEST_TMP/$signal/summary.json"
	then echo "ok SIG$signal: what was put aside is in the store"; else echo "not ok SIG$signal: what was put aside is in the store"; fi
	resumed "$signal"
done

begin twice
sleep 1.5
kill -INT $mpirun
kill -INT $mpirun
start=$SECONDS
wait $mpirun
if [ $((SECONDS - start)) -le 5 ]; then echo "ok two signals stop at once"; else echo "not ok two signals stop at once ($((SECONDS - start)) s)"; fi
resumed twice

# A command that writes a file: an interrupted one leaves the file as it was, and nothing beside it.
mkdir "$TEST_TMP/out"
echo before >"$TEST_TMP/out/file"
DRUMROLL_CPU=$slow "$DRUMROLL" generate --model $Q --prompts $Q/prompts.jsonl --samples 50 --out "$TEST_TMP/out/file" 2>/dev/null &
generate=$!
for _ in $(seq 100); do [ "$(ls "$TEST_TMP/out" | wc -l)" -eq 2 ] && break; sleep 0.05; done
kill -TERM $generate
wait $generate
status=$?
if [ $status -eq 143 ] && [ "$(ls "$TEST_TMP/out")" = file ] && [ "$(cat "$TEST_TMP/out/file")" = before ]
then echo "ok an interrupted command leaves no file behind"
else ls "$TEST_TMP/out"; echo "not ok an interrupted command leaves no file behind (status $status)"; fi

# A disk that fills up, then one that cannot be written at all: needs the right to mount.
disk="$TEST_TMP/disk"
mkdir "$disk"
if ! mount -t tmpfs -o size=1m tmpfs "$disk" 2>/dev/null; then echo "skip full disk no right to mount a tmpfs"; exit 0; fi
trap 'umount "$disk"' EXIT
timeout 100 mpirun -n 3 "$DRUMROLL" run $Q/run.yaml --set run.dir="$disk/run" --set run.steps=400 --set trainer.kind=none \
	--set data.eval_prompts= --set scheduler.groups_per_step=4 --set run.commit_seconds=0.1 >"$TEST_TMP/full.log" 2>&1
status=$?
if [ $status -ne 0 ] && [ $status -lt 124 ] && grep -q "the disk is full" "$TEST_TMP/full.log"; then echo "ok a full disk stops the run and says so"
else tail -n 4 "$TEST_TMP/full.log"; echo "not ok a full disk stops the run and says so (status $status)"; fi
mount -o remount,ro "$disk" && timeout 100 mpirun -n 2 "$DRUMROLL" run --resume "$disk/run" >"$TEST_TMP/ro.log" 2>&1
status=$?
if [ $status -eq 1 ] && grep -qE "read-only|Read-only" "$TEST_TMP/ro.log"; then echo "ok a read-only directory is refused"
else tail -n 4 "$TEST_TMP/ro.log"; echo "not ok a read-only directory is refused (status $status)"; fi
mount -o remount,rw,size=40m "$disk"
batches=$(sql "$disk/run" 'SELECT max(step) FROM deliveries')
timeout 100 mpirun -n 3 "$DRUMROLL" run --resume "$disk/run" --set run.steps=$((batches + 3)) >"$TEST_TMP/more.log" 2>&1
status=$?
n=$("$DRUMROLL" export "$disk/run" | python3 -c '
import json, sys
rows = [r for r in map(json.loads, sys.stdin) if r["state"] == "delivered"]
print(len(rows), len({(r["prompt_id"], r["epoch"], r["sample"]) for r in rows}))')
all=$(((batches + 3) * 36))
if [ $status -eq 0 ] && [ "$n" = "$all $all" ]; then echo "ok with room on the disk the run goes on, nothing is lost of $batches batches"
else tail -n 4 "$TEST_TMP/more.log"; echo "not ok with room on the disk the run goes on, nothing is lost of $batches batches (status $status: $n of $all)"; fi
