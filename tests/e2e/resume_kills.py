"""resume_kills.py DRUMROLL DIR SCENARIO KILLS SEED [--set ...] - kills the controller of a run at random moments.

A run under mpirun whose rank 0 gets SIGKILL at KILLS moments drawn from SEED, each time resumed, until it is over; beside
it the same run undisturbed.  SCENARIO: fixed (a trainer that pushes the same weights), moving (two models in turn),
reference (the reference trainer), none (no trainer), trainer (as reference, but it is the trainer that is killed, and the
run starts it again).  Prints `ok NAME` or `not ok NAME` per property and, last, a line
with times: work that was not committed when the kill came, and seconds from the start of a resume to its first work.
"""
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import time

MODEL = "configs/quickstart"
HERE = os.path.dirname(os.path.abspath(__file__))
drumroll, directory, scenario = sys.argv[1:4]
n_kills, seed = int(sys.argv[4]), int(sys.argv[5])
sets = sys.argv[6:]
rng = random.Random(seed)
COMMIT = 0.4
SLACK = 0.5 if os.environ.get("VARIANT", "release") == "release" else 2.0  # a round of scalar kernels under a sanitizer takes that long
START_SECONDS = 2  # from the banner to the first samples: kept weights go to the ranks
N_STEPS = 3 + n_kills
N_GROUPS = 2
POOL = sum(int(s.split("=")[1]) for s in sets if s.startswith("explore.pool="))  # of a group, and not delivered
base = ["--set", f"run.steps={N_STEPS}", "--set", "rollout.group_size=4", "--set", f"scheduler.groups_per_step={N_GROUPS}",
        "--set", "worker.max_active=8", "--set", "rollout.max_tokens=96", "--set", "eval.every=2", "--set", "eval.limit=6",
        "--set", "data.eval_prompts=" + (MODEL + "/heldout.jsonl" if scenario in ("reference", "trainer") else ""),
        "--set", f"run.commit_seconds={COMMIT}", "--set", "run.stall_seconds=100",
        "--set", "trainer.kind=" + {"reference": "reference", "trainer": "reference", "none": "none"}.get(scenario, "external")] + sets
ok = True


def say(good, text):
    global ok
    ok = ok and good
    print(("ok " if good else "not ok ") + f"{scenario}: {text}", flush=True)


def other_model():
    """The model with other norms, as alternating_trainer.py makes it; for fixed weights the model itself."""
    if scenario == "fixed":
        return MODEL
    other = os.path.join(directory, "other")
    os.makedirs(other, exist_ok=True)
    with open(MODEL + "/model.safetensors", "rb") as f:
        data = bytearray(f.read())
    n = struct.unpack("<Q", data[:8])[0]
    for name, t in json.loads(data[8:8 + n]).items():
        if "norm" in name:
            for low in range(8 + n + t["data_offsets"][0], 8 + n + t["data_offsets"][1], 2):
                data[low] ^= 8
    for file in os.listdir(MODEL):
        if "tok" in file and file.endswith(".json") or file in ("config.json", "generation_config.json"):
            shutil.copy(os.path.join(MODEL, file), other)
    with open(other + "/model.safetensors", "wb") as f:
        f.write(data)
    return other


