#!/bin/bash
# `drumroll config` as a person meets it: what it prints, where, and its exit status.
set -u
out=$TEST_TMP/out err=$TEST_TMP/err

# verdict NAME: by the exit status of the command before it
verdict() {
	if [ $? -eq 0 ]; then echo "ok $1"; else echo "not ok $1"; fi
}

# good NAME ARGUMENTS...: succeeds and says nothing on stderr
good() {
	local name=$1
	shift
	"$DRUMROLL" config "$@" >"$out" 2>"$err" && [ ! -s "$err" ]
	verdict "$name"
	cat "$err"
}

# bad NAME PATTERN ARGUMENTS...: exit status 2, nothing on stdout, and a line on stderr that matches
bad() {
	local name=$1 pattern=$2
	shift 2
	"$DRUMROLL" config "$@" >"$out" 2>"$err"
	[ $? -eq 2 ] && [ ! -s "$out" ] && grep -q -e "$pattern" "$err"
	verdict "$name"
	cat "$err"
}

good "prints every option, annotated" --default
grep -q '^  # a number from 0 to 100; default 1$' "$out"
verdict "bounds and default are in the comments"
cp "$out" "$TEST_TMP/default.yaml"

good "loads what it printed" "$TEST_TMP/default.yaml"
plain=$TEST_TMP/plain.yaml
cp "$out" "$plain"
good "loads it again" "$plain"
cmp "$plain" "$out"
verdict "printing is a fixed point"

good "takes --set" "$plain" --set rollout.top_k=7
[ "$(diff "$plain" "$out" | grep '^>')" = '>   top_k: 7' ]
verdict "--set changes one line"

printf 'run:\n  stesp: 3\n' >"$TEST_TMP/typo.yaml"
bad "unknown key" '^drumroll: .*typo.yaml:2: unknown key "run.stesp"; .*"run.steps"' "$TEST_TMP/typo.yaml"
bad "wrong value of --set" '^drumroll: --set: run.steps: expected .* found "x"' "$plain" --set run.steps=x
bad "missing file" '^drumroll: .*none.yaml.*No such file' "$TEST_TMP/none.yaml"
bad "no argument" 'usage: drumroll config'
bad "unknown flag" '^drumroll: unknown option --sets' --sets a.b=c
bad "--set without a value" '^drumroll: --set: expected section.key=value' "$plain" --set
bad "two files" '^drumroll: one config at a time' "$plain" "$plain"

for config in configs/*.yaml configs/*/*.yaml; do
	[ ! -e "$config" ] || good "$config is valid" "$config"
done
