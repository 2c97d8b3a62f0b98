#!/bin/bash
# A run whose controller is killed at random moments goes on where it was: each trajectory once, the bytes of an
# undisturbed run.  DRUMROLL_KILLS=50 has that many kills instead of 5 (ten minutes), DRUMROLL_SEED another seed.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
kills=${DRUMROLL_KILLS:-5} seed=${DRUMROLL_SEED:-1}
Q=configs/quickstart
python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip resume no Python with msgpack (Debian: python3-msgpack)"; exit 0; fi
slow=scalar # so that there is something to kill
[ "${VARIANT:-release}" = release ] || slow=${DRUMROLL_CPU:-} # slow enough

# kills SCENARIO PERCENT [--set ...]: that share of the kills, at least one
kills() {
	local scenario=$1 n=$(((kills * $2 + 50) / 100)); shift 2
	DRUMROLL_CPU=$slow $python -B tests/e2e/resume_kills.py "$DRUMROLL" "$TEST_TMP/$scenario$seed" "$scenario" $((n > 0 ? n : 1)) \
		"$seed" "$@"
	seed=$((seed + 1))
}
kills fixed 30 --set scheduler.over_sampling=1
kills moving 30 --set scheduler.over_sampling=2
kills moving 20 --set scheduler.asynchrony=async --set scheduler.max_staleness=2
kills reference 20
kills trainer 20 # beside the others: the run goes on by itself

# What a resume refuses, and what it lets through.  The run ends by itself: going on with it needs more steps.
timeout 100 mpirun -n 3 "$DRUMROLL" run $Q/run.yaml --set run.dir="$TEST_TMP/run" --set run.steps=2 --set rollout.group_size=3 \
	--set scheduler.groups_per_step=3 --set data.eval_prompts= >"$TEST_TMP/log" 2>&1 || tail -n 5 "$TEST_TMP/log"
resume() { timeout 100 mpirun -n "$1" "$DRUMROLL" run --resume "$2" "${@:3}"; }
# refuse NAME TEXT DIR [--set ...]
refuse() {
	local name=$1 text=$2 dir=$3; shift 3
	if resume 2 "$dir" "$@" >"$TEST_TMP/out" 2>&1; then echo "not ok $name is refused: it ran"
	elif grep -qE "$text" "$TEST_TMP/out"; then echo "ok $name is refused"
	else head -n 5 "$TEST_TMP/out"; echo "not ok $name is refused"; fi
}
damaged() { rm -rf "$TEST_TMP/damaged"; cp -r "$TEST_TMP/run" "$TEST_TMP/damaged"; }
refuse "another seed" "run.seed: .*\"1\" and cannot change to \"2\": it is the key" "$TEST_TMP/run" --set run.seed=2
refuse "another temperature" "rollout.temperature.*drawn alike" "$TEST_TMP/run" --set rollout.temperature=0.5
refuse "a directory that is no run" "config.yaml" "$TEST_TMP"
damaged; rm "$TEST_TMP/damaged/drumroll.db"
refuse "a run without its store" "no drumroll.db" "$TEST_TMP/damaged"
damaged; head -c 100 /dev/urandom | dd of="$TEST_TMP/damaged/drumroll.db" bs=1 seek=4096 conv=notrunc 2>/dev/null
refuse "a damaged store" "damaged" "$TEST_TMP/damaged"
damaged; : >"$TEST_TMP/damaged/drumroll.db"
refuse "an empty store" "empty" "$TEST_TMP/damaged"
damaged; rm -r "$TEST_TMP/damaged/weights/version-2"
refuse "missing weights" "version 2, whose weights must be in .*version-2" "$TEST_TMP/damaged"
damaged; printf x | dd of="$TEST_TMP/damaged/weights/version-2/model.safetensors" bs=1 seek=100000 conv=notrunc 2>/dev/null
refuse "damaged weights" "not what the run wrote" "$TEST_TMP/damaged" --set run.steps=3
damaged; printf x | dd of="$TEST_TMP/damaged/trainer.ckpt" bs=1 seek=100000 conv=notrunc 2>/dev/null
refuse "a damaged checkpoint of the trainer" "reference trainer ended with status 1.*trainer.log" "$TEST_TMP/damaged" --set run.steps=3
head -n 20 $Q/prompts.jsonl | tac >"$TEST_TMP/prompts.jsonl"
refuse "other prompts" "data.prompts: .*cannot change" "$TEST_TMP/damaged" --set data.prompts="$TEST_TMP/prompts.jsonl"

if resume 2 "$TEST_TMP/run" --set run.steps=4 --set worker.max_active=4 --set speculation.drafter=suffix >"$TEST_TMP/out" 2>&1
then echo "ok a run that is over goes on with more steps, another number of ranks and other drafters"
else tail -n 5 "$TEST_TMP/out"; echo "not ok a run that is over goes on with more steps, another number of ranks and other drafters"; fi
if [ "$(grep -c '"trainer/loss"' "$TEST_TMP/run/metrics.jsonl")" -eq 4 ] && [ -d "$TEST_TMP/run/weights/version-4" ]
then echo "ok steps, reports and versions go on"
else echo "not ok steps, reports and versions go on"; fi
if "$DRUMROLL" generate --model "$TEST_TMP/run/weights/version-4" --prompts "$TEST_TMP/prompts.jsonl" --max-tokens 4 >/dev/null 2>&1
then echo "ok kept weights are a model directory"; else echo "not ok kept weights are a model directory"; fi
