#!/bin/bash
# DARS on the quickstart model with fixed weights: second stages are what the rule and the step's budget say, they depend
# on no timing, their samples are those that a larger group would have had, and a killed run goes on with them.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
Q=configs/quickstart

# run NAME RANKS [--set ...]
run() {
	local name=$1 ranks=$2; shift 2
	timeout 240 mpirun -n "$ranks" "$DRUMROLL" run $Q/run.yaml --set run.dir="$TEST_TMP/$name" --set run.steps=4 --set trainer.kind=none \
		--set data.eval_prompts= --set advantage.estimator=grpo --set scheduler.groups_per_step=6 "$@" \
		>"$TEST_TMP/$name.log" 2>&1 || { tail -n 5 "$TEST_TMP/$name.log"; echo "not ok $name runs"; return; }
	"$DRUMROLL" export "$TEST_TMP/$name" --stable --out "$TEST_TMP/$name.jsonl"
}

# holds NAME TEXT EXPRESSION [BUDGET]: over `groups`, {id: samples in order}, `lines` of metrics and `larger`, all samples of
# the run with larger groups by (prompt, epoch, sample)
holds() {
	if python3 - "$TEST_TMP" "$1" "$3" "${4:-0}" <<'PY'
import collections, json, math, os, sys
def read(name):
    path = f"{sys.argv[1]}/{name}.jsonl"
    return [json.loads(line) for line in open(path)] if os.path.exists(path) else []
N, N_MAX, BUDGET = 8, 24, int(sys.argv[4])
key = lambda r: (r["prompt_id"], r["epoch"], r["sample"])
larger = {key(r): r for r in read("larger")}
rows = read(sys.argv[2])
groups = collections.defaultdict(list)
for r in sorted(rows, key=lambda r: r["id"]): groups[r["group_id"]].append(r)
delivered = {g: s for g, s in groups.items() if all(r["state"] == "delivered" for r in s)}
lines = [json.loads(line) for line in open(f"{sys.argv[1]}/{sys.argv[2]}/metrics.jsonl")]
right = lambda s: sum(r["reward_answer"] for r in s)
def wanted(samples):  # equal treatment, divided by the standard deviation
    a = right(samples[:N]) / N or 0.5 / N
    s = 2 * math.sqrt(a * (1 - a))
    return min(math.ceil((N - N * s) / s - 1e-9), N_MAX - N) if a < 0.5 else 0
added = lambda s: len(s) - N
def decision(s): return (s[0]["meta"] or {}).get("allocation")
def recorded(s): return all(decision([r]) == ({"rule": "dars_et", "first": N, "accuracy": right(s[:N]) / N, "wanted": wanted(s),
                                               "added": added(s)} if added(s) else None) for r in s)
def in_order():  # over_sampling 1: a step's groups are the next ones, and older ones are served first
    left, n = BUDGET, 0
    for g in sorted(groups):
        if added(groups[g]) != min(wanted(groups[g]), left): return False
        left -= added(groups[g])
        n += groups[g][0]["state"] == "delivered"
        if n % 6 == 0 and groups[g][0]["state"] == "delivered": left = BUDGET
    return True
if not eval(sys.argv[3]):
    print({g: (len(s), right(s[:N]), right(s), wanted(s), s[0]["state"], decision(s)) for g, s in groups.items()})
    sys.exit(1)
PY
	then echo "ok $2"; else echo "not ok $2"; fi
}
same() { if [ -s "$TEST_TMP/$1.jsonl" ] && cmp -s "$TEST_TMP/$1.jsonl" "$TEST_TMP/$2.jsonl"; then echo "ok $3"; else echo "not ok $3"; fi; }

et=(--set allocation.kind=dars_et --set allocation.n_max=24)
run larger 3 --set rollout.group_size=24 --set scheduler.over_sampling=1 --set scheduler.groups_per_step=12 --set advantage.drop_degenerate=false
run free 3 "${et[@]}" --set scheduler.over_sampling=2 --set worker.max_active=24
holds free "every group gets what the rule says" 'len(delivered) == 24 and all(added(s) == wanted(s) for s in delivered.values()) and len({len(s) for s in groups.values()}) > 3'
holds free "what was decided is on record, and the group's size" 'all(recorded(s) and {r["group_size"] for r in s} == {len(s)} for s in delivered.values())'
holds free "members are the first ones of a larger group, token for token" \
	'sum(key(r) in larger for r in rows) > 200 and all(r["tokens"] == larger[key(r)]["tokens"] and r["seed"] == larger[key(r)]["seed"] for r in rows if key(r) in larger and r["state"] == "delivered")'
