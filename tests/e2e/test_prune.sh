#!/bin/bash
# Samples that are pruned in flight: who goes on, and every bit of every record, depends on seeds, weights and the head
# alone, not on ranks, batches, drafts or kills; the records bear out the formulas; what cannot be unbiased is refused.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack, sqlite3' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip prune no Python with msgpack (Debian: python3-msgpack)"; exit 0; fi

options=(--set advantage.estimator=rloo --set advantage.drop_degenerate=false --set rollout.group_size=8 --set scheduler.groups_per_step=4
	--set scheduler.over_sampling=1 --set data.eval_prompts= --set prune.at_tokens=10 --set prune.warmup=20)

# run NAME RANKS [--set ...]
run() {
	local name=$1 ranks=$2; shift 2
	timeout 240 mpirun -n "$ranks" "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/$name" --set run.steps=5 \
		--set trainer.kind=none "${options[@]}" "$@" >"$TEST_TMP/$name.log" 2>&1 || { tail -n 5 "$TEST_TMP/$name.log"; return 1; }
	"$DRUMROLL" export "$TEST_TMP/$name" --stable --out "$TEST_TMP/$name.jsonl"
}
same() {
	if [ -s "$TEST_TMP/$1.jsonl" ] && cmp -s "$TEST_TMP/one.jsonl" "$TEST_TMP/$1.jsonl"; then echo "ok $2"; else echo "not ok $2"; fi
}
# check TEXT COMMAND...
check() {
	local text=$1; shift
	if "$@" >"$TEST_TMP/out" 2>&1; then echo "ok $text"; else tail -n 3 "$TEST_TMP/out"; echo "not ok $text"; fi
}

run one 2 --set rollout.mode=exact || { echo "not ok first run"; exit 1; }
if grep -q '"finish_reason":"pruned"' "$TEST_TMP/one.jsonl"; then echo "ok some are pruned"; else echo "not ok none is pruned"; fi
if [ "$(wc -l <"$TEST_TMP/one.jsonl")" -eq 160 ]; then echo "ok pruned samples are on record and delivered"; else echo "not ok pruned samples are on record"; fi
check "records bear out probabilities, weights and advantages" $python -B tests/e2e/prune_records.py "$TEST_TMP/one/drumroll.db"
grep -q 'lengths \[10\]' "$TEST_TMP/out" || echo "not ok pruned samples end at prune.at_tokens: $(cat "$TEST_TMP/out")"
run two 3 --set rollout.mode=speculative --set speculation.draft_length=5; same two "two workers and drafts"
run small 4 --set worker.max_active=2 --set rollout.mode=speculative; same small "three workers, two sessions at a time"
run ship 3 --set worker.max_active=6 --set scheduler.order=longest; same ship "the longest first"

# Partial rollouts and a trainer: groups put aside before they are judged, new weights in between.
timeout 240 mpirun -n 3 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/partial" --set run.steps=6 "${options[@]}" \
	--set scheduler.over_sampling=2 --set scheduler.asynchrony=async --set worker.max_active=6 >"$TEST_TMP/log" 2>&1 || tail -n 5 "$TEST_TMP/log"
check "partial rollouts, new weights in flight: the same formulas" $python -B tests/e2e/prune_records.py "$TEST_TMP/partial/drumroll.db"

# A controller that is killed: the head, who was judged and who was pruned are as they were.
DRUMROLL_CPU=scalar $python -B tests/e2e/resume_kills.py "$DRUMROLL" "$TEST_TMP/kills" fixed "${DRUMROLL_KILLS:-1}" 3 "${options[@]}" \
	--set rollout.group_size=5 --set scheduler.groups_per_step=2 --set prune.at_tokens=2 --set prune.keep_min=2 --set prune.warmup=5
check "and its records bear out the formulas" $python -B tests/e2e/prune_records.py "$TEST_TMP/kills/killed/drumroll.db"
grep -qE 'pruned [1-9]' "$TEST_TMP/out" || echo "not ok nothing was pruned: the case above shows nothing"

