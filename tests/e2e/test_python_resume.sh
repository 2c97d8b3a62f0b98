#!/bin/bash
# The Python client against a run that is killed as soon as it has taken a version, and resumed.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import msgpack, numpy' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip python resume no Python with msgpack and numpy (Debian: python3-msgpack, python3-numpy)"; exit 0; fi

timeout 200 $python -B tests/e2e/python_lost_push.py "$DRUMROLL" "$TEST_TMP" >"$TEST_TMP/said" 2>&1
status=$?
grep '^ok ' "$TEST_TMP/said"
[ $status -eq 0 ] || { tail -n 8 "$TEST_TMP/run.log" "$TEST_TMP/said"; echo "not ok versions lost by a crash are pushed again ($status)"; }
