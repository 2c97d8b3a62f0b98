#!/bin/bash
# tests/e2e/soak.sh [MINUTES] [OPTIONS OF RUN]: a run on the quickstart model for so long (default 30; not part of `make test`), and the
# slope of every process' memory.  Fails where one grows by more than 1 MiB per 10 minutes, or 256 KiB where less is
# expected than that, over the last two thirds of the time, fitted by least squares.
# What is filled once and then rewritten is kept small, so that it is full before that time begins: what the suffix drafter
# remembers (20 bytes a token), and the KV cache, which keeps each page that was ever needed, up to its budget (32 KiB each here).
# That takes two minutes on a loaded machine: in less than 8 it is the filling that is seen.
set -u
minutes=${1:-30}
DRUMROLL=${DRUMROLL:-build/drumroll}
work=$(mktemp -d)
trap 'kill $run 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
timeout $((minutes * 60 + 120)) mpirun -n 3 "$DRUMROLL" run configs/verifiers/run.yaml --set run.dir="$work/run" --set run.steps=1000000 \
	--set scheduler.asynchrony=async --set scheduler.over_sampling=1.5 --set data.eval_prompts=configs/quickstart/heldout.jsonl \
	--set eval.every=50 --set eval.limit=32 --set speculation.suffix_tokens=16384 --set worker.kv_memory_mb=2 "${@:2}" >"$work/log" 2>&1 &
run=$!
end=$((SECONDS + minutes * 60))
while [ $SECONDS -lt $end ] && kill -0 $run 2>/dev/null; do
	ranks=$(pgrep -f "$work/run" | paste -sd ,)
	for pid in ${ranks//,/ } $(pgrep -P "$(pgrep -x -P "$ranks" sh | paste -sd ,)" 2>/dev/null); do # and verifiers
		name=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-60)
		awk -v pid="$pid" -v t=$SECONDS -v name="$name" '/^VmRSS/ { print t, pid, $2, name }' "/proc/$pid/status" 2>/dev/null
	done >>"$work/rss"
	sleep 2
done
kill -0 $run 2>/dev/null || { tail -n 3 "$work/log"; echo "the run ended early"; exit 1; }
tail -n 1 "$work/log"
python3 - "$work/rss" <<'PY'
import collections, sys
series = collections.defaultdict(list)
names = {}
for line in open(sys.argv[1]):
    t, pid, kib, name = line.split(" ", 3)
    series[pid].append((int(t), int(kib)))
    names[pid] = name.strip()
begin, end = min(s[0][0] for s in series.values()), max(s[-1][0] for s in series.values())
bad = False
print(f"{'process':<62} {'KiB at end':>10} {'KiB/minute':>10}")
for pid, points in series.items():
    points = [p for p in points if p[0] >= begin + (end - begin) / 3]
    if len(points) < 10 or "mpirun" in names[pid]:
        continue
    n, mt, mk = len(points), sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points)
    slope = 60 * sum((t - mt) * (k - mk) for t, k in points) / sum((t - mt) ** 2 for t, k in points)
    grown = slope * (end - begin) * 2 / 3 / 60
    flat = slope <= 1024 / 10 or grown <= 256
    bad |= not flat
    print(f"{names[pid]:<62} {points[-1][1]:>10} {slope:>10.1f}{'' if flat else '  grows'}")
sys.exit(bad)
PY
