"""faults.py DRUMROLL DIR SEEDS [FIRST_SEED] [--keep] - real runs under mpirun with processes killed, stopped, delayed.

Three kinds of run by seed, each beside an undisturbed one:
  fixed      no trainer, partials put aside and resumed: every sample has the bits of the undisturbed run
  training   the reference trainer, all that is opened is delivered: the whole record is equal, weights included
  moving     an external trainer in Python, generation beside it: every token has the log-probability that
             `drumroll score` gives it under the weights of its segment's version; what the trainer got is what was kept
A fault hits a worker (killed; stopped for a while; stopped and continued in short turns), the controller (stopped) or
a trainer (stopped; the external one also killed and started again), at random moments keyed by the seed.
Prints a line per run, then detection and recovery times.  Exit status 1 if anything was lost, doubled or different.
"""
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time

WORKERS, SILENCE, CONTROLLER = 4, 0.6, 8.0
RUN_LIMIT = 180  # seconds; a run that takes longer hangs
KINDS = ["fixed", "training"] + (["moving"] if importlib.util.find_spec("msgpack") else [])
COMMON = ["data.eval_prompts=", "rollout.group_size=4", "worker.max_active=6", "scheduler.rank_backlog=2",
          "advantage.drop_degenerate=false", f"cluster.silence_seconds={SILENCE}",
          f"cluster.controller_seconds={CONTROLLER}", "cluster.start_seconds=5", "cluster.wait_seconds=20",
          "cluster.losses_max=100", "run.stall_seconds=60", "rollout.mode=exact"]
SETTINGS = {
    "fixed": ["trainer.kind=none", "scheduler.groups_per_step=8", "scheduler.over_sampling=2"],
    "training": ["trainer.threads=1", "scheduler.groups_per_step=6", "scheduler.over_sampling=1"],
    "moving": ["trainer.kind=external", "scheduler.groups_per_step=6", "scheduler.asynchrony=async",
               "scheduler.over_sampling=2", "scheduler.max_staleness=4"],
}
MOMENTS = {"fixed": 3, "training": 6, "moving": 5}  # faults fall into the first so many seconds, or all that it takes
STEPS = {"fixed": 50, "training": 8, "moving": 14}


