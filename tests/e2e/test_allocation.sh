#!/bin/bash
# The n-th allocation fails: the command says so and fails, or does not need it and gives what it always gives; it never
# dies of a signal but of its own abort, and a run that did not begin leaves no directory.
# ALLOCATION_ALL=1 tries every n, which takes an hour; else the first ones and then ever fewer.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
if [ "${VARIANT:-release}" != release ]; then echo "skip allocation failures the sanitizers have an allocator of their own"; exit 0; fi
gcc -shared -fPIC -O1 -o "$TEST_TMP/fail_malloc.so" tests/e2e/fail_malloc.c -ldl || { echo "not ok it compiles"; exit 1; }

# numbers N FIRST RATIO: 1 to FIRST, then each RATIO/100 of the one before
numbers() {
	local n=1
	while [ "$n" -le "$1" ]; do
		echo "$n"
		if [ -n "${ALLOCATION_ALL:-}" ] || [ "$n" -lt "$2" ]; then n=$((n + 1)); else n=$((n * $3 / 100 + 1)); fi
	done
}

# attempt NAME N COMMAND...: its status and output; a verdict on standard output where something is wrong
attempt() {
	local name=$1 n=$2 status; shift 2
	env LD_PRELOAD="$TEST_TMP/fail_malloc.so" FAIL_MALLOC="$n" timeout -k 5 120 "$@" >"$TEST_TMP/$name.out" 2>"$TEST_TMP/$name.err"
	status=$?
	case $status in
	0) cmp -s "$TEST_TMP/$name.out" "$TEST_TMP/$name.reference" || echo "$n: status 0, but another output" ;;
	124 | 137) echo "$n: hangs" ;;
	134 | 1 | 2) grep -qE '^(drumroll|refused)' "$TEST_TMP/$name.err" "$TEST_TMP/$name.out" -h || echo "$n: status $status without a message: $(tail -n 1 "$TEST_TMP/$name.err")" ;;
	*) echo "$n: status $status: $(tail -n 1 "$TEST_TMP/$name.err")" ;;
	esac
}

# try NAME FIRST RATIO COMMAND...
try() {
	local name=$1 first=$2 ratio=$3 total failed=0 n=0; shift 3
	"$@" >"$TEST_TMP/$name.reference" 2>/dev/null || { echo "not ok $name works at all"; return; }
	FAIL_MALLOC=0 FAIL_MALLOC_COUNT=$TEST_TMP/$name.count LD_PRELOAD=$TEST_TMP/fail_malloc.so "$@" >/dev/null 2>&1
	total=$(cat "$TEST_TMP/$name.count")
	for k in $(numbers "$total" "$first" "$ratio"); do
		n=$((n + 1))
		attempt "$name" "$k" "$@" >"$TEST_TMP/$name.verdict"
		[ ! -s "$TEST_TMP/$name.verdict" ] || { cat "$TEST_TMP/$name.verdict"; failed=$((failed + 1)); }
	done
	if [ $failed = 0 ] && [ $n -gt 10 ]; then echo "ok $name: $n of $total allocations"; else echo "not ok $name: $failed of $n failed badly"; fi
}

printf '%s\n' '{"prompt":"1+2=\n","answer":"3","steps":["1+2=3"]}' '{"prompt":"4+5=\n","answer":"9","steps":["4+5=9"]}' >"$TEST_TMP/prompts.jsonl"
try config 30 130 "$DRUMROLL" config --default
try load 30 130 "$DRUMROLL" config configs/quickstart/run.yaml
try inspect 20 130 "$DRUMROLL" inspect configs/quickstart
try generate 20 130 "$DRUMROLL" generate --model configs/quickstart --max-tokens 4 --prompts "$TEST_TMP/prompts.jsonl"

# A run: its output has times in it, and its directory must go with it.
try_run() {
	local total failed=0 n=0 dir=$TEST_TMP/run
	local command=(mpirun -n 2 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$dir" --set run.steps=1 --set trainer.kind=none
		--set data.prompts="$TEST_TMP/prompts.jsonl" --set data.eval_prompts= --set rollout.max_tokens=4 --set rollout.group_size=2
		--set advantage.drop_degenerate=false --set scheduler.groups_per_step=1 --set worker.kv_memory_mb=8)
	export FAIL_MALLOC_LIBC=0
	FAIL_MALLOC=0 FAIL_MALLOC_COUNT=$TEST_TMP/run.count LD_PRELOAD=$TEST_TMP/fail_malloc.so "${command[@]}" >/dev/null 2>"$TEST_TMP/run.err" ||
		{ cat "$TEST_TMP/run.err"; echo "not ok a run works at all"; return; }
	total=$(cat "$TEST_TMP/run.count"); rm -r "$dir"
	for k in $(numbers "$total" 8 140); do
		n=$((n + 1))
		env LD_PRELOAD="$TEST_TMP/fail_malloc.so" FAIL_MALLOC="$k" timeout -k 5 120 "${command[@]}" >"$TEST_TMP/run.out" 2>"$TEST_TMP/run.err"
		local status=$?
		if [ $status = 0 ]; then
			[ -s "$dir/summary.json" ] || { echo "$k: status 0 and no summary"; failed=$((failed + 1)); }
		elif [ $status = 124 ] || [ $status = 137 ] || ! grep -q drumroll "$TEST_TMP/run.err" || grep -qi 'segmentation' "$TEST_TMP/run.err"; then
			echo "$k: status $status: $(tail -n 3 "$TEST_TMP/run.err")"; failed=$((failed + 1))
		elif ! grep -q 'worker' "$TEST_TMP/run.out" && [ -e "$dir" ]; then
			echo "$k: status $status and half a run directory: $(ls "$dir")"; failed=$((failed + 1))
		fi
		rm -rf "$dir"
	done
	if [ $failed = 0 ] && [ $n -gt 10 ]; then echo "ok run: $n of $total allocations, on all ranks alike"; else echo "not ok run: $failed of $n failed badly"; fi
}
[ -n "${SKIP_RUN:-}" ] || try_run
