#!/usr/bin/env python3
"""compare.py - drumroll and llama.cpp on the same weights, in turns (`make bench-peer`).

Each side is a program that holds the model and works when it is told to (turns.h); a turn of one is followed by the
same turn of the other, several times, and medians are compared.  Weights are exported by `drumroll bench gguf`; tokens
that both would choose greedily are compared first.  Results: a table, and build/bench-peer.jsonl.
"""
import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARIES = "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"
GREEDY_PROMPTS, GREEDY_STEPS = (3, 9, 16, 64), 8
# (phase, format) -> wanted ratio by batch
WANTED = {"bf16": {1: 1.2, 2: 1.2, 4: 1.2, 8: 1.4, 16: 1.4, 32: 1.4}, "4bit": {1: 1.2, 2: 1.2, 8: 1.6, 16: 1.6, 32: 1.6}}
PREFILL_WANTED = 1.3


def arguments():
    p = argparse.ArgumentParser(description="drumroll beside llama.cpp")
    p.add_argument("--ours", default="build/release/tests/bench/peer/ours")
    p.add_argument("--drumroll", default="build/drumroll")
    p.add_argument("--dir", default="build/peer", help="the peer's installation and exported models")
    p.add_argument("--out", default="build/bench-peer.jsonl")
    p.add_argument("--models", default="qwen0.5b,minimind2-small,step", help="what to measure; step: whole rollout steps")
    p.add_argument("--formats", default="bf16,4bit")
    p.add_argument("--phases", default="decode,generate,prefill")
    p.add_argument("--batches", default="1,2,4,8,16,32")
    p.add_argument("--context", type=int, default=128, help="tokens before the first that is timed")
    p.add_argument("--seconds", type=float, default=0.5, help="of a turn, about")
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--isa", default="", help="avx2: both sides with that; default: the best that each has here")
    p.add_argument("--grow", type=float, default=0.25e9, help="parameters of the model of whole steps")
    p.add_argument("--groups", type=int, default=32, help="prompts of a step")
    p.add_argument("--samples", type=int, default=8, help="of a prompt")
    p.add_argument("--steps", type=int, default=1, help="whole steps that count, of each way")
    p.add_argument("--step-repeat", type=int, default=1)
    p.add_argument("--step-workers", type=int, default=1)
    p.add_argument("--peer-settings", default="", help="of theirs.c, such as 'fa=0 poll=100'")
    p.add_argument("--data", default=os.environ.get("DRUMROLL_DATA", "../shared/data"))
    return p.parse_args()


