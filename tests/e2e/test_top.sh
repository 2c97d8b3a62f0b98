#!/bin/bash
# What one sees of a run: timeline.jsonl, status.json, metrics over HTTP, and `drumroll top` on a terminal of 80 x 24.
set -u
DRUMROLL=$(realpath "${DRUMROLL:-build/drumroll}")
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
Q=configs/quickstart
run() { timeout 120 mpirun -n 3 "$DRUMROLL" run $Q/run.yaml --set run.dir="$TEST_TMP/$1" --set trainer.kind=none --set data.eval_prompts= \
	--set scheduler.groups_per_step=4 "${@:2}" >"$TEST_TMP/$1.log" 2>&1; }
# check NAME TEST...: one case
check() { if "${@:2}"; then echo "ok $1"; else echo "not ok $1"; fi; }
says() { [ "$2" = "$1" ] || { echo "$2" | head -n 20; false; }; }
# eventually SECONDS COMMAND...
eventually() { local i; for i in $(seq $((10 * $1))); do "${@:2}" >/dev/null 2>&1 && return; sleep 0.1; done; false; }

# A run that ends: its timeline, and the same trajectories without one.
run short --set run.steps=6 --set run.timeline_seconds=0.1 --set scheduler.over_sampling=1
check "timeline.jsonl of a finished run" says good "$(python3 -B tests/e2e/check_timeline.py "$TEST_TMP/short" 6 2)"
run bare --json --set run.steps=6 --set run.timeline_seconds=0 --set scheduler.over_sampling=1
check "run --json: every line is an event" says "begin step step step step step step end finished 6" "$(python3 -c '
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
print(*(line["event"] for line in lines if line["event"] != "note"), lines[-1]["status"], lines[-2]["metrics"]["step"])' "$TEST_TMP/bare.log")"
check "no timeline, no files of it" test ! -e "$TEST_TMP/bare/timeline.jsonl" -a ! -e "$TEST_TMP/bare/status.json" -a -s "$TEST_TMP/bare/metrics.jsonl"
for name in short bare; do "$DRUMROLL" export "$TEST_TMP/$name" --stable >"$TEST_TMP/$name.jsonl"; done
check "the same trajectories with it and without" cmp "$TEST_TMP/short.jsonl" "$TEST_TMP/bare.jsonl"
check "top: a finished run, without a terminal" grep -q '6/6 .* finished' <("$DRUMROLL" top "$TEST_TMP/short")
check "top: no colours without a terminal" says "" "$("$DRUMROLL" top "$TEST_TMP/short" | grep $'\033')"
check "top: a run that kept no timeline" grep -q finished <("$DRUMROLL" top "$TEST_TMP/bare")
check "top --json: a finished run is one line" says "finished 1" "$("$DRUMROLL" top "$TEST_TMP/short" --json | python3 -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin]
print(lines[-1]["state"], len(lines))')"
timeout 120 mpirun -n 3 "$DRUMROLL" run --resume "$TEST_TMP/short" --set run.steps=9 >"$TEST_TMP/again.log" 2>&1
check "a resume goes on with the same timeline" says good "$(python3 -B tests/e2e/check_timeline.py "$TEST_TMP/short" 9 2)"
"$DRUMROLL" top "$TEST_TMP" 2>"$TEST_TMP/err"
check "top: no run, exit status 1" test $? = 1 -a -s "$TEST_TMP/err"
"$DRUMROLL" top nowhere 2>"$TEST_TMP/err"
check "top: neither directory nor address, exit status 2" test $? = 2 -a -s "$TEST_TMP/err"

# A run that goes on while it is looked at.
DRUMROLL_CPU=scalar run live --set run.steps=100000 --set metrics.listen=tcp:127.0.0.1:0 &
live=$!
mpirun=$(eventually 5 pgrep -P $live && pgrep -P $live)
trap 'kill -TERM $mpirun 2>/dev/null; wait $live' EXIT
eventually 30 grep -q '"last_step":{' "$TEST_TMP/live/status.json"
port=$(grep -o 'metrics  at tcp:127.0.0.1:[0-9]*' "$TEST_TMP/live.log" | grep -o '[0-9]*$')
check "metrics in Prometheus' format, line by line" says good "$(python3 -B tests/e2e/scrape_metrics.py "$port" 2>&1)"
check "top HOST:PORT" grep -q 'ETA .* version 0' <("$DRUMROLL" top 127.0.0.1:"$port")
check "top --json: a line a look" says "3 True" "$(timeout 60 "$DRUMROLL" top http://127.0.0.1:"$port" --json --seconds 0.3 2>"$TEST_TMP/err" | python3 -c '
import json, sys
lines = [json.loads(next(sys.stdin)) for _ in range(3)]
print(len(lines), lines[0]["time"] < lines[2]["time"])')"

# On a terminal.
if ! command -v tmux >/dev/null; then echo "skip top on a terminal tmux is missing"; exit 0; fi
mux() { tmux -S "$TEST_TMP/tmux" -f /dev/null "$@"; }
screen() { mux capture-pane -p; }
seen() { screen | grep -q -- "$1"; }
# look NAME: top in a shell that says afterwards how it ended and what the terminal is like
look() { mux send-keys "clear; '$DRUMROLL' top $1; echo \"ended \$? \$(stty -a | grep -o -- '-\\?icanon\\|-\\?echo\\>' | xargs)\"" Enter; }
ended() { eventually 5 seen "^ended $1 icanon echo" || { screen; false; }; }
if ! mux new-session -d -x 80 -y 24 'env PS1="$ " bash --norc' 2>"$TEST_TMP/err"; then echo "skip top on a terminal $(head -n 1 "$TEST_TMP/err")"; exit 0; fi
trap 'kill -TERM $mpirun 2>/dev/null; wait $live; mux kill-server' EXIT
look "$TEST_TMP/live"
eventually 10 seen '^    2  '
check "top fits 80 x 24" says "24 ok" "$(screen | awk 'length > 80 { bad = 1 } END { print NR, bad ? "bad" : "ok" }')"
check "top shows the run and each rank" says 5 "$(screen | grep -cE '^(drumroll quickstart .*|step [0-9]+/100000 .*|reward .*|    [12]  (generating|idle) .*)$')"
first=$(screen)
sleep 2.2
check "top goes on" test "$first" != "$(screen)"
mux resize-window -x 50 -y 8
check "top follows the window's size" eventually 5 eval '[ "$(screen | wc -l)" = 8 ] && seen "^drumroll quickstart" && ! screen | grep -q ".\{51\}"'
mux resize-window -x 80 -y 24
mux send-keys q
check "q ends it, and the terminal is as before" ended 0
look "127.0.0.1:$port"
eventually 10 seen '^    2  '
mux send-keys C-c
check "Ctrl-C too" ended 0
look "$TEST_TMP/live"
eventually 10 seen '^    2  '
pkill -TERM -f "^$DRUMROLL top $TEST_TMP/live"
check "SIGTERM too" ended 143
kill -TERM "$mpirun"
wait $live
look "$TEST_TMP/live"
check "a stopped run is shown as stopped" eventually 5 seen ' stopped '
mux send-keys q
check "and left with q" ended 0
