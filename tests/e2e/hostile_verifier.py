#!/usr/bin/env python3
"""A verifier for test_verifiers.sh that misbehaves in every way, by the prompt and the sample: the same sample meets the
same fate however often it is asked about.  Rewards are 1 or 2, never 0.  argv: a directory for its notes, and what
share of the samples suffers."""
import hashlib
import json
import os
import sys
import time

notes, share = sys.argv[1], float(sys.argv[2])
fates = ["crash", "hang", "nonsense", "huge", "wrong_type", "bad_data", "retry", "once", "segv", "silent_death"]


def say(request, **reply):
    print(json.dumps({"id": request["id"], **reply}), flush=True)


def first_time(name):
    try:
        os.mkdir(os.path.join(notes, name))
        return True
    except FileExistsError:
        return False


print("started", os.getpid(), file=sys.stderr, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    assert request["tokens"] >= 0 and request["finish"] in ("stop", "length")
    name = "%d-%d" % (request["group"], request["sample"])
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    fate = fates[int(draw / share * len(fates))] if draw < share else "judged"
    with open(os.path.join(notes, "fates"), "a") as file:
        file.write("%s %s %d\n" % (name, fate, os.getpid()))
    if fate == "crash":
        sys.exit(7)
    elif fate == "segv":
        os.kill(os.getpid(), 11)
    elif fate == "silent_death":
        os.close(1)
        time.sleep(1000)
    elif fate == "hang":
        if os.fork() == 0:
            time.sleep(1000)
        time.sleep(1000)
    elif fate == "nonsense":
        print("Traceback (most recent call last):", flush=True)
    elif fate == "huge":
        os.write(1, b"x" * (1 << 20))
    elif fate == "wrong_type":
        say(request, reward="good")
    elif fate == "bad_data":
        say(request, error="there is nothing to judge")
    elif fate == "retry":
        say(request, error="the sandbox is full", retry=True)
    elif fate == "once" and first_time(name):
        sys.exit(1)
    else:
        print("word " * 2000, file=sys.stderr, flush=True)
        say(request, reward=1 + (request["sample"] + request["group"]) % 2, components={"answer": 1})
        say(request, reward=-5)
        print(json.dumps({"id": 10**15, "reward": -5}), flush=True)
