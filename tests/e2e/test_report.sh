#!/bin/bash
# drumroll report of real runs: two finished ones compared, and one that was killed; the file is well-formed, whole, needs no
# network, and has every part.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}

check() { if [ "$2" -eq 0 ]; then echo "ok $1"; else echo "not ok $1"; fi; }
run() { # NAME OPTIONS...
	timeout 200 mpirun -n 3 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/$1" --set run.steps=4 --set trainer.kind=none \
		--set run.timeline_seconds=0.05 --set eval.limit=16 --set scheduler.groups_per_step=8 "${@:2}" >"$TEST_TMP/$1.log" 2>&1
}
# inspect FILE WORDS...: XML, no reference to elsewhere, every section, the words
inspect() {
	python3 - "$@" <<'END'
import re, sys, xml.etree.ElementTree as tree
text = open(sys.argv[1], encoding="utf-8").read()
root = tree.fromstring(text.split("\n", 1)[1])
ids = [e.get("id") for e in root.iter() if e.get("id")]
wrong = [i for i in set(ids) if ids.count(i) > 1]
for e in root.iter():
    wrong += [f"{e.tag} {k}={v}" for k, v in e.attrib.items() if k in ("src", "href", "xlink:href") and not v.startswith("#")]
    wrong += [f"{v} goes nowhere" for k, v in e.attrib.items() if k == "href" and v[1:] not in ids]
    if e.tag in ("script", "link", "iframe", "img", "object"): wrong.append(e.tag)
    if e.tag == "svg" and e.get("role") == "img" and not e.get("aria-label"): wrong.append("svg without a label")
    if e.tag == "table" and (e.find("caption") is None or not e.findall("thead/tr/th[@scope='col']")): wrong.append("table without headers")
wrong += re.findall(r"https?://|url\(|@import|\bnan\b", text)
sections = {e.get("id"): e for e in root.iter("section")}
for s in "summary reward speed lengths speculation partials ranks time advantages trainer config".split():
    if s not in sections: wrong.append(f"no section {s}")
    elif s not in ("summary", "config", "trainer") and not any(f.find("svg") is not None for f in sections[s].iter("figure")):
        wrong.append(f"no plot in {s}")
said = "".join(root.itertext())
wrong += [f"not said: {w}" for w in sys.argv[2:] if w not in said]
if wrong: print(wrong[:10]); sys.exit(1)
END
}

run fast && run slow --set rollout.mode=exact --set run.seed=2
check "two runs to look at" $?
"$DRUMROLL" report "$TEST_TMP/fast" >/dev/null && inspect "$TEST_TMP/fast/report.html" "4 steps, finished" "Ranks: at work"
check "a run's report lies in its directory, with every part" $?
"$DRUMROLL" report "$TEST_TMP/fast" "$TEST_TMP/slow/" --out "$TEST_TMP/both.html" >/dev/null &&
	inspect "$TEST_TMP/both.html" "2 runs compared" "rollout.mode" "slow: nothing was drafted"
check "two runs are compared" $?
"$DRUMROLL" report "$TEST_TMP/fast" --out - 2>/dev/null | grep -q "</html>"
check "a report on standard output" $?

run killed --set run.steps=100000 & pid=$!
for _ in $(seq 300); do [ -f "$TEST_TMP/killed/metrics.jsonl" ] && [ "$(wc -l <"$TEST_TMP/killed/metrics.jsonl")" -gt 3 ] && break; sleep 0.1; done
"$DRUMROLL" report "$TEST_TMP/killed" --out "$TEST_TMP/going.html" >/dev/null && inspect "$TEST_TMP/going.html" "goes on"
check "a run that goes on" $?
pkill -KILL -P $pid; wait $pid 2>/dev/null
for _ in $(seq 100); do pgrep -f "run.dir=$TEST_TMP/killed" >/dev/null || break; pgrep -f "run.dir=$TEST_TMP/killed" | xargs -r kill -KILL; sleep 0.1; done
printf '{"step":99,"rew' >>"$TEST_TMP/killed/metrics.jsonl"
"$DRUMROLL" report "$TEST_TMP/killed" --out "$TEST_TMP/killed.html" >/dev/null &&
	inspect "$TEST_TMP/killed.html" "it was killed" "1 unreadable lines of metrics.jsonl"
check "a run that was killed" $?

text=$("$DRUMROLL" report "$TEST_TMP" 2>&1)
[ $? -eq 1 ] && [[ $text == *"expected the directory of a run"* ]]
check "a directory of something else is refused" $?
"$DRUMROLL" report >/dev/null 2>&1
[ $? -eq 2 ]
check "no directory at all is refused" $?
mkdir -p "$TEST_TMP/bin"
text=$(PATH=$TEST_TMP/bin "$(realpath "$DRUMROLL")" report "$TEST_TMP/fast" --out "$TEST_TMP/none.html" 2>&1)
[ $? -eq 1 ] && [[ $text == *"apt-get install gnuplot-nox"* ]] && [ ! -e "$TEST_TMP/none.html" ]
check "without gnuplot it says what to install" $?