def proc_text(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as f:
            return f.read().replace(b"\0", b"\n").decode(errors="replace")
    except OSError:
        return ""


def proc_alive(pid):
    stat = proc_text(pid, "stat")
    return bool(stat) and stat.rsplit(")", 1)[1].split()[0] not in "ZX"


def processes_of(directory):
    """All that lives and has the run's directory in its command line."""
    pids = [int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()]
    return [p for p in pids if directory in proc_text(p, "cmdline") and proc_alive(p)]


def ranks_of(directory):
    """{rank: pid} of the ranks, not of their guards: a rank's parent is a process of the same rank."""
    found = {}
    for pid in processes_of(f"run.dir={directory}\n"):
        number = re.search(r"^PMI_RANK=(\d+)$", proc_text(pid, "environ"), re.M)
        stat = proc_text(pid, "stat")
        if not number or not stat:
            continue
        parent = stat.rsplit(")", 1)[1].split()[1]
        if f"run.dir={directory}\n" in proc_text(parent, "cmdline") and \
                f"PMI_RANK={number[1]}\n" in proc_text(parent, "environ"):
            found[int(number[1])] = pid
    return found


class Run:
    def __init__(self, drumroll, kind, directory, steps):
        self.drumroll, self.kind, self.directory = drumroll, kind, directory
        self.faults, self.trainer, self.lock = [], None, threading.Lock()
        self.log = open(directory + ".log", "w")
        sets = [f"run.dir={directory}", f"run.steps={steps}"] + COMMON + SETTINGS[kind]
        command = ["mpirun", "-n", str(WORKERS + 1), drumroll, "run", "configs/quickstart/run.yaml"]
        self.began = time.time()
        self.process = subprocess.Popen(command + [x for s in sets for x in ("--set", s)], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=subprocess.STDOUT)
        self.steps = steps

    def start_trainer(self):
        env = dict(os.environ, TRAINER_RECORD=self.directory + ".record")
        self.trainer = subprocess.Popen(
            [sys.executable, "-B", "tests/e2e/alternating_trainer.py", f"unix:{self.directory}/bridge.sock",
             "configs/quickstart", self.directory + ".other", "1", "0.1"],
            env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)

    def wait_for_start(self):
        while self.process.poll() is None and not os.path.exists(self.directory + "/drumroll.db"):
            time.sleep(0.01)
        if self.kind == "moving":
            while self.process.poll() is None and not os.path.exists(self.directory + "/bridge.sock"):
                time.sleep(0.01)
            self.start_trainer()

    def wait(self):
        try:
            status = self.process.wait(timeout=max(1, RUN_LIMIT - (time.time() - self.began)))
        except subprocess.TimeoutExpired:
            status = "hangs"
        self.seconds = time.time() - self.began
        if self.trainer:
            try:
                self.trainer.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.trainer.kill()
        for _ in range(40):
            left = processes_of(self.directory)
            if not left:
                break
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.log.close()
        return status, len(left)


def send(pid, number):
    try:
        os.kill(pid, number)
        return True
    except OSError:
        return False


def hold(pid, seconds):
    """Stopped for so long; true if it was there."""
    if not send(pid, signal.SIGSTOP):
        return False
    time.sleep(seconds)
    return send(pid, signal.SIGCONT)


def plan_faults(rng, kind, length):
    """(moment, what, rank, seconds), in order; one worker at least lives through it all."""
    victims, faults = list(range(1, WORKERS + 1)), []
    rng.shuffle(victims)
    for victim in victims[:rng.randint(1, WORKERS - 1)]:
        faults.append((rng.uniform(0, length), "kill", victim, 0))
    spared = victims[-1]
    for _ in range(rng.randint(1, 4)):
        what = rng.choice(["stop", "stop", "slow", "controller", "trainer"])
        seconds = {"stop": rng.uniform(0.1, 3), "slow": rng.uniform(0.5, 2), "controller": rng.uniform(0.1, 1.5),
                   "trainer": rng.uniform(0.1, 1)}[what]
        faults.append((rng.uniform(0, length), what, rng.choice(victims) if rng.random() < 0.7 else spared, seconds))
    if kind == "moving" and rng.random() < 0.5:
        faults.append((rng.uniform(0, length), "new trainer", 0, 0))
    return sorted(faults)


def inject(run, rng, length):
    """Does what was planned, each in a thread of its own, since a stop takes its time."""
    plan, began, threads = plan_faults(rng, run.kind, length), time.time(), []

    def trainer_pids():
        if run.trainer:
            return [run.trainer.pid]
        return [p for p in processes_of(run.directory) if "drumroll\ntrainer\n" in proc_text(p, "cmdline")]

    def strike(what, rank, seconds):
        now = time.time()
        if what in ("controller", "trainer", "new trainer"):
            if what == "controller":
                done = any([hold(p, seconds) for r, p in ranks_of(run.directory).items() if r == 0])
            elif what == "trainer":
                done = any([hold(p, seconds) for p in trainer_pids()])
            else:
                run.trainer.kill()
                run.trainer.wait()
                done = run.process.poll() is None
                if done:
                    run.start_trainer()
        else:
            pid = ranks_of(run.directory).get(rank)
            if pid is None:
                return
            if what == "kill":
                done = send(pid, signal.SIGKILL)
            elif what == "stop":
                done = hold(pid, seconds)
            else:
                until = now + seconds
                done = True
                while done and time.time() < until:
                    done = hold(pid, rng.uniform(0.02, 0.2))
                    time.sleep(0.01)
        if done:
            with run.lock:
                run.faults.append((now, what, rank, seconds))

    for moment, what, rank, seconds in plan:
        while run.process.poll() is None and time.time() < began + moment:
            time.sleep(0.005)
        if run.process.poll() is not None:
            break
        thread = threading.Thread(target=strike, args=(what, rank, seconds))
        thread.start()
        threads.append(thread)
        if what == "new trainer":
            thread.join()
    for thread in threads:
        thread.join()


def export(drumroll, directory):
    subprocess.run([drumroll, "export", directory, "--stable", "--out", directory + ".jsonl"], check=True,
                   stdout=subprocess.DEVNULL)
    with open(directory + ".jsonl") as f:
        return [json.loads(line) for line in f]


def bits(row):
    return [row[k] for k in ("tokens", "logprobs", "finish_reason", "reward", "seed", "prompt_id")]


def check_accounts(run, rows, problems):
    """Nothing delivered twice, every group whole, every batch as large as it said."""
    delivered = [r for r in rows if r["state"] == "delivered"]
    ids = [r["id"] for r in delivered]
    doubled = len(ids) - len(set(ids))
    with sqlite3.connect(f"file:{run.directory}/drumroll.db?mode=ro", uri=True) as db:
        batches = db.execute("select count(*), sum(n) from deliveries").fetchone()
    lost = run.steps - batches[0]
    groups = {}
    for r in delivered:
        groups.setdefault(r["group_id"], []).append((r["sample"], r["group_size"]))
    lost += sum(sorted(s for s, _ in g) != list(range(g[0][1])) for g in groups.values())
    lost += (batches[1] or 0) - len(set(ids))
    if run.kind == "moving":
        got = {}
        with open(run.directory + ".record") as f:
            for line in map(json.loads, f):
                doubled += line["batch"] in got and got[line["batch"]] != line["ids"]
                got[line["batch"]] = line["ids"]
        flat = [i for b in got.values() for i in b]
        doubled += len(flat) - len(set(flat))
        lost += len(set(ids) - set(flat))
    if lost:
        problems.append(f"{lost} lost")
    if doubled:
        problems.append(f"{doubled} doubled")
    return len(ids)


def check_moving(run, rows, problems):
    rows = [r for r in rows if r["segments"]]
    with open(run.directory + ".score", "w") as f:
        for r in rows:
            print(json.dumps({"prompt_tokens": r["tokens"][:r["n_prompt"]], "tokens": r["tokens"][r["n_prompt"]:]}), file=f)
    scores = []
    for model in ("configs/quickstart", run.directory + ".other"):
        out = subprocess.run([run.drumroll, "score", "--model", model, "--in", run.directory + ".score"],
                             capture_output=True, text=True, check=True).stdout
        scores.append([json.loads(line)["logprobs"] for line in out.splitlines()])
    different = sum(scores[s["version"] % 2][i][at - r["n_prompt"]] != r["logprobs"][at]
                    for i, r in enumerate(rows) for s in r["segments"] for at in range(s["start"], s["start"] + s["length"]))
    if different:
        problems.append(f"{different} tokens differ")


def weights_of(directory):
    with sqlite3.connect(f"file:{directory}/drumroll.db?mode=ro", uri=True) as db:
        return db.execute("select version, xxh3 from weight_versions order by version").fetchall()


def check_bits(run, rows, reference, problems):
    if run.kind == "moving":
        return check_moving(run, rows, problems)
    done = [r for r in rows if r["finish_reason"] != "none"]
    different = sum(bits(r) != reference["rows"][r["id"]] for r in done if r["id"] in reference["rows"])
    common = sum(r["id"] in reference["rows"] for r in done)
    if run.kind == "training" and weights_of(run.directory) != reference["weights"]:
        problems.append("other weights")
    if common < (len(done) if run.kind == "training" else 0.8 * len(done)):
        problems.append(f"only {common} of {len(done)} to compare")
    if different:
        problems.append(f"{different} samples differ")


def times_of(run):
    """Detection: fault to loss, where it lasted long enough; recovery: loss to the last sample answered elsewhere;
    return: from going on to serving again."""
    try:
        with open(run.directory + "/events.jsonl") as f:
            events = [json.loads(line) for line in f]
    except OSError:
        return [], [], [], 0
    detect, back = [], []
    with open(run.directory + ".faults", "w") as f:
        json.dump(sorted(run.faults), f)
    lost = [e for e in events if e["event"] == "lost"]
    for began, what, rank, seconds in run.faults:
        if what == "kill" or (what == "stop" and seconds > SILENCE + 0.3):
            after = [e["time"] - began for e in lost if e["rank"] == rank and 0 <= e["time"] - began < 15]
            detect += after[:1]
        if what == "stop":
            after = [e["time"] - began - seconds for e in events if e["event"] == "back" and e["rank"] == rank]
            back += [t for t in after if 0 <= t < 15][:1]
    recover = [float(re.search(r"([\d.]+) s after", e["text"])[1]) for e in events if e["event"] == "recovered"]
    return detect, recover, back, len(lost)


def undisturbed(drumroll, directory, kind):
    run = Run(drumroll, kind, directory, STEPS[kind] if kind == "training" else int(1.3 * STEPS[kind]))
    run.wait_for_start()
    status, left = run.wait()
    if status != 0 or left:
        sys.exit(f"the undisturbed run ends with {status}, {left} processes left; see {directory}.log")
    rows = export(drumroll, directory)
    return {"rows": {r["id"]: bits(r) for r in rows if r["finish_reason"] != "none"}, "seconds": run.seconds,
            "weights": weights_of(directory)}


def main():
    arguments = [a for a in sys.argv[1:] if a != "--keep"]
    drumroll, base, n_seeds = os.path.abspath(arguments[0]), os.path.abspath(arguments[1]), int(arguments[2])
    first = int(arguments[3]) if len(arguments) > 3 else 1
    references, bad = {}, 0
    all_times = {"detection": [], "recovery": [], "return": []}
    struck, trajectories, losses = {}, 0, 0
    for seed in range(first, first + n_seeds):
        kind = KINDS[seed % len(KINDS)]
        if kind not in references:
            references[kind] = undisturbed(drumroll, f"{base}/{kind}", kind)
        rng, problems = random.Random(seed), []
        run = Run(drumroll, kind, f"{base}/seed{seed}", STEPS[kind])
        run.wait_for_start()
        inject(run, rng, max(1.0, min(references[kind]["seconds"] - 0.5, MOMENTS[kind])))
        status, left = run.wait()
        if status != 0:
            problems.append(f"status {status}")
        if left:
            problems.append(f"{left} processes left")
        rows = export(drumroll, run.directory) if os.path.exists(run.directory + "/drumroll.db") else []
        trajectories += check_accounts(run, rows, problems)
        check_bits(run, rows, references[kind], problems)
        detect, recover, back, n_lost = times_of(run)
        losses += n_lost
        for name, values in zip(all_times, (detect, recover, back)):
            all_times[name] += values
        for _, what, _, _ in run.faults:
            struck[what] = struck.get(what, 0) + 1
        faults = ", ".join(f"{what} {rank or ''}".strip() for _, what, rank, _ in sorted(run.faults))
        print(f"{'not ok' if problems else 'ok'} faults seed {seed} ({kind}): {'; '.join(problems) or faults or 'none in time'}"
              f" [{run.seconds:.1f} s]", flush=True)
        bad += bool(problems)
        if not problems and "--keep" not in sys.argv:
            for name in os.listdir(base):
                if name.startswith(f"seed{seed}") and not name[len(f"seed{seed}"):][:1].isdigit():
                    path = os.path.join(base, name)
                    shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    print(f"{n_seeds} runs, {bad} bad; {trajectories} trajectories; faults: " +
          ", ".join(f"{n} {what}" for what, n in sorted(struck.items())) + f"; ranks given up {losses} times")
    for name, values in all_times.items():
        if values:
            print(f"{name:10} n {len(values):4}  median {statistics.median(values):6.2f} s  max {max(values):6.2f} s")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