class Side:
    """A program that answers a line with a line."""

    def __init__(self, command, environment=None):
        self.name = os.path.basename(command[0])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **(environment or {})})
        self.ready = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench-peer: {self.name} ended with status {self.process.wait()}")
        return line.strip()

    def ask(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        return [float(x) for x in self.read().split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def model_directory(options, name):
    """Where the model is, made if it can be, or None and the reason."""
    if name == "qwen0.5b":
        path = f"{options.dir}/models/{name}"
        if not os.path.exists(f"{path}/model.safetensors"):
            os.makedirs(path, exist_ok=True)
            run(options.ours, "random", path)
        return path, ""
    path = f"{options.data}/models/{name}"
    return (path, "") if os.path.exists(f"{path}/config.json") else (None, f"{path} is not there")


def exported(options, name, directory, form):
    path = f"{options.dir}/models/{name}.{'q4_0' if form == '4bit' else 'bf16'}.gguf"
    source = f"{directory}/model.safetensors"
    if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(source):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        run(options.drumroll, "bench", "gguf", "--model", directory, "--format", path.split(".")[-2], "--out", path)
    return path


def open_sides(options, directory, gguf, form):
    backend = "best"
    if options.isa == "avx2":
        backend = os.path.abspath(f"{options.dir}/{LIBRARIES}/libggml-cpu-haswell.so")
    elif options.isa:
        sys.exit("bench-peer: --isa: expected avx2 or nothing")
    environment = {"DRUMROLL_CPU": options.isa} if options.isa else {}
    ours = Side([options.ours, "serve", directory, form, str(options.threads)], environment)
    theirs = Side([f"{options.dir}/theirs", gguf, str(options.threads), backend, *options.peer_settings.split()])
    return ours, theirs


def check_greedy(ours, theirs):
    """Share of greedy tokens that are equal, each sequence up to its first difference and no further."""
    equal = tokens = 0
    for n in GREEDY_PROMPTS:
        a, b = ours.ask("greedy", n, GREEDY_STEPS), theirs.ask("greedy", n, GREEDY_STEPS)
        same = next((i for i in range(GREEDY_STEPS) if a[i] != b[i]), GREEDY_STEPS)
        equal, tokens = equal + same, tokens + min(GREEDY_STEPS, same + 1)
    return equal, tokens


class Peaks:
    """The machine's limits as they were between turns."""

    def __init__(self, ours):
        self.ours, self.seen = ours, []

    def measure(self):
        self.seen.append(self.ours.ask("peaks"))

    def bound(self, phase, batch, context):
        read, fma, int8 = (1e9 * statistics.median(column) for column in zip(*self.seen))
        n_bytes, fma_ops, int8_ops = self.ours.ask("work", phase, batch, context)
        arithmetic = fma_ops / fma + int8_ops / int8
        return max(n_bytes / read, arithmetic), "read" if n_bytes / read >= arithmetic else "arithmetic"

    def text(self):
        return "read %.1f GB/s, FMA %.0f GFLOP/s, INT8 %.0f GOP/s" % tuple(statistics.median(c) for c in zip(*self.seen))


def rate(answer, phase, batch, rows):
    if phase == "generate":
        return answer[0] / answer[1]
    return (rows if phase == "prefill" else batch) / answer[0]


def turns(options, ours, theirs, peaks, phase, batch):
    """Both in turn; medians of tokens/s, and of ours with rescoring (quantized generation)."""
    context, rows = options.context, 512
    steps = 4
    if phase != "prefill":
        probe = max(side.ask("decode", batch, context, 2)[0] for side in (ours, theirs))
        steps = max(4, min(128, int(options.seconds / probe)))
    command = {"prefill": ("prefill", rows)}.get(phase, (phase, batch, context, steps))
    seen, whole = {ours: [], theirs: []}, []
    for i in range(options.repeat):
        for side in (ours, theirs) if i % 2 == 0 else (theirs, ours):
            answer = side.ask(*command)
            seen[side].append(rate(answer, phase, batch, rows))
            if len(answer) == 3:
                whole.append(answer[0] / (answer[1] + answer[2]))
        peaks.measure()
    ratio = statistics.median(a / b for a, b in zip(seen[ours], seen[theirs]))
    mid = context + steps // 2
    bound, limit = peaks.bound("prefill", 1, rows) if phase == "prefill" else peaks.bound("decode", batch, mid)
    limit_rate = (rows if phase == "prefill" else batch) / bound
    result = {"ours": statistics.median(seen[ours]), "peer": statistics.median(seen[theirs]), "ratio": ratio,
              "bound": limit, "fraction": statistics.median(seen[ours]) / limit_rate,
              "peer_fraction": statistics.median(seen[theirs]) / limit_rate,
              "spread": [min(a / b for a, b in zip(seen[ours], seen[theirs])),
                         max(a / b for a, b in zip(seen[ours], seen[theirs]))]}
    if phase == "generate" and statistics.median(whole) < 0.999 * result["ours"]:
        result["ours_rescored"] = statistics.median(whole)
    return result


def wanted(form, phase, batch):
    return PREFILL_WANTED if phase == "prefill" else WANTED[form].get(batch)


def measure(options, out, name, form):
    directory, reason = model_directory(options, name)
    if not directory:
        print(f"{name}: skipped: {reason}")
        return
    ours, theirs = open_sides(options, directory, exported(options, name, directory, form), form)
    equal, tokens = check_greedy(ours, theirs)
    print(f"\n{name}, {form}; ours: {ours.ready[6:]}; theirs: {theirs.ready[6:]}")
    print(f"greedy tokens alike: {equal} of {tokens}")
    print(f"{'phase':9} {'batch':>5} {'ours/s':>9} {'peer/s':>9} {'ratio':>6} {'(turns)':>13} {'wanted':>6}  "
          f"{'ours of bound':>13} {'peer of bound':>13}")
    peaks = Peaks(ours)
    peaks.measure()
    for phase in options.phases.split(","):
        for batch in [1] if phase == "prefill" else [int(b) for b in options.batches.split(",")]:
            r = turns(options, ours, theirs, peaks, phase, batch)
            want = wanted(form, phase, batch)
            mark = "" if not want else f"{want:.1f}" + ("" if r["ratio"] >= want else " !")
            print(f"{phase:9} {batch:5} {r['ours']:9.1f} {r['peer']:9.1f} {r['ratio']:6.2f} "
                  f"{r['spread'][0]:6.2f}-{r['spread'][1]:<6.2f} {mark:6}  {100 * r['fraction']:6.0f} % {r['bound']:4.4} "
                  f"{100 * r['peer_fraction']:10.0f} %" + (f"  rescored {r['ours_rescored']:.1f}" if "ours_rescored" in r else ""),
                  flush=True)
            record = {"model": name, "format": form, "batch": batch, "phase": phase, **r, "isa": options.isa or "best",
                      "threads": options.threads, "context": 512 if phase == "prefill" else options.context,
                      "greedy_alike": [equal, tokens], "wanted": want}
            print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()}), file=out, flush=True)
    print(peaks.text())
    ours.close()
    theirs.close()


