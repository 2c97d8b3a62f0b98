"""Usage: check_timeline.py RUN_DIR STEPS RANKS: what timeline.jsonl and metrics.jsonl of a finished run without trainer and
evaluation must hold.  Prints one line per fault; says `good` where there is none."""
import json, sys

run, steps, ranks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
faults = []
lines = [json.loads(line) for line in open(run + "/timeline.jsonl")]
metrics = [json.loads(line) for line in open(run + "/metrics.jsonl")]
SUMS = ("tokens", "drafted_by_position", "accepted_by_position", "seconds")


def flat(line):
    for key in SUMS:
        value = line[key]
        if isinstance(value, dict):
            yield from ((key, kind, v) for kind, v in value.items())
        elif isinstance(value, list):
            yield from ((key, i, v) for i, v in enumerate(value))
        else:
            yield key, "", value


if any(b["t"] < a["t"] - 0.002 for a, b in zip(lines, lines[1:])):
    faults.append("time runs backwards")
last = {}
for line in lines:
    if "rank" not in line:
        continue
    for key, index, value in flat(line):
        if value < last.get(line["rank"], {}).get((key, index), 0):
            faults.append(f"{key}[{index}] of rank {line['rank']} falls at t {line['t']}")
    last[line["rank"]] = {(key, index): value for key, index, value in flat(line)}
    seconds = line["seconds"]
    if sum(v for kind, v in seconds.items() if kind != "total") > 1.02 * seconds["total"] + 0.02:
        faults.append(f"more than all of its seconds: {seconds}")
    if line["state"] not in ("generating", "idle", "weights", "lost") or not 0 <= line["kv_used"] <= 1:
        faults.append(str(line))
    if line["accepted_by_position"] and any(a > d for a, d in zip(line["accepted_by_position"], line["drafted_by_position"])):
        faults.append("more accepted than drafted")
seen = {(line["step"], line["rank"]) for line in lines if "rank" in line}
missing = {(s, r) for s in range(1, steps + 1) for r in range(1, ranks + 1)} - seen
if missing:
    faults.append(f"no line for steps and ranks {sorted(missing)[:5]}")
for event in ("step_begin", "quiet", "batch"):
    n = sum(line.get("event") == event for line in lines)
    if n != steps:
        faults.append(f"{n} events {event}, expected {steps}")
if [lines[0].get("event"), lines[-1].get("event")] != ["run_begin", "run_end"]:
    faults.append("it does not begin and end with the run")
made = sum(line["tokens"] for line in ({l["rank"]: l for l in lines if "rank" in l}).values())
counted = sum(m["rollout/tokens"] for m in metrics)
if made != counted:
    faults.append(f"ranks made {made} tokens, the metrics have {counted}")
for m in metrics:
    if m["rollout/sd/total_draft_tokens"] < m["rollout/sd/total_accepted_tokens"] or not 0 < m["rollout/active_sessions/mean"] <= m["rollout/active_sessions/max"]:
        faults.append(str(m))
print("\n".join(faults) or "good")
