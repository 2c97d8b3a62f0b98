#!/bin/bash
# The whole loop, small: mpirun cluster, reference trainer, three steps; what the run directory says.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

timeout 280 mpirun -n 3 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/run" --set run.steps=4 \
	--set rollout.group_size=4 --set scheduler.groups_per_step=6 --set scheduler.over_sampling=2 \
	--set worker.max_active=6 --set eval.limit=16 >"$TEST_TMP/log" 2>&1
status=$?
if [ $status -eq 0 ]; then echo "ok run ends with status 0"; else tail -n 20 "$TEST_TMP/log" "$TEST_TMP/run/trainer.log"; echo "not ok run ends with status 0 (found $status)"; exit 1; fi
if [ "$(tail -n 1 "$TEST_TMP/log")" = "run directory: $TEST_TMP/run" ]; then echo "ok last line names the run directory"
else tail -n 1 "$TEST_TMP/log"; echo "not ok last line names the run directory"; fi

python3 - "$TEST_TMP/run" "$DRUMROLL" <<'PY'
import json, sqlite3, subprocess, sys
run, drumroll = sys.argv[1:]

def check(name, condition, found=""):
    print(("ok " if condition else "not ok ") + name + ("" if condition else f": found {found}"))

summary = json.load(open(run + "/summary.json"))
keys = ["pass_rate_start", "pass_rate_end", "steps", "seconds", "tokens_per_sec", "acceptance", "trajectories", "partials_resumed"]
check("summary.json has its keys", all(isinstance(summary.get(k), (int, float)) for k in keys), summary)
check("the run finished", summary["status"] == "finished", summary["status"])
check("all steps were made", summary["steps"] == 4, summary["steps"])
check("drafts were accepted", summary["acceptance"] > 0.3, summary["acceptance"])
check("partials were resumed", summary["partials_resumed"] > 0, summary["partials_resumed"])

metrics = [json.loads(line) for line in open(run + "/metrics.jsonl")]
steps = [m for m in metrics if "reward/mean" in m]
check("one line of metrics a step", [m["step"] for m in steps] == [1, 2, 3, 4], steps)
check("every step was trained", all(m.get("trainer/grad_norm", 0) > 0 for m in steps), steps)
check("every step made a version", [m["version"] for m in steps] == [0, 1, 2, 3], [m["version"] for m in steps])
check("two evaluations", sum("eval/pass_rate" in m for m in metrics) == 2, metrics)

db = sqlite3.connect(f"file:{run}/drumroll.db?mode=ro", uri=True)
acked = db.execute("select count(*) from deliveries where acked_at is not null").fetchone() if any(
    c[1] == "acked_at" for c in db.execute("pragma table_info(deliveries)")) else db.execute(
    "select count(*) from deliveries where acked <> 0").fetchone()
check("every batch was acknowledged", acked[0] == 4, acked)

out = subprocess.run([drumroll, "export", run], capture_output=True, text=True, check=True).stdout
rows = [json.loads(line) for line in out.splitlines()]
delivered = [r for r in rows if r["state"] == "delivered" and not r["eval"]]
check("4 batches of 6 groups of 5", len(delivered) == 120, len(delivered))
check("no trajectory twice", len({r["id"] for r in rows}) == len(rows))
check("pivots are out of the loss", all(r["loss_weight"] == 0 for r in delivered if r["pivot"]))
versions = {v for r in delivered for v in r["versions"]} - {-1}
check("tokens of several versions", len(versions) >= 3, versions)
mixed = [r for r in delivered if len({v for v in r["versions"] if v >= 0}) > 1]
check("resumed samples carry several versions", all(len(r["segments"]) > 1 for r in mixed) and mixed, len(mixed))
PY
