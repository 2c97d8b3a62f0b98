#!/bin/bash
# Generation beside training: each mode of scheduler.asynchrony on the quickstart model, with the ages it promises, and
# whether what was in flight when weights changed is what its segments say it is.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

# run NAME RANKS [--set ...]
run() {
	local name=$1 ranks=$2; shift 2
	timeout 120 mpirun -n "$ranks" "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/$name" \
		--set data.eval_prompts= --set rollout.group_size=4 --set scheduler.groups_per_step=6 \
		--set worker.max_active=8 --set scheduler.rank_backlog=2 "$@" >"$TEST_TMP/$name.log" 2>&1
	local status=$?
	if [ $status -ne 0 ]; then tail -n 5 "$TEST_TMP/$name.log"; echo "not ok $name: the run ends with $status"; return 1; fi
	"$DRUMROLL" export "$TEST_TMP/$name" --out "$TEST_TMP/$name.jsonl"
}

# judge NAME TEXT CONDITION: over the metrics of steps, m, and what was delivered, d
judge() {
	if python3 - "$TEST_TMP/$1" "$3" <<'PY'
import json, sys
run, condition = sys.argv[1:]
m = [x for x in map(json.loads, open(run + "/metrics.jsonl")) if "reward/mean" in x]
rows = [json.loads(line) for line in open(run + ".jsonl")]
d = [r for r in rows if r["state"] == "delivered" and not r["eval"]]
for r in rows:
    r["response"] = r["versions"][r["n_prompt"]:]
    r["lag"] = max([r["staleness_max"]], default=0)
ok = eval("(" + condition + ")")
if not ok:
    print([(x["step"], x["version"], x["staleness/mean"], x["staleness/max"], x["staleness/masked_tokens"],
            x["staleness/dropped_groups"]) for x in m], len(d))
sys.exit(not ok)
PY
	then echo "ok $1: $2"; else echo "not ok $1: $2"; fi
}

complete='[x["step"] for x in m] == list(range(1, 7)) and len(d) == 6 * 6 * 5 and all("trainer/loss" in x for x in m)'
async="--set scheduler.asynchrony=async"

