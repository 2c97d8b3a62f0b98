#!/bin/bash
# Dynamic sampling (DAPO): groups whose rewards are all equal are replaced by those of the next prompts, within a budget
# per step, and then what there is is sent.  And groups of two and four under MC-GRPO: one sample more is drawn, the pivot
# is out of the loss, as many as were wanted are in it.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

# run NAME [--set ...]: 6 steps of 8 groups
run() {
	local name=$1; shift
	timeout 240 mpirun -n 3 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/$name" --set run.steps=6 --set trainer.kind=none \
		--set data.eval_prompts= --set scheduler.groups_per_step=8 --set scheduler.over_sampling=1 "$@" \
		>"$TEST_TMP/$name.log" 2>&1 || { tail -n 5 "$TEST_TMP/$name.log"; echo "not ok $name runs"; return; }
	"$DRUMROLL" export "$TEST_TMP/$name" --stable --out "$TEST_TMP/$name.jsonl"
}

# holds NAME TEXT EXPRESSION: over `groups`, lists of samples in order of id; `sent` and `left` among them; `lines` of metrics
holds() {
	if python3 - "$TEST_TMP/$1" "$3" <<'PY'
import collections, json, statistics, sys
by_id = collections.defaultdict(list)
for line in open(sys.argv[1] + ".jsonl"):
    r = json.loads(line)
    if not r["eval"]: by_id[r["group_id"]].append(r)
groups = [by_id[g] for g in sorted(by_id)]
sent = [s for s in groups if s[0]["state"] == "delivered"]
left = [s for s in groups if s[0]["state"] == "dropped"]
lines = [json.loads(line) for line in open(sys.argv[1] + "/metrics.jsonl")]
lines = [l for l in lines if "reward/mean" in l]
drops = [l["rollout/dynamic_filter/drop_groups"] for l in lines]
steps = [sent[i:i + 8] for i in range(0, len(sent), 8)]  # in order of id, as they are delivered
equal = lambda s: len({r["reward"] for r in s}) == 1
def centered(s):  # by hand: median, MAD or the standard deviation where that is 0, floor and clamp of the config
    rewards = [r["reward"] for r in s]
    median = statistics.median_low(rewards)
    mad = statistics.median_low([abs(r - median) for r in rewards])
    scale = max(mad or statistics.stdev(rewards), 0.1)
    pivot = rewards.index(median)
    expected = [0 if equal(s) else max(-5, min(5, (r - median) / scale)) for r in rewards]
    return all(abs(r["advantage"] - e) < 1e-5 and r["pivot"] == (i == pivot) and r["loss_weight"] == (i != pivot)
               for i, (r, e) in enumerate(zip(s, expected)))
if not eval(sys.argv[2]):
    print("dropped", drops, "groups", [(s[0]["group_id"], s[0]["state"], [r["reward"] for r in s]) for s in groups][:20])
    sys.exit(1)
PY
	then echo "ok $2"; else echo "not ok $2"; fi
}

binary=(--set advantage.estimator=grpo --set rollout.group_size=3 --set reward.kind=regex)
run replaced "${binary[@]}" --set advantage.drop_limit=20
holds replaced "all-equal groups are replaced and the batch is whole" \
	'len(sent) == 48 and not any(map(equal, sent)) and len(left) > 12 and all(map(equal, left)) and sum(drops) == len(left)'
holds replaced "by the next prompts in order" '[s[0]["group_id"] for s in groups] == list(range(1, len(groups) + 1)) and len({s[0]["prompt_id"] for s in groups}) == len(groups)'
run limited "${binary[@]}" --set advantage.drop_limit=0.25
holds limited "at most the budget is replaced in a step, then what there is is sent" \
	'len(sent) == 48 and max(drops) == 2 and len(left) == sum(drops) and all(n == 2 for n, step in zip(drops, steps) if any(map(equal, step))) and any(map(equal, sent))'
holds limited "what is sent of it teaches nothing" 'all(r["advantage"] == 0 for s in sent if equal(s) for r in s)'
run none "${binary[@]}" --set advantage.drop_limit=0
holds none "no budget: nothing is replaced" 'len(groups) == 48 and not left and any(map(equal, sent))'
run ahead "${binary[@]}" --set advantage.drop_limit=20 --set scheduler.over_sampling=2 --set scheduler.order=longest
holds ahead "over-sampled, the same" 'len(sent) == 48 and not any(map(equal, sent)) and sum(drops) >= len(left) > 12'

for size in 2 4; do
	run small$size --set rollout.group_size=$size
	holds small$size "$size wanted: $((size + 1)) drawn, the pivot excluded, the others as by hand" \
		"len(sent) == 48 and all(len(s) == $size + 1 == s[0]['group_size'] and sum(r['loss_weight'] for r in s) == $size and centered(s) for s in sent)"
	holds small$size "$size wanted: groups without a signal are replaced" 'not any(map(equal, sent)) and all(map(equal, left))'
done
run trained --set rollout.group_size=2 --set trainer.kind=reference --set trainer.threads=1 --set run.steps=3 --set scheduler.groups_per_step=4
holds trained "the reference trainer learns from two of three" 'len(sent) == 12 and all(l["trainer/grad_norm"] > 0 for l in lines) and len({r["versions"][-1] for s in sent for r in s}) == 3'
