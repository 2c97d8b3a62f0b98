#!/usr/bin/env python3
"""tests/bench/allocation.py [DRUMROLL] - samples that second stages by difficulty save at the same coverage.

Coverage: the share of prompts with at least one right sample among those that they got, pass@n with n the prompt's own.
Fixed weights (the quickstart model as it comes, which is right in a third of its samples), PROMPTS prompts for each of
SEEDS seeds.  For each seed a run with POOL samples for every prompt says which of them are right.  Uniform allocation of n
takes the first n of each prompt; DARS takes the first 8, and as many more as its rule says.  Both over ORDERS random
orders of the pool (uniform: all orders at once, 1 - C(wrong, n) / C(POOL, n)).  In the order in which they were drawn these
are the samples of DARS' own run, which is run, too, and must give the same ones.

"uniform needs": how many samples per prompt uniform allocation takes to the same coverage, interpolated between whole
numbers.  Intervals are those of Student's t over seeds, 95 %.

    SEEDS=5 PROMPTS=128 POOL=64 ORDERS=100
"""
import collections
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

drumroll = sys.argv[1] if len(sys.argv) > 1 else "build/drumroll"
SEEDS, PROMPTS, POOL, ORDERS = (int(os.environ.get(name, default))
                                for name, default in (("SEEDS", 5), ("PROMPTS", 128), ("POOL", 64), ("ORDERS", 100)))
T95 = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
N = 8
RULES = [(kind, estimator, n_max) for n_max in (32, 64) for kind in ("dars_et", "dars_hw") for estimator in ("grpo", "dr_grpo")]


def run(seed, *sets):
    """{prompt: [right or not, by sample]} of one run, and its metrics."""
    directory = tempfile.mkdtemp()
    try:
        options = ["run.seed=%d" % seed, "run.dir=" + directory + "/run", "run.steps=1", "trainer.kind=none", "data.eval_prompts=",
                   "scheduler.groups_per_step=%d" % PROMPTS, "scheduler.over_sampling=1", "advantage.drop_degenerate=false", *sets]
        command = ["mpirun", "-n", "3", drumroll, "run", "configs/quickstart/run.yaml"]
        subprocess.run(command + [word for option in options for word in ("--set", option)], check=True, stdout=subprocess.DEVNULL)
        lines = subprocess.run([drumroll, "export", directory + "/run"], check=True, capture_output=True, text=True).stdout
        table = collections.defaultdict(list)
        for r in sorted(map(json.loads, lines.splitlines()), key=lambda r: r["id"]):
            table[r["prompt_id"]].append(r["reward_answer"])
        metrics = [json.loads(line) for line in open(directory + "/run/metrics.jsonl")]
        return dict(table), metrics[0]
    finally:
        shutil.rmtree(directory)


def size(rule, samples):
    """The rule once more, apart from the program's."""
    kind, estimator, n_max = rule
    a = sum(samples[:N]) / N
    if a >= 0.5:
        return N
    a = a or 0.5 / N
    s, peak = (2 * math.sqrt(a * (1 - a)), N) if estimator == "grpo" else (2 * a * (1 - a), N / 2)
    aim = peak if kind == "dars_et" else 2 * (1 - a) * peak
    return min(N + math.ceil((aim - N * s) / s - 1e-9), n_max)


def uniform_curve(table):
    """Coverage by samples per prompt, from 0."""
    wrong = [sum(not right for right in samples) for samples in table.values()]
    return [statistics.mean(1 - math.comb(w, n) / math.comb(POOL, n) for w in wrong) for n in range(POOL + 1)]


def second_stages(rule, table, orders):
    """Samples per prompt and coverage, means over orders of the pool."""
    taken = covered = 0
    for order in orders:
        for samples in table.values():
            shuffled = [samples[i] for i in order]
            n = size(rule, shuffled)
            taken += n
            covered += any(shuffled[:n])
    return taken / len(orders) / len(table), covered / len(orders) / len(table)


def uniform_needs(curve, coverage):
    """curve[n] for n from 0; math.inf beyond the pool."""
    for n in range(1, len(curve)):
        if curve[n] >= coverage:
            gain = curve[n] - curve[n - 1]
            return n - (curve[n] - coverage) / gain if gain > 0 else n
    return math.inf


def interval(values):
    if len(values) < 2:
        return "%.3g" % values[0]
    return "%.3g +- %.2g" % (statistics.mean(values), T95.get(len(values), 2.1) * statistics.stdev(values) / math.sqrt(len(values)))


found = collections.defaultdict(list)
rates, checked = [], 0
curves = []
for seed in range(1, SEEDS + 1):
    table, _ = run(seed, "rollout.group_size=%d" % POOL, "advantage.estimator=grpo")
    rates.append(sum(map(sum, table.values())) / (POOL * len(table)))
    curves.append(uniform_curve(table))
    rng = random.Random(seed)
    orders = [rng.sample(range(POOL), POOL) for _ in range(ORDERS)]
    for rule in RULES:
        mean, coverage = second_stages(rule, table, orders)
        found[rule].append((mean, coverage, uniform_needs(curves[-1], coverage)))
    rule = RULES[seed % 4]
    real, metrics = run(seed, "rollout.group_size=%d" % N, "advantage.estimator=" + rule[1], "allocation.kind=" + rule[0],
                        "allocation.n_max=%d" % rule[2])
    same = all(real[p] == table[p][:size(rule, table[p])] for p in table)
    assert same and metrics["allocation/samples"] == sum(map(len, real.values())), "the engine's run is another one"
    checked += 1

print(f"{SEEDS} seeds of {PROMPTS} prompts; right: {interval(rates)} of samples; {checked} runs of the engine gave the same samples")
print("uniform n: coverage  " + ", ".join(f"{n}: {interval([c[n] for c in curves])}" for n in (8, 16, 32, 64) if n <= POOL))
print("| rule, estimator, n_max | samples per prompt | coverage | uniform needs | fewer, % |\n|---|---|---|---|---|")
for rule in RULES:
    mean, coverage, needs = zip(*found[rule])
    fewer = [100 * (1 - m / n) for m, n in zip(mean, needs)]
    print(f"| {rule[0]}, {rule[1]}, {rule[2]} | {interval(mean)} | {interval(coverage)} | {interval(needs)} | {interval(fewer)} |")
