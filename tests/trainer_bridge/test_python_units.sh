#!/bin/bash
# The parts of the Python client that need no run.
set -u
python=''
for p in "python3" "/usr/bin/python3"; do
	if [ -z "$python" ] && $p -c 'import msgpack, numpy' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip python units no Python with msgpack and numpy (Debian: python3-msgpack, python3-numpy)"; exit 0; fi
timeout 100 $python -B tests/trainer_bridge/python_units.py 2>&1 || echo "not ok python_units.py ends well"
