"""python_lost_push.py DRUMROLL DIR - versions that a crash of the run loses are pushed again by the Python client.

Answers each batch with a version.  As soon as the run has taken one (`weights_ok`), be it in use and on record by then or
not, every process of the run is killed, and it is resumed: the next pull has to see that the version is lost.
"""
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "trainer_bridge", "python"))
from drumroll_client import Client, read_model  # noqa: E402

KILLS, STEPS, MODEL = 6, 8, "configs/quickstart"
drumroll, folder = sys.argv[1:3]
words = read_model(MODEL, words=True)[1]
log = open(folder + "/run.log", "w")


def start(*arguments):
    return subprocess.Popen(["mpirun", "-n", "2", drumroll, "run", *arguments], stdout=log, stderr=log, start_new_session=True)


def main():
    run = start(MODEL + "/run.yaml", *(word for pair in (
        f"run.dir={folder}/run", f"run.steps={STEPS}", "trainer.kind=external", "rollout.group_size=2",
        "scheduler.groups_per_step=2", "data.eval_prompts=", "advantage.drop_degenerate=false", "run.stall_seconds=40")
        for word in ("--set", pair)))
    seen, lost = [], []
    with Client(f"unix:{folder}/run/bridge.sock", name="pushes", timeout=60, connect_seconds=60) as client:
        push_again = client._push_again
        client._push_again = lambda: (lost.append(client.weights_version), push_again())
        for batch in client.batches():
            seen.append((batch.batch_id, batch.version))
            client.push_weights(client.version + 1, words)
            if len(seen) <= KILLS:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                run = start("--resume", folder + "/run")
    assert seen == [(i + 1, i) for i in range(STEPS)], seen
    assert run.wait(60) == 0 and lost
    print(f"ok each batch once, each under the version that answered the one before ({len(lost)} of {KILLS} crashes lost one)")


main()
