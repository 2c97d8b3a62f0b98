#!/bin/bash
# A real run with partials and new weights is drawn again with other modes, ranks and threads: equal; one bit of one
# log-probability is changed: found and named; its batches are served to the reference trainer, which makes the same
# weights of them, and to a trainer in Python; NumPy reads what is exported.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
run=$TEST_TMP/run

ok() { # ok STATUS NAME LOG
	if [ "$1" -eq 0 ]; then echo "ok $2"; else tail -n 8 "$3"; echo "not ok $2"; fi
}

timeout 280 mpirun -n 3 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$run" --set run.steps=3 \
	--set rollout.group_size=4 --set scheduler.groups_per_step=6 --set scheduler.over_sampling=2 --set worker.max_active=6 \
	--set eval.limit=16 --set weights.keep_versions=8 >"$TEST_TMP/log" 2>&1
status=$?
ok $status "the run ends with status 0" "$TEST_TMP/log"
[ $status -eq 0 ] || exit 1

# says FILE EXPRESSION: of the object r that --json wrote
says() { python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$1" "$2"; }

everything='r["all_equal"] and r["tokens_replayed"] == r["tokens"] > 500 and r["replayed"] > 100 and r["rewards"] > 80'
again() { # again NAME COMMAND...
	local name=$1; shift
	timeout 120 "$@" --json >"$TEST_TMP/$name.json" 2>"$TEST_TMP/$name.log" && says "$TEST_TMP/$name.json" "$everything"
	ok $? "drawn again equal: $name" "$TEST_TMP/$name.log"
}
again "as-recorded-alone" "$DRUMROLL" replay "$run" --threads 1
again "exact-2-ranks" mpirun -n 2 "$DRUMROLL" replay "$run" --mode exact --threads 1
again "speculative-3-ranks-2-threads" mpirun -n 3 "$DRUMROLL" replay "$run" --mode speculative --drafter suffix --draft-length 5 --threads 2
says "$TEST_TMP/exact-2-ranks.json" 'r["ranks"] == 2 and r["tokens"] == '"$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["tokens"])' "$TEST_TMP/as-recorded-alone.json")"
ok $? "ranks share the tokens of one process" "$TEST_TMP/exact-2-ranks.json"
python3 - "$run" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/drumroll.db")
resumed = db.execute("SELECT count(*) FROM (SELECT 1 FROM segments GROUP BY trajectory HAVING count(DISTINCT version) > 1)").fetchone()[0]
print(("ok" if resumed > 3 else "not ok") + " trajectories of several versions were among them")
PY

# ---- the batches, to a trainer
timeout 120 "$DRUMROLL" replay "$run" --serve "$run/config.yaml" --set run.dir="$TEST_TMP/served" >"$TEST_TMP/serve.log" 2>&1 &&
	says "$TEST_TMP/served/summary.json" 'r["status"] == "finished" and r["steps"] == 3 and r["versions"] == r["versions_as_recorded"] == 3' &&
	cmp -s "$run/weights/version-3/model.safetensors" "$TEST_TMP/served/weights/version-3/model.safetensors"
ok $? "the reference trainer makes the same weights of the recording" "$TEST_TMP/serve.log"
[ "$(grep -c '"trainer/loss"' "$TEST_TMP/served/metrics.jsonl")" -eq 3 ]
ok $? "its reports are in metrics.jsonl" "$TEST_TMP/served/metrics.jsonl"

# ---- killed once the first batch is trained on, whatever has come after it
"$DRUMROLL" replay "$run" --serve "$run/config.yaml" --set run.dir="$TEST_TMP/killed" >"$TEST_TMP/killed.log" 2>&1 &
serving=$!
for _ in $(seq 600); do grep -qs '"step": *1' "$TEST_TMP/killed/metrics.jsonl" && break; sleep 0.05; done
kill -9 $serving; wait $serving 2>/dev/null
timeout 120 "$DRUMROLL" replay "$run" --resume "$TEST_TMP/killed/" >"$TEST_TMP/killed.log" 2>&1 &&
	says "$TEST_TMP/killed/summary.json" 'r["status"] == "finished" and r["steps"] == 3 and r["versions"] == r["versions_as_recorded"] >= 3' &&
	cmp -s "$run/weights/version-3/model.safetensors" "$TEST_TMP/killed/weights/version-3/model.safetensors" &&
	[ "$(grep -c '"trainer/tokens"' "$TEST_TMP/killed/metrics.jsonl")" -eq 3 ]
ok $? "a serving that is killed goes on, and makes the same weights" "$TEST_TMP/killed.log"
timeout 60 "$DRUMROLL" replay "$run" --resume "$TEST_TMP/killed" >"$TEST_TMP/over.log" 2>&1 && grep -q "^3 batches acknowledged" "$TEST_TMP/over.log"
ok $? "one that is over has nothing left to serve" "$TEST_TMP/over.log"
timeout 60 "$DRUMROLL" replay "$run" --resume "$run" >"$TEST_TMP/none.log" 2>&1
[ $? -eq 1 ] && grep -q "expected the directory of a serving" "$TEST_TMP/none.log"
ok $? "a directory that is none is refused" "$TEST_TMP/none.log"

python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack, numpy' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then
	echo "skip the Python trainer and NumPy no Python with msgpack and numpy (Debian: python3-msgpack, python3-numpy)"
else
	"$DRUMROLL" export "$run" --format npz --steps 1- --delivered --out "$TEST_TMP/run.npz"
	timeout 120 "$DRUMROLL" replay "$run" --serve "$run/config.yaml" --set run.dir="$TEST_TMP/python" --set trainer.kind=external \
		>"$TEST_TMP/python.log" 2>&1 &
	serving=$!
	for _ in $(seq 100); do [ -S "$TEST_TMP/python/bridge.sock" ] && break; sleep 0.1; done
	timeout 100 $python -B tests/e2e/external_trainer.py "unix:$TEST_TMP/python/bridge.sock" configs/quickstart >"$TEST_TMP/seen" 2>&1
	trainer=$?
	wait $serving && [ $trainer -eq 0 ] && [ "$(cat "$TEST_TMP/seen")" = "[1, 1, 2, 3]" ]
	ok $? "a Python trainer that goes down and comes back sees the unacknowledged batch again, the others once" "$TEST_TMP/python.log"

	# One batch is acknowledged, the next is with the trainer, and both ends die.
	"$DRUMROLL" replay "$run" --serve "$run/config.yaml" --set run.dir="$TEST_TMP/gone" --set trainer.kind=external \
		>"$TEST_TMP/gone.log" 2>&1 &
	serving=$!
	for _ in $(seq 100); do [ -S "$TEST_TMP/gone/bridge.sock" ] && break; sleep 0.1; done
	taken() { # taken HOW: the batches that a trainer sees
		PYTHONPATH=trainer_bridge/python timeout 60 $python -B - "unix:$TEST_TMP/gone/bridge.sock" "$1" <<-'PY'
		import os, sys
		from drumroll_client import Client
		client = Client(sys.argv[1], name="gone", timeout=60)
		if sys.argv[2] == "dies":
		    first = client.pull(timeout=60)
		    client.ack(first.batch_id)
		    print(first.batch_id, client.pull(timeout=60).batch_id, flush=True)
		    os._exit(0)
		print(*[batch.batch_id for batch in client.batches()])
		PY
	}
	[ "$(taken dies)" = "1 2" ]; died=$?
	kill -9 $serving; wait $serving 2>/dev/null
	timeout 120 "$DRUMROLL" replay "$run" --resume "$TEST_TMP/gone" >"$TEST_TMP/gone.log" 2>&1 &
	serving=$!
	for _ in $(seq 100); do grep -q "^serving" "$TEST_TMP/gone.log" && break; sleep 0.1; done
	seen=$(taken lives)
	wait $serving && [ $died -eq 0 ] && [ "$seen" = "2 3" ] && says "$TEST_TMP/gone/summary.json" 'r["steps"] == 3'
	ok $? "after a kill the trainer is served from what it did not acknowledge on" "$TEST_TMP/gone.log"

	timeout 120 "$DRUMROLL" replay "$run" --serve "$run/config.yaml" --set run.dir="$TEST_TMP/record" --set trainer.kind=external \
		--steps 2-3 >"$TEST_TMP/record.log" 2>&1 &
	serving=$!
	for _ in $(seq 100); do [ -S "$TEST_TMP/record/bridge.sock" ] && break; sleep 0.1; done
	timeout 100 $python -B tests/e2e/recording_trainer.py "unix:$TEST_TMP/record/bridge.sock" configs/quickstart configs/quickstart \
		"$TEST_TMP/record.jsonl" 0 >"$TEST_TMP/seen" 2>&1
	wait $serving
	ok $? "chosen steps are served to their end" "$TEST_TMP/record.log"
	$python - "$TEST_TMP/run.npz" "$TEST_TMP/record.jsonl" <<'PY'
import json, sys
import numpy as np
d, got = np.load(sys.argv[1]), [json.loads(line) for line in open(sys.argv[2])]
d = {key: d[key] for key in d.files}

def check(name, condition):
    print(("ok " if condition else "not ok ") + name)

of = {int(i): k for k, i in enumerate(d["id"])}
def same(t):
    k = of[t["id"]]
    here = slice(d["offsets"][k], d["offsets"][k + 1])
    return (t["tokens"] == d["tokens"][here].tolist() and t["logprobs"] == d["logprobs"][here].tobytes().hex()
            and t["prompt_id"] == d["prompt_id"][k] and t["step"] == d["step"][k] and t["n_prompt"] == d["n_prompt"][k])
check("what is served is what NumPy reads of the export", len(got) == 60 and all(map(same, got)))
check("batches come in the recorded order", [t["batch"] for t in got] == sorted(t["batch"] for t in got) and {t["batch"] for t in got} == {2, 3})
check("columns are as long as there are trajectories", all(len(d[key]) == len(d["id"]) for key in ("reward", "state", "pivot", "seed", "n_response")))
check("rewards and text columns", set(d["state"]) == {"delivered"} and set(d["finish_reason"]) <= {"stop", "length"}
      and not np.isnan(d["reward"][d["step"] > 0]).any() and d["eval"].dtype == bool)
answers = [d["answer"][a:b].tobytes().decode() for a, b in zip(d["answer_offsets"], d["answer_offsets"][1:])]
check("texts of any length are UTF-8 with offsets", len(answers) == len(d["id"]) and all(a.lstrip("-").isdigit() for a in answers))
PY
fi

# ---- one bit
read -r id position < <(python3 tests/e2e/alter_record.py "$run")
timeout 120 mpirun -n 2 "$DRUMROLL" replay "$run" --mode exact --threads 1 --json >"$TEST_TMP/altered.json" 2>"$TEST_TMP/altered.log"
status=$?
[ $status -eq 1 ] && says "$TEST_TMP/altered.json" 'not r["all_equal"] and r["different"] == 1 and r["equal"] == r["replayed"] - 1 and [(d["trajectory"], d["position"]) for d in r["differences"]] == [('"$id, $position"')] and r["differences"][0]["differs"] == ["logprobs", "checksum"]'
ok $? "one bit of one log-probability is found" "$TEST_TMP/altered.json"
timeout 60 "$DRUMROLL" replay "$run" --ids "$id" >"$TEST_TMP/altered.log" 2>&1
[ $? -eq 1 ] && grep -q "^first difference: trajectory $id .*logprobs" "$TEST_TMP/altered.log" &&
	grep -q "  position  $position " "$TEST_TMP/altered.log" && grep -q "  replayed  token .* log-probability -0\.[0-9]* (0xb[0-9a-f]*)\|  replayed  token .* log-probability .* (0x[0-9a-f]*)" "$TEST_TMP/altered.log"
ok $? "and explained to people" "$TEST_TMP/altered.log"

# ---- a refusal is said once, and ends every rank
timeout 60 mpirun -n 2 "$DRUMROLL" replay "$run" --model "$TEST_TMP" --threads 1 >"$TEST_TMP/refused.log" 2>&1
status=$?
[ $status -eq 1 ] && [ "$(grep -c 'config.json' "$TEST_TMP/refused.log")" -eq 1 ]
ok $? "a refusal is said once and ends every rank" "$TEST_TMP/refused.log"