# ---- whole rollout steps ----

SLOTS, RESPONSE_MEDIAN, RESPONSE_MAX = 32, 24, 512
SYNC = ("scheduler.over_sampling=1", "scheduler.partial_rollouts=false", "scheduler.migrate=false")
APRIL = ("scheduler.over_sampling=1.5", "scheduler.partial_rollouts=true")
WAYS = {  # name -> (options, steps before those that count)
    "exact": (("rollout.mode=exact", *SYNC), 0),
    "speculative": (("rollout.mode=speculative", *SYNC), 0),
    "april": (("rollout.mode=exact", *APRIL), 1),
    "all": (("rollout.mode=speculative", *APRIL, "scheduler.order=longest"), 1),
}


def step_model(options):
    """A real model of STEP parameters, by growing (same tokens), and its prompts with a long tail of limits."""
    small, questions = f"{options.data}/models/minimind2-small", f"{options.data}/prompts/gsm8k_test.jsonl"
    name = "minimind2-small"
    if not os.path.exists(f"{small}/config.json") or not os.path.exists(questions):
        small, questions, name = "configs/quickstart", "configs/quickstart/prompts.jsonl", "quickstart"
    directory = f"{options.dir}/models/{name}-{options.grow / 1e6:.0f}M"
    if not os.path.exists(f"{directory}/model.safetensors"):
        os.makedirs(directory, exist_ok=True)
        run(options.drumroll, "bench", "grow", "--model", small, "--parameters", str(options.grow), "--out", directory)
    prompts = f"{options.dir}/step-prompts.jsonl"
    order = [(i + 0.5) / options.groups for i in range(options.groups)]
    random.Random(1).shuffle(order)
    with open(questions) as lines, open(prompts, "w") as out:
        for i, (line, q) in enumerate(zip(lines, order)):
            row = json.loads(line)
            text = {"messages": [{"role": "user", "content": row["question"]}]} if "question" in row else {"prompt": row["prompt"]}
            limit = round(RESPONSE_MEDIAN * math.exp(statistics.NormalDist().inv_cdf(q)))
            print(json.dumps({"id": f"p{i}", **text, "max_tokens": max(1, min(RESPONSE_MAX, limit))}), file=out)
    return f"{name} grown to {options.grow / 1e6:.0f} M", directory, prompts


def step_run(options, name, directory, prompts, way):
    """A run of ours; its metrics of the steps that count, and its directory."""
    settings, before = WAYS[way]
    run_dir = f"{options.dir}/runs/{way}"
    shutil.rmtree(run_dir, ignore_errors=True)
    workers = options.step_workers
    sets = [f"run.dir={run_dir}", f"run.steps={before + options.steps}", "trainer.kind=none", "data.eval_prompts=",
            "reward.kind=none", "advantage.estimator=grpo", f"data.prompts={prompts}", f"model.path={directory}",
            f"rollout.group_size={options.samples}", f"rollout.max_tokens={RESPONSE_MAX}", f"scheduler.groups_per_step={options.groups}",
            f"worker.threads={max(1, options.threads // workers)}", f"worker.max_active={SLOTS // workers}",
            "worker.kv_memory_mb=1024", *settings]
    command = ["mpirun", "-n", str(1 + workers), options.drumroll, "run", "configs/quickstart/run.yaml"]
    done = subprocess.run(command + [w for s in sets for w in ("--set", s)], capture_output=True, text=True,
                          env={**os.environ, **({"DRUMROLL_CPU": options.isa} if options.isa else {})})
    if done.returncode:
        sys.exit(f"bench-peer: {way}: {done.stderr[-500:]}")
    with open(f"{run_dir}/metrics.jsonl") as lines:
        return [json.loads(line) for line in lines][before:], run_dir