# Killed as soon as a group that was dropped since the last batch is on record: the heads learn from it all the same.
dropping=(--set advantage.drop_degenerate=true --set rollout.group_size=5 --set scheduler.groups_per_step=6 --set prune.at_tokens=4
	--set prune.keep_min=2 --set prune.warmup=10 --set rollout.max_tokens=64 --set run.commit_seconds=0.02 --set run.steps=4
	--set reward.answer_weight=1)
run undisturbed 2 "${dropping[@]}" || echo "not ok a run that drops groups"
DRUMROLL_CPU=scalar run dropped 2 "${dropping[@]}" >/dev/null 2>&1 &
running=$!
check "a group is dropped and not learned from yet" timeout 60 $python - "$TEST_TMP/dropped/drumroll.db" <<'PY'
import sqlite3, sys, time
while True:
    try:
        db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
        if db.execute("SELECT count(*) FROM prunings p JOIN groups g ON g.id = p.grp WHERE learned = 0 AND g.state = 3").fetchone()[0]:
            break
    except sqlite3.OperationalError:
        pass
    time.sleep(0.002)
PY
kill -9 $(pgrep -f "run\.dir=$TEST_TMP/dropped ")
wait $running
$python - "$TEST_TMP/dropped/drumroll.db" <<'PY'
import sqlite3, sys
n = sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM prunings p JOIN groups g ON g.id = p.grp WHERE learned = 0 AND g.state = 3").fetchone()[0]
if n == 0: print("the batch was faster than the kill: the case below shows nothing")
PY
check "and the run goes on" timeout 200 mpirun -n 2 "$DRUMROLL" run --resume "$TEST_TMP/dropped"
check "every head is what an undisturbed run's is" $python - "$TEST_TMP"/{undisturbed,dropped}/drumroll.db <<'PY'
import sqlite3, sys
heads, learned, given = [], [], []
for path in sys.argv[1:]:
    db = sqlite3.connect(path)
    heads.append(db.execute("SELECT number, head FROM quality_heads ORDER BY number").fetchall())
    learned.append(db.execute("SELECT grp, head, learned, survivors FROM prunings ORDER BY grp").fetchall())
    given.append(db.execute("SELECT count(*) FROM groups WHERE state = 3 AND NOT eval").fetchone()[0])
assert len(heads[0]) == 4 and given[0] > 0 and given[0] == given[1], (len(heads[0]), given)
assert learned[0] == learned[1], [pair for pair in zip(*learned) if pair[0] != pair[1]][:3]
assert heads[0] == heads[1], [a[0] for a, b in zip(*heads) if a != b]
PY

# refuse NAME TEXT [--set ...]
refuse() {
	local name=$1 text=$2; shift 2
	if timeout 60 mpirun -n 2 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/refused" "${options[@]}" "$@" >"$TEST_TMP/out" 2>&1
	then echo "not ok $name is refused: it ran"
	elif grep -q "$text" "$TEST_TMP/out"; then echo "ok $name is refused"
	else head -n 3 "$TEST_TMP/out"; echo "not ok $name is refused"; fi
}
refuse "a median" "a median needs the rewards of all" --set advantage.estimator=mc_grpo
refuse "GRPO's deviation" "divided by a deviation" --set advantage.estimator=grpo
refuse "a deviation asked for" "divided by a deviation" --set advantage.scale=std
refuse "quantized mode" "the target does not draw" --set rollout.mode=quantized
refuse "no verifier" "learns from rewards" --set reward.kind=none --set trainer.kind=external
refuse "a length that nobody reaches" "nothing would be saved" --set prune.at_tokens=128
refuse "weights that cannot be" "beyond prune.weight_max" --set prune.keep=0.1 --set prune.weight_max=5
refuse "groups that are too small" "none is left to be pruned" --set rollout.group_size=3
