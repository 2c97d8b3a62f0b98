#!/usr/bin/env python3
"""An external verifier: JSON lines in, JSON lines out (reward.kind: program).

Each request is a line {"id", "prompt", "response", "answer", "metadata", "tokens", "finish", ...}; each reply is a line
{"id", "reward", "components"} or, where there is no reward, {"id", "error", "retry"}: an error is never a zero.
"""
import json
import sys

replies = sys.stdout
sys.stdout = sys.stderr  # whatever else prints goes to verifier.log


def judge(request):
    steps = (request["metadata"] or {}).get("steps")
    if request["answer"] is None or not steps:
        raise ValueError("the prompt has no answer or no steps")  # bad data: not asked again
    lines = [line.strip() for line in request["response"].splitlines()]
    share = sum(a == b for a, b in zip(lines, steps)) / len(steps)
    right = bool(lines) and lines[-1].lstrip("#").strip() == request["answer"].strip()
    return {"reward": 0.5 * right + 0.5 * share, "components": {"answer": right, "steps": share}}


for line in sys.stdin:
    request = json.loads(line)
    try:
        reply = judge(request)
    except ValueError as why:
        reply = {"error": str(why)}
    except OSError as why:  # a sandbox or service that is not there now
        reply = {"error": str(why), "retry": True}
    print(json.dumps({"id": request["id"], **reply}), file=replies, flush=True)