run one_step_off 3 --set run.steps=6 --set scheduler.asynchrony=one_step_off --set scheduler.max_staleness=1 && {
	judge one_step_off "all steps, batches and reports" "$complete"
	judge one_step_off "everything is one version old but the first batch" \
		'[(x["version"], x["staleness/mean"], x["staleness/max"]) for x in m] ==
			[(0, 0, 0)] + [(i, 1, 1) for i in range(1, 6)] and all(r["staleness_min"] == r["staleness_max"] for r in d)'; }
run async 3 --set run.steps=6 $async --set scheduler.max_staleness=2 --set scheduler.over_sampling=3 && {
	judge async "all steps, batches and reports" "$complete"
	judge async "nothing is older than max_staleness, something is old" '0 < max(x["staleness/max"] for x in m) <= 2'
	judge async "nothing is put aside" 'all(x["partial/put_aside"] == 0 for x in m)'; }
run evaluated 3 --set run.steps=6 $async --set data.eval_prompts=configs/quickstart/heldout.jsonl --set eval.limit=12 \
	--set eval.every=2 && {
	judge evaluated "all steps, batches and reports around evaluations" "$complete"
	judge evaluated "evaluations draw under one version" 'all(len(set(r["response"])) == 1 for r in rows if r["eval"])
		and len([r for r in rows if r["eval"]]) == 4 * 12'; }
run mask 3 --set run.steps=6 $async --set scheduler.max_staleness=1 --set scheduler.over_sampling=4 \
	--set scheduler.stale_action=mask && {
	judge mask "all steps, batches and reports" "$complete"
	judge mask "exactly the tokens that lag more than max_staleness are out of the loss, and counted" \
		'all(mask == (step - 1 - v <= 1) for r in d for step in [r["staleness_max"] + min(r["response"]) + 1]
		     for mask, v in zip(r["loss_mask"][r["n_prompt"]:], r["response"]))
		 and sum(x["staleness/masked_tokens"] for x in m) == sum(r["loss_mask"][r["n_prompt"]:].count(0) for r in d)'; }
run drop 3 --set run.steps=6 --set scheduler.stale_action=drop --set scheduler.max_staleness=0 \
	--set scheduler.over_sampling=3 && {
	judge drop "all steps, batches and reports" "$complete"
	judge drop "what was begun under another version is given up and counted" \
		'all(x["staleness/max"] == 0 for x in m) and sum(x["staleness/dropped_groups"] for x in m) > 0
		 and not any(r["state"] == "dropped" and r["id"] in {s["id"] for s in d} for r in rows)'; }

# What contradicts itself is refused before anything starts.
refuse() {
	local text=$1 name=$2; shift 2
	if mpirun -n 2 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/refused" "$@" 2>&1 | grep -q "$text"
	then echo "ok $name is refused"; else echo "not ok $name is refused"; fi
}
refuse "max_staleness is 0" "asynchrony with max_staleness 0" $async --set scheduler.max_staleness=0
refuse "scheduler.kv is keep" "kv keep in quantized mode" --set scheduler.kv=keep --set rollout.mode=quantized

# Two models take turns under slow generation (scalar kernels); `drumroll score` gives the log-probabilities anew.
slow=scalar
[ "${VARIANT:-release}" = release ] || slow=${DRUMROLL_CPU:-} # slow enough
python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack, numpy' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip new weights in flight no Python with msgpack (Debian: python3-msgpack)"; exit 0; fi
# served NAME VERSIONS_PER_BATCH [--set ...]
served() {
	local name=$1 versions=$2; shift 2
	DRUMROLL_CPU=$slow run "$name" 3 --set trainer.kind=external $async --set worker.max_active=16 \
		--set rollout.max_tokens=64 --set run.stall_seconds=60 "$@" &
	for _ in $(seq 100); do [ -S "$TEST_TMP/$name/bridge.sock" ] && break; sleep 0.1; done
	timeout 100 $python -B tests/e2e/alternating_trainer.py "unix:$TEST_TMP/$name/bridge.sock" configs/quickstart \
		"$TEST_TMP/$name.other" "$versions" >"$TEST_TMP/$name.trainer" 2>&1 ||
		{ cat "$TEST_TMP/$name.trainer"; echo "not ok $name: the trainer ends well"; }
	wait
}
turns() {
	local name=$1; shift
	served "$name" 1 --set run.steps=4 "$@"
	$python - "$TEST_TMP/$name" "$DRUMROLL" <<'PY'
import json, subprocess, sys
name, drumroll = sys.argv[1:]
rows = [r for r in map(json.loads, open(name + ".jsonl")) if len(r["segments"]) > 0]
with open(name + ".score", "w") as f:
    for r in rows:
        print(json.dumps({"prompt_tokens": r["tokens"][:r["n_prompt"]], "tokens": r["tokens"][r["n_prompt"]:]}), file=f)
scores = []
for model in ("configs/quickstart", name + ".other"):
    command = [drumroll, "score", "--model", model, "--in", name + ".score"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    scores.append([json.loads(line)["logprobs"] for line in out.stdout.splitlines()])
same = {True: [0, 0], False: [0, 0]}  # by KEPT: tokens that differ, that are equal
for i, r in enumerate(rows):
    for s in r["segments"]:
        for at in range(s["start"], s["start"] + s["length"]):
            equal = scores[s["version"] % 2][i][at - r["n_prompt"]] == r["logprobs"][at]
            same[s["mode"] >= 16][equal] += 1
mixed = sum(len(set(r["versions"][r["n_prompt"]:])) > 1 for r in rows)
kept = name.endswith("keep")
case = name.split("/")[-1]
def say(good, text):
    print(("ok " if good else "not ok ") + case + ": " + text)
say(mixed >= 10, f"samples of several versions ({mixed} of {len(rows)})")
say(same[False][0] == 0 and same[False][1] > 1000,
    "segments have the log-probabilities of their version, to the bit" + (" where not marked" if kept else ""))
if kept:
    say(same[True][0] > 0, f"tokens over kept keys and values are marked and differ ({same[True][0]} of {sum(same[True])})")
else:
    say(sum(same[True]) == 0, "nothing is marked")
PY
}
turns recompute
turns keep --set scheduler.kv=keep

# A trainer that makes versions faster than batches: what gets too old in flight is called back.
served expired 3 --set run.steps=4 --set scheduler.stale_action=drop --set scheduler.max_staleness=1 \
	--set scheduler.over_sampling=2
judge expired "groups that get too old in flight are called back and given up, none is delivered" \
	'len(m) == 4 and sum(x["staleness/cancelled_samples"] for x in m) > 0
	 and sum(x["staleness/dropped_groups"] for x in m) > 0 and max(x["staleness/max"] for x in m) <= 1'

python3 -B tests/e2e/version_on_record.py "$DRUMROLL" "$TEST_TMP/on_record"
case $? in
0) echo "ok a version's number is on record before it is drawn with" ;;
77) echo "skip a version's number is on record before it is drawn with: the ranks were never apart" ;;
*) tail -n 3 "$TEST_TMP/on_record.log"; echo "not ok a version's number is on record before it is drawn with" ;;
esac
