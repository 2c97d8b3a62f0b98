#!/bin/bash
# Training on the quantized copy's samples: the whole loop, small; what travels, and that it is the target's.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

timeout 280 mpirun -n 3 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/run" --set run.steps=3 \
	--set rollout.mode=quantized --set speculation.format=mxfp4 --set rollout.group_size=4 \
	--set scheduler.groups_per_step=6 --set scheduler.over_sampling=2 --set worker.max_active=6 --set trainer.minibatches=2 \
	--set eval.limit=16 >"$TEST_TMP/log" 2>&1
status=$?
if [ $status -eq 0 ]; then echo "ok run ends with status 0"; else tail -n 20 "$TEST_TMP/log" "$TEST_TMP/run/trainer.log"; echo "not ok run ends with status 0 (found $status)"; exit 1; fi

python3 - "$TEST_TMP/run" "$DRUMROLL" "$TEST_TMP" <<'PY'
import json, math, subprocess, sys
run, drumroll, tmp = sys.argv[1:]

def check(name, condition, found=""):
    print(("ok " if condition else "not ok ") + name + ("" if condition else f": found {found}"))

steps = [m for m in map(json.loads, open(run + "/metrics.jsonl")) if "reward/mean" in m]
check("every step was trained", [m.get("trainer/grad_norm", 0) > 0 for m in steps] == [True] * 3, steps)
kl = [m["rollout_corr/k3_kl"] for m in steps]
check("the mismatch is told, and small", all(0 < k < 0.1 for k in kl), kl)
weights = [m["rollout_corr/rollout_is_mean"] for m in steps]
check("importance weights are near 1", all(0.9 < w < 1.1 for w in weights), weights)

out = subprocess.run([drumroll, "export", run], capture_output=True, text=True, check=True).stdout
rows = [json.loads(line) for line in out.splitlines()]
delivered = [r for r in rows if r["state"] == "delivered" and not r["eval"]]
check("3 batches of 6 groups of 5", len(delivered) == 90, len(delivered))
check("every token was rescored", all(len(r["target_logprobs"]) == len(r["tokens"]) and
      all(p is not None and p <= 0 for p in r["target_logprobs"]) for r in delivered))
check("all was drawn in quantized mode", {s["mode"] for r in delivered for s in r["segments"]} == {2})
check("resumed samples carry several versions", any(len({s["version"] for s in r["segments"]}) > 1 for r in delivered))

# What version 0 drew, whether or not its sample went on under others, against drumroll score on the model.
first = [(r, r["segments"][0]) for r in rows if r["segments"] and r["segments"][0]["version"] == 0 and not r["eval"]]
with open(tmp + "/first.jsonl", "w") as f:
    for r, s in first:
        n = r["n_prompt"]
        print(json.dumps({"prompt_tokens": r["tokens"][:n], "tokens": r["tokens"][n:n + s["length"]]}), file=f)
scores = subprocess.run([drumroll, "score", "--model", "configs/quickstart", "--in", tmp + "/first.jsonl"],
                        capture_output=True, text=True, check=True).stdout
same = [json.loads(line)["logprobs"] == r["target_logprobs"][r["n_prompt"]:r["n_prompt"] + s["length"]]
        for (r, s), line in zip(first, scores.splitlines(), strict=True)]
check("target_logprobs of version 0 are the model's scores", len(same) > 30 and all(same), (len(same), sum(same)))
PY
