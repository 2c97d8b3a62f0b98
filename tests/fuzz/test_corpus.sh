#!/bin/bash
# Every input in the corpora through its fuzz target, as `make fuzz` would, without a fuzzer.
set -u
build=$(dirname "$DRUMROLL")
for target in tests/fuzz/fuzz_*.c; do
	name=$(basename "$target" .c) name=${name#fuzz_}
	inputs=(tests/fuzz/"$name"/*)
	if "$build/tests/fuzz/fuzz_$name" "${inputs[@]}" >"$TEST_TMP/out" 2>"$TEST_TMP/err"; then
		echo "ok ${#inputs[@]} inputs of the $name target"
	else
		echo "not ok $(tail -n 1 "$TEST_TMP/out")"
	fi
	cat "$TEST_TMP/err"
done