holds free "advantages are of the whole group" 'all(abs(sum(r["advantage"] for r in s)) < 1e-3 and all(r["loss_weight"] == 1 for r in s) for s in delivered.values())'
holds free "partials, too, and the metrics count it" \
	'sum(l["partial/resumed"] for l in lines) > 5 and sum(l.get("allocation/added_samples", 0) for l in lines) >= sum(added(s) for s in delivered.values()) > 20'
budget=("${et[@]}" --set allocation.budget=7 --set scheduler.over_sampling=1)
run budget 2 "${budget[@]}" --set rollout.mode=exact
holds budget "no step adds more than its budget, and older groups come first" 'in_order() and sum(added(s) for s in groups.values()) > 20' 7
run timing 4 "${budget[@]}" --set worker.max_active=3 --set speculation.draft_length=3 --set scheduler.order=longest
same timing budget "ranks, drafts, order and timing change nothing of it"
run length 3 --set reward.kind=length --set reward.length_target=20 --set reward.length_slack=16 --set allocation.kind=dars_hw --set allocation.n_max=16
holds length "graded rewards: the mean stands for the share" 'all(len(s) <= 16 for s in groups.values()) and any(len(s) > 8 for s in groups.values())'

run async 3 "${et[@]}" --set trainer.kind=simulated --set scheduler.asynchrony=async --set scheduler.max_staleness=2
holds async "beside training, the same rule" 'len(delivered) == 24 and all(added(s) == wanted(s) for s in delivered.values()) and sum(added(s) for s in delivered.values()) > 20'
run one_step_off 3 "${et[@]}" --set trainer.kind=simulated --set scheduler.asynchrony=one_step_off --set allocation.budget=5
holds one_step_off "one step off, within the budget" 'len(delivered) == 24 and all(l.get("allocation/added_samples", 0) <= 5 for l in lines) and sum(added(s) for s in groups.values()) > 5'

run program 3 "${budget[@]}" --set reward.kind=program --set reward.program="python3 configs/verifiers/arithmetic.py"
holds program "verdicts that come late: the same groups" 'in_order() and len(delivered) == 24 and sum(added(s) for s in groups.values()) > 20' 7

# Killed in the middle of second stages.
python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip killed runs no Python with msgpack (Debian: python3-msgpack)"
else
	DRUMROLL_CPU=scalar $python -B tests/e2e/resume_kills.py "$DRUMROLL" "$TEST_TMP/kills" fixed 2 5 --set scheduler.over_sampling=1 \
		--set advantage.estimator=grpo --set allocation.kind=dars_hw --set allocation.n_max=20 --set allocation.budget=24
fi

# refuse NAME TEXT [--set ...]: before anything starts
refuse() {
	local name=$1 text=$2; shift 2
	if timeout 60 mpirun -n 2 "$DRUMROLL" run $Q/run.yaml --set run.dir="$TEST_TMP/none" --set trainer.kind=none --set advantage.estimator=grpo \
		"${et[@]}" "$@" >"$TEST_TMP/out" 2>&1; then echo "not ok $name is refused: it ran"
	elif grep -qE "$text" "$TEST_TMP/out" && [ ! -e "$TEST_TMP/none" ]; then echo "ok $name is refused"
	else head -n 3 "$TEST_TMP/out"; echo "not ok $name is refused"; fi
}
refuse "a median baseline" "compares with the median" --set advantage.estimator=mc_grpo
refuse "a MAD scale" "advantage.scale is mad" --set advantage.scale=mad
refuse "no room" "allocation.n_max is 8" --set allocation.n_max=8
refuse "no rewards" "reward.kind is none" --set reward.kind=none
refuse "one sample again and again" "temperature is 0" --set rollout.temperature=0
