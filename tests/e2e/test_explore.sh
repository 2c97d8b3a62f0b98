#!/bin/bash
# Explore mode in a cluster: what is delivered is, bit for bit, what exact mode draws at those seeds, whatever was put
# aside, moved or killed; the choice can be found again from the record; combinations that cannot be are refused.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
Q=configs/quickstart
common=(--set rollout.mode=explore --set explore.pool=20 --set rollout.group_size=5 --set data.eval_prompts= --set data.limit=12
	--set data.shuffle=false --set worker.max_active=7 --set speculation.drafter=combined)

# run NAME RANKS [--set ...]
run() {
	local name=$1 ranks=$2; shift 2
	timeout 200 mpirun -n "$ranks" "$DRUMROLL" run $Q/run.yaml --set run.dir="$TEST_TMP/$name" "${common[@]}" "$@" >"$TEST_TMP/$name.log" 2>&1
	local status=$?
	if [ $status -eq 0 ]; then echo "ok $name ends with status 0"; else tail -n 12 "$TEST_TMP/$name.log"; echo "not ok $name ends with status 0 (found $status)"; exit 1; fi
}

run fixed 3 --set trainer.kind=none --set run.steps=3 --set scheduler.groups_per_step=3 --set scheduler.over_sampling=2 \
	--set explore.chunk=5 --set advantage.drop_degenerate=false
run trained 3 --set run.steps=3 --set scheduler.groups_per_step=3 --set scheduler.over_sampling=2
run program 2 --set trainer.kind=none --set run.steps=1 --set scheduler.groups_per_step=2 --set reward.kind=program \
	--set reward.program="python3 configs/verifiers/arithmetic.py"

# Killed and gone on with: the bytes of the run that was not.
python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip explore resume no Python with msgpack (Debian: python3-msgpack)"
else DRUMROLL_CPU=scalar $python -B tests/e2e/resume_kills.py "$DRUMROLL" "$TEST_TMP/kills" none "${DRUMROLL_KILLS:-1}" 7 \
	--set rollout.mode=explore --set explore.pool=20 --set scheduler.over_sampling=1
fi

python3 - "$DRUMROLL" "$TEST_TMP" <<'PY'
import json, subprocess, sys
drumroll, tmp = sys.argv[1:]

def check(name, condition, found=""):
    print(("ok " if condition else "not ok ") + name + ("" if condition else f": found {found}"))

def rows(run):
    out = subprocess.run([drumroll, "export", f"{tmp}/{run}"], capture_output=True, text=True, check=True).stdout
    return [r for r in map(json.loads, out.splitlines()) if not r["eval"]]

def metrics(run):
    return [m for m in map(json.loads, open(f"{tmp}/{run}/metrics.jsonl")) if "reward/mean" in m]

exact = {}
first = open("configs/quickstart/prompts.jsonl").read().splitlines()[:12]
open(f"{tmp}/prompts.jsonl", "w").write("\n".join(first) + "\n")
subprocess.run([drumroll, "generate", "--model", "configs/quickstart", "--prompts", f"{tmp}/prompts.jsonl", "--mode", "exact",
                "--samples", "20", "--max-tokens", "128", "--out", f"{tmp}/exact.jsonl"], check=True, capture_output=True)
for line in open(f"{tmp}/exact.jsonl"):
    d = json.loads(line)
    exact[d["prompt_id"], d["sample"]] = d

def note(r):
    return r["meta"]["explore"] if isinstance(r["meta"], dict) else json.loads(r["meta"])["explore"]

def chosen(pool, keep):
    order = sorted(pool, key=lambda r: (-r["reward"], r["sample"]))
    return order if len(order) <= keep else order[:(keep + 1) // 2] + order[len(order) - keep // 2:]

def check_run(run, n_delivered):
    all_rows = rows(run)
    delivered = [r for r in all_rows if r["state"] == "delivered"]
    check(f"{run}: {n_delivered} samples are delivered", len(delivered) == n_delivered, len(delivered))
    check(f"{run}: the target drew them all", {s["mode"] for r in delivered for s in r["segments"]} <= {1})
    wrong = compared = 0
    for r in delivered:
        x, n = exact[r["prompt_id"], note(r)["sample"]], r["n_prompt"]
        if r["epoch"] or any(v > 0 for v in r["versions"]): continue
        compared += 1
        wrong += r["tokens"][n:] != x["tokens"] or r["logprobs"][n:] != x["logprobs"] or r["finish_reason"] != x["finish_reason"]
    check(f"{run}: the bits of exact mode", wrong == 0 and compared >= 12, (wrong, compared))
    groups = {r["group_id"] for r in delivered}
    bad = 0
    for g in groups:
        pool = [r for r in all_rows if r["group_id"] == g and r["sample"] < 20]
        again = sorted((r for r in delivered if r["group_id"] == g), key=lambda r: r["sample"])
        bad += len(pool) != 20 or any(r["state"] != "dropped" for r in pool)
        if any(r["reward"] is None for r in pool): continue
        expected = chosen(pool, 6)
        bad += [note(r)["sample"] for r in again] != [r["sample"] for r in expected]
        for r, p in zip(again, expected):
            k = note(r)
            bad += k["pool"] != 20 or k["explored_reward"] != p["reward"] or k["reward"] != r["reward"]
            a, b = p["tokens"][p["n_prompt"]:], r["tokens"][r["n_prompt"]:]
            same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None if len(a) == len(b) else min(len(a), len(b)))
            bad += k["divergence"] != same
    check(f"{run}: the choice, found again from the record", bad == 0, bad)

check_run("fixed", 3 * 3 * 6)
check_run("program", 1 * 2 * 6)
check_run("trained", 3 * 3 * 6)
m = metrics("fixed")
check("rank fidelity is told", all(0.5 < s["explore/spearman"] <= 1 for s in m), [s.get("explore/spearman") for s in m])
check("samples were put aside", sum(s["partial/put_aside"] for s in m) > 0, [s["partial/put_aside"] for s in m])
check("every step was trained", [s.get("trainer/grad_norm", 0) > 0 for s in metrics("trained")] == [True] * 3)
PY

# refuse NAME TEXT [--set ...]
refuse() {
	local name=$1 text=$2; shift 2
	if timeout 60 "$DRUMROLL" run $Q/run.yaml --set run.dir="$TEST_TMP/refused" "${common[@]}" "$@" >"$TEST_TMP/out" 2>&1; then echo "not ok $name is refused: it ran"
	elif grep -qE "$text" "$TEST_TMP/out"; then echo "ok $name is refused"
	else head -n 3 "$TEST_TMP/out"; echo "not ok $name is refused"; fi
}
refuse "maximal coupling" "coupling is maximal: the target follows" --set speculation.coupling=maximal
refuse "a pool that is too small" "explore.pool is 5, but 6 samples" --set explore.pool=5
refuse "no verifier" "chosen by their rewards before the trainer" --set reward.kind=none --set trainer.kind=external
refuse "greedy sampling" "all samples of a pool would be the same" --set rollout.temperature=0
refuse "a trainer's prompts" "says itself how many samples" --set data.source=both --set trainer.kind=external
refuse "kept keys and values" "scheduler.kv is keep" --set scheduler.kv=keep
refuse "a second stage of its own" "allocation.kind" --set allocation.kind=dars_et