def descendants(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            children = [int(child) for child in f.read().split()]
    except OSError:
        return []
    return children + [d for child in children for d in descendants(child)]


def process_of(mpirun, kind):
    """Rank 0's process of the kind: run, the controller (not a parent around it), or trainer, its child."""
    found = None
    for pid in descendants(mpirun.pid):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                rank0 = b"PMI_RANK=0\0" in f.read() + b"\0"
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                command = f.read().split(b"\0")
        except OSError:
            continue
        if rank0 and command[1:2] == [kind]:
            found = pid
    return found


class Run:
    def __init__(self, name):
        self.dir, self.logs = os.path.join(directory, name), []
        self.trainer_out = self.dir + ".batches"
        self.trainer = None

    def start(self, arguments):
        log = f"{self.dir}.log{len(self.logs)}"
        self.logs.append(log)
        self.began = self.worked = time.time()
        with open(log, "w") as f:
            self.mpirun = subprocess.Popen(["mpirun", "-n", "3", drumroll, "run"] + arguments, stdout=f,
                                           stderr=subprocess.STDOUT, start_new_session=True)

    def start_new(self):
        self.start([MODEL + "/run.yaml", "--set", f"run.dir={self.dir}"] + base)
        if scenario in ("fixed", "moving"):
            self.trainer_log = open(self.dir + ".trainer", "w")
            self.trainer = subprocess.Popen([sys.executable, "-B", HERE + "/recording_trainer.py",
                                             f"unix:{self.dir}/bridge.sock", MODEL, other_model(), self.trainer_out, "0.1"],
                                            stdout=self.trainer_log, stderr=subprocess.STDOUT)

    def text(self):
        with open(self.logs[-1], errors="replace") as f:
            return f.read()

    def wait_for(self, condition, seconds):
        until = time.time() + seconds
        while time.time() < until and self.mpirun.poll() is None:
            if condition():
                return True
            time.sleep(0.005)
        return condition()

    def finish(self, seconds=240):
        try:
            status = self.mpirun.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.mpirun.pid, signal.SIGKILL)
            return "timeout"
        if self.trainer and status == 0:
            try:
                trained = self.trainer.wait(60)
            except subprocess.TimeoutExpired:
                trained = "timeout"
            return status or trained
        return status

    def end(self):
        for process in (self.mpirun, self.trainer):
            if process and process.poll() is None:
                process.kill()
                process.wait()


def read_state(run):
    db = sqlite3.connect(f"file:{run.dir}/drumroll.db?mode=ro", uri=True, timeout=10)
    state = dict(db.execute("SELECT key, value FROM state").fetchall())
    db.close()
    return state


def sleep(seconds):
    """True if everything stood still meanwhile: then ages say nothing."""
    until, paused = time.time() + seconds, False
    while time.time() < until:
        before = time.time()
        time.sleep(min(0.02, max(0.0, until - before)))
        paused = paused or time.time() - before > 0.5
    return paused


def n_batches(run):
    db = sqlite3.connect(f"file:{run.dir}/drumroll.db?mode=ro", uri=True, timeout=10)
    n = db.execute("SELECT count(*) FROM deliveries").fetchone()[0]
    db.close()
    return n


def kill_often(run):
    """Returns (lost seconds, resume seconds) of the kills."""
    lost, resumed = [], []
    run.start_new()
    if not run.wait_for(lambda: os.path.exists(run.dir + "/drumroll.db") and "results" in run.text(), 240):
        return lost, resumed  # check() says why
    for i in range(n_kills):
        kind, wait = rng.choice(["start", "work", "batch", "batch"]), rng.random()
        if kind != "start":
            run.wait_for(lambda: "results" in run.text(), 60)
        if kind == "batch":  # after the next one went out, when weights and acknowledgements are on their way
            batches = n_batches(run)
            run.wait_for(lambda: n_batches(run) > batches, 30)
        paused = sleep(wait * {"start": 0.4, "work": 1.0, "batch": 0.5}[kind])
        banner = "results" in run.text()
        pid = process_of(run.mpirun, b"trainer" if scenario == "trainer" else b"run")
        killed = time.time()
        if pid is None or run.mpirun.poll() is not None:
            break
        os.kill(pid, signal.SIGKILL)
        kills.append(pid)
        if scenario == "trainer":
            continue
        run.mpirun.wait(60)
        state = read_state(run)
        # Nothing is generated while weights are awaited, nor while a run starts: it has not committed anything then.
        committed = state.get("committed_ms", 0) / 1000
        if banner and not paused and not state.get("batch_out"):
            lost.append(max(0.0, killed - (committed if committed > run.began else run.worked + START_SECONDS)))
        run.start(["--resume", run.dir])
        if run.wait_for(lambda: "results" in run.text(), 60):
            run.worked = time.time()
            resumed.append(run.worked - run.began)
    return lost, resumed


kills = []


