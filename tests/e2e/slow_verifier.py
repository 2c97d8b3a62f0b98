#!/usr/bin/env python3
"""A verifier that takes its time: argv: a directory for its notes, seconds per sample.  Rewards depend on the sample
alone.  asked: a line "group sample" as each request is taken up; pids: its own."""
import json
import os
import sys
import time

notes, seconds = sys.argv[1], float(sys.argv[2])
with open(os.path.join(notes, "pids"), "a") as file:
    print(os.getpid(), file=file)
for line in sys.stdin:
    request = json.loads(line)
    with open(os.path.join(notes, "asked"), "a") as file:
        print(request["group"], request["sample"], file=file)
    time.sleep(seconds)
    print(json.dumps({"id": request["id"], "reward": (request["group"] + request["sample"]) % 2}), flush=True)
