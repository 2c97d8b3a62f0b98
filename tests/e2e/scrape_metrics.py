"""Usage: scrape_metrics.py PORT: read /metrics twice, check the text format line by line and that counters only grow,
and /status beside it.  Prints one line per fault; says `good` where there is none."""
import json, re, sys, time, urllib.error, urllib.request

base = f"http://127.0.0.1:{sys.argv[1]}"
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
VALUE = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?|Inf|NaN)|NaN"
SAMPLE = re.compile(rf"({NAME})(\{{{LABEL}(?:,{LABEL})*\}})? ({VALUE})")
faults = []


def scrape():
    with urllib.request.urlopen(base + "/metrics", timeout=10) as answer:
        if answer.headers["Content-Type"] != "text/plain; version=0.0.4; charset=utf-8":
            faults.append("content type " + answer.headers["Content-Type"])
        text = answer.read().decode()
    if not text.endswith("\n"):
        faults.append("the last line does not end")
    kinds, samples, name = {}, {}, None
    for line in text.splitlines():
        if help_ := re.fullmatch(rf"# HELP ({NAME}) (.+)", line):
            name = help_[1]
            if name in kinds or not name.startswith("drumroll_"):
                faults.append("HELP again, or a strange name: " + line)
        elif kind := re.fullmatch(rf"# TYPE ({NAME}) (gauge|counter)", line):
            kinds[name] = kind[2]
            if kind[1] != name or (kind[2] == "counter") != name.endswith("_total"):
                faults.append(line)
        elif sample := SAMPLE.fullmatch(line):
            if sample[1] != name or name not in kinds or (name, sample[2]) in samples:
                faults.append("out of place, or twice: " + line)
            samples[name, sample[2]] = float(sample[3])
        else:
            faults.append("not in the format: " + line)
    return kinds, samples


kinds, before = scrape()
time.sleep(1.5)
_, after = scrape()
for key, value in after.items():
    if kinds.get(key[0]) == "counter" and value < before.get(key, 0):
        faults.append(f"counter {key} fell from {before[key]} to {value}")
for rank in (1, 2):
    if not after["drumroll_rank_tokens_total", f'{{rank="{rank}"}}'] > 0:
        faults.append(f"rank {rank} made nothing")
for page in ("/status", "/metrics.json"):
    with urllib.request.urlopen(base + page, timeout=10) as answer:
        status = json.load(answer)
    if status["state"] != "running" or [r["rank"] for r in status["ranks"]] != [1, 2]:
        faults.append(page + " " + str(status)[:200])
try:
    urllib.request.urlopen(base + "/other", timeout=10)
    faults.append("/other is there")
except urllib.error.HTTPError as error:
    if error.code != 404:
        faults.append(f"/other: {error.code}")
print("\n".join(faults) or "good")
