"""version_on_record.py DRUMROLL DIR - async: no rank draws with a version whose number is not on record.

One of two workers is stopped while the other takes new weights and draws with them: a controller that were killed then
would come back without knowing of that version, and give its number to other weights.  The store is read as a kill
would leave it, by what is committed.  Exit status 77: in no turn did a rank draw with a version before all had it.
"""
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time

import faults

LIMIT = 40  # seconds


def look(path):
    """(newest version with tokens, newest version on record, newest that all ranks have, batches at the trainer)"""
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            drawn = [row[0] for row in db.execute("SELECT version FROM increments")]
            for (blob,) in db.execute("SELECT versions FROM trajectories ORDER BY id DESC LIMIT 1000"):
                drawn.extend(struct.unpack(f"<{len(blob) // 4}i", blob))
            on_record = [row for row in db.execute("SELECT version, xxh3 FROM weight_versions")]
            (out,) = db.execute("SELECT count(*) FROM deliveries WHERE NOT acked").fetchone()
    except sqlite3.OperationalError:  # it is not there yet
        return -1, 0, 0, 0
    newest = [max((v for v, xxh3 in on_record if xxh3 or not everywhere), default=0) for everywhere in (False, True)]
    return max(drawn, default=-1), *newest, out


def main():
    drumroll, directory = sys.argv[1:]
    command = ["mpirun", "-n", "3", drumroll, "run", "configs/quickstart/run.yaml"]
    for setting in [f"run.dir={directory}", "run.steps=400", "run.commit_seconds=0.1", "data.eval_prompts=",
                    "rollout.group_size=4", "scheduler.groups_per_step=48", "scheduler.asynchrony=async",
                    "scheduler.max_staleness=4", "scheduler.over_sampling=3", "worker.max_active=2", "rollout.mode=exact", "trainer.kind=simulated",
                    "trainer.step_seconds=0.2", "rollout.temperature=1.5", "cluster.silence_seconds=100", "cluster.controller_seconds=200"]:
        command += ["--set", setting]
    unknown = early = 0
    with open(directory + ".log", "w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log)
    until = time.time() + LIMIT
    while run.poll() is None and time.time() < until and early + unknown == 0:
        ranks = faults.ranks_of(directory)
        _, _, everywhere, out = look(directory + "/drumroll.db")
        if everywhere == 0 or out == 0 or 2 not in ranks:  # none has come yet, or none is about to come
            time.sleep(0.02)
            continue
        os.kill(ranks[2], signal.SIGSTOP)
        time.sleep(1)
        drawn, on_record, everywhere, _ = look(directory + "/drumroll.db")
        unknown += drawn > on_record
        early += drawn > everywhere
        os.kill(ranks[2], signal.SIGCONT)
        time.sleep(0.5)
    run_ended_badly = run.poll() not in (None, 0)
    run.kill()
    run.wait()
    for pid in faults.processes_of(f"run.dir={directory}\n"):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    print(f"{early} times a version was drawn with that not all ranks had, {unknown} times one that was not on record")
    return 1 if unknown or run_ended_badly else 0 if early else 77


sys.exit(main())