def step_requests(options, run_dir, path):
    """What a run delivered as requests for the peer, a step's groups in order."""
    text = subprocess.run([options.drumroll, "export", run_dir, "--stable"], check=True, capture_output=True, text=True).stdout
    samples = sorted((json.loads(line) for line in text.splitlines()), key=lambda s: (s["group_id"], s["sample"]))
    groups = {g: i for i, g in enumerate(dict.fromkeys(s["group_id"] for s in samples))}
    tokens = 0
    with open(path, "w") as out:
        for s in samples:
            i = groups[s["group_id"]]
            prompt = s["tokens"][:s["n_prompt"]]
            tokens += len(s["tokens"]) - len(prompt)
            print(i // options.groups, i, len(s["tokens"]) - len(prompt), len(prompt), *prompt, file=out)
    return len(samples), tokens


def step_rate(metrics):
    """Tokens per second and seconds of a step."""
    took = sum(m["perf/rollout_time"] for m in metrics)
    return sum(m["rollout/tokens"] for m in metrics) / took, took / len(metrics)


def measure_steps(options, out):
    name, directory, prompts = step_model(options)
    gguf = exported(options, os.path.basename(directory), directory, "bf16")
    requests = os.path.abspath(f"{options.dir}/step-requests.txt")
    ours, theirs = open_sides(options, directory, gguf, "bf16")
    ours.close()
    _, run_dir = step_run(options, name, directory, prompts, "exact")
    n, tokens = step_requests(options, run_dir, requests)
    with open(requests) as lines, open(requests + ".few", "w") as few:
        few.writelines(lines.readlines()[:SLOTS])
    shared = min((0, 1), key=lambda way: sum(theirs.ask("serve", requests + ".few", SLOTS, way)))
    print(f"\n{name}: {options.groups} prompts x {options.samples} samples a step, responses {tokens / n:.0f} tokens in the mean, "
          f"limits of prompts log-normal; {options.step_workers} worker(s), {SLOTS} slots on either side; the peer "
          f"{'computes a prompt once a group' if shared else 'computes every prompt'}")
    seen = {way: [] for way in WAYS}
    for _ in range(options.step_repeat):
        before = tokens / sum(theirs.ask("serve", requests, SLOTS, shared))
        for pair in (("exact", "speculative"), ("april", "all")):
            rates = {way: step_rate(step_run(options, name, directory, prompts, way)[0]) for way in pair}
            after = tokens / sum(theirs.ask("serve", requests, SLOTS, shared))
            for way in pair:
                seen[way].append((*rates[way], (before + after) / 2))
            before = after
    print(f"{'':12} {'s/step':>7} {'tokens/s':>9} {'peer s/step':>11} {'tokens/s':>9} {'ratio':>6}  (turns)")
    for way, runs in seen.items():
        ours_rate, took, peer_rate = (statistics.median(column) for column in zip(*runs))
        ratios = [r[0] / r[2] for r in runs]
        peer_step = tokens / n * options.groups * options.samples / peer_rate
        print(f"{way:12} {took:7.2f} {ours_rate:9.1f} {peer_step:11.2f} {peer_rate:9.1f} {statistics.median(ratios):6.2f}  "
              f"{min(ratios):.2f}-{max(ratios):.2f}", flush=True)
        print(json.dumps({"model": name, "format": "bf16", "batch": SLOTS, "phase": "step", "mode": way, "ours": round(ours_rate, 2),
                          "peer": round(peer_rate, 2), "ratio": round(statistics.median(ratios), 4),
                          "ours_step_seconds": round(took, 3), "peer_step_seconds": round(peer_step, 3),
                          "isa": options.isa or "best", "threads": options.threads}), file=out, flush=True)
    theirs.close()


def main():
    options = arguments()
    os.makedirs(os.path.dirname(options.out) or ".", exist_ok=True)
    with open(options.out, "w") as out:
        for name in options.models.split(","):
            if name == "step":
                measure_steps(options, out)
                continue
            for form in options.formats.split(","):
                measure(options, out, name, form)
    print(f"\n{options.out}")


if __name__ == "__main__":
    main()