def read_batches(run):
    if scenario in ("fixed", "moving"):
        with open(run.trainer_out) as f:
            return [json.loads(line) for line in f]
    out = subprocess.run([drumroll, "export", run.dir], capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    return [r for r in rows if r["state"] == "delivered" and not r["eval"]]


def key(t):
    return (t["prompt_id"], t["epoch"], t["sample"])


def content(t):
    """What a repetition must have: everything but names of versions, ranks and the batch's place."""
    return {k: v for k, v in t.items() if k not in ("versions", "segments", "batch", "step", "id", "group", "version")
            and k in ("tokens", "logprobs", "mask", "loss_mask", "finish", "reward", "advantage", "pivot", "loss_weight",
                      "n_prompt")}


def check_scores(rows):
    """Each segment's log-probabilities are those of its version, to the bit."""
    differ = total = 0
    lines = "".join(json.dumps({"prompt_tokens": r["tokens"][:r["n_prompt"]], "tokens": r["tokens"][r["n_prompt"]:]}) + "\n"
                    for r in rows)
    with open(directory + "/score.jsonl", "w") as f:
        f.write(lines)
    scores = []
    fast = {name: value for name, value in os.environ.items() if name != "DRUMROLL_CPU"}
    for model in (MODEL, os.path.join(directory, "other")):
        out = subprocess.run([drumroll, "score", "--model", model, "--in", directory + "/score.jsonl"], capture_output=True,
                             text=True, check=True, env=fast).stdout
        scores.append([json.loads(line)["logprobs"] for line in out.splitlines()])
    for i, r in enumerate(rows):
        logprobs = struct.unpack(f"<{len(r['tokens'])}f", bytes.fromhex(r["logprobs"]))
        for at in range(r["n_prompt"], len(r["tokens"])):
            total += 1
            given = scores[r["versions"][at] % 2][i][at - r["n_prompt"]]
            differ += struct.pack("<f", given) != struct.pack("<f", logprobs[at])
    say(differ == 0 and total > 500, f"log-probabilities are those of their versions, to the bit ({differ} of {total} differ)")


def check(run, plain, status):
    if status != 0:
        print(run.text()[-1500:])
        if run.trainer:
            print(open(run.dir + ".trainer").read()[-1500:])
    say(status == 0, f"a run killed {len(kills)} times and {'going on' if scenario == 'trainer' else 'resumed'} ends well ({status})")
    if status != 0:
        return
    rows = read_batches(run)
    keys = [key(t) for t in rows]
    sizes = {t["id"] // 4096: t["group_size"] - POOL for t in rows}
    whole = len(sizes) == N_STEPS * N_GROUPS and sum(sizes.values()) == len(rows)
    say(whole and len(set(keys)) == len(keys), f"each trajectory once ({len(rows)}, {len(set(keys))} of them different)")
    with open(run.dir + "/metrics.jsonl") as f:
        metrics = [json.loads(line) for line in f]
    steps = [m["step"] for m in metrics if "reward/mean" in m]
    say(steps == list(range(1, N_STEPS + 1)), f"each step has one line of metrics ({steps if steps != list(range(1, N_STEPS + 1)) else 'all'})")
    if scenario in ("reference", "trainer"):
        evaluated = [m["step"] for m in metrics if "eval/pass_rate" in m]
        expected = sorted({*range(0, N_STEPS + 1, 2), N_STEPS})
        say(evaluated == expected, f"each evaluation once ({evaluated if evaluated != expected else 'all'})")
    db = sqlite3.connect(f"file:{run.dir}/drumroll.db?mode=ro", uri=True)
    say(db.execute("SELECT count(*) FROM deliveries WHERE acked").fetchone()[0] == N_STEPS, "every batch is acknowledged")
    if scenario == "moving":
        check_scores(rows)
    if plain:
        expected = {key(t): content(t) for t in read_batches(plain)}
        common = [t for t in rows if key(t) in expected]
        differ = [key(t) for t in common if expected[key(t)] != content(t)]
        say(not differ and len(common) == len(rows), f"the bytes of an undisturbed run ({len(common)} of {len(rows)} compared, {len(differ)} differ)")


def main():
    os.makedirs(directory, exist_ok=True)
    run, plain = Run("killed"), Run("plain") if scenario in ("fixed", "none") else None
    try:
        if plain:
            plain.start_new()
            status = plain.finish()
            if status != 0:
                print(plain.text()[-1500:])
                say(False, f"the undisturbed run ends well ({status})")
                return
        lost, resumed = kill_often(run)
        check(run, plain, run.finish())
        if lost:
            say(max(lost) <= COMMIT + SLACK, f"at most a commit interval of {COMMIT} s was not stored (and {SLACK} s for a busy machine): {max(lost):.3f} s")
        figures = [f"{name} median {statistics.median(x):.3f} s, max {max(x):.3f} s ({len(x)})"
                   for name, x in (("not committed:", lost), ("resumed within:", resumed)) if x]
        print("; ".join(figures))
    finally:
        run.end()
        if plain:
            plain.end()
    sys.exit(0 if ok else 1)


main()
