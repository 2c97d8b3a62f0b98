"""grpo_torch.py ADDRESS MODEL_DIR [options]: a GRPO trainer in PyTorch that learns from a drumroll run.

    python3 grpo_torch.py unix:runs/demo/bridge.sock models/demo        # `make run-torch` does it with the quickstart

Advantages come with the trajectories (the run's estimator made them), so what is left is: log-probabilities of the
tokens, an objective, a step of AdamW on an FP32 master copy, and its BF16 rounding back to the run.

Three policies meet in the objective: *behaviour* drew the tokens (its log-probabilities are recorded), *proximal* is
the one at the start of the batch, *current* the one being trained.  With r = current / proximal, c = proximal /
behaviour, and clip(r) = r bounded to [1 - clip_low, 1 + clip_high]:

    clipped     -min(q A, clip(q) A), q = current / behaviour    PPO and GRPO as published: one old policy
    decoupled   -c min(r A, clip(r) A)                           Hilton et al. 2022; AReaL's asynchronous objective
    tis         -min(c, tis_clip) min(r A, clip(r) A)            truncated importance sampling (FlashRL; verl, slime)

Where samples were drawn under the weights that are trained, c = 1 and r = 1 in the first minibatch, and all agree.
"""

import argparse
import json
import os
import sys
import time
from typing import Dict, List, Tuple

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))  # where it is not installed

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads of ours do not keep the ranks from working

import numpy as np  # noqa: E402
import torch  # noqa: E402

from drumroll_client import Batch, Client, Padded, rollout_correction  # noqa: E402
from llama_torch import Llama, round_bf16  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="unix:PATH or tcp:HOST:PORT")
    parser.add_argument("model", help="the Hugging Face directory that the run generates with")
    parser.add_argument("--objective", choices=("clipped", "decoupled", "tis"), default="tis")
    parser.add_argument("--tis-clip", type=float, default=2.0, help="largest importance weight (2)")
    parser.add_argument("--clip-low", type=float, default=0.2)
    parser.add_argument("--clip-high", type=float, default=0.28, help="clip-higher of DAPO")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--grad-clip", type=float, default=1.0)
    parser.add_argument("--minibatches", type=int, default=1, help="optimizer steps per batch (1)")
    parser.add_argument("--micro-tokens", type=int, default=4096, help="tokens, padding counted, in one forward pass")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--secret-file", help="the run's bridge.secret_file")
    parser.add_argument("--deltas", action="store_true", help="push what changed (needs the zstandard package)")
    parser.add_argument("--evaluate-every", type=int, default=0, help="steps between greedy held-out pass rates")
    parser.add_argument("--metrics", help="append every step's metrics to this file as JSON lines")
    return parser.parse_args()


class Trainer:
    """BF16 parameters, which the forward pass and the run see, and their FP32 master, which AdamW moves.

    Only the rounding leaves this process.  A step of the size learning_rate is often smaller than half a unit of a
    BF16 weight (2^-9 of it): the master adds such steps up until they show.  Training the BF16 values themselves
    would lose them; rounding stochastically would keep them in the mean, at the price of noise in the policy.
    """

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.model = Llama(options.model)
        self.master = {name: p.detach().clone() for name, p in self.model.params.items()}
        self.optimizer = torch.optim.AdamW(self.master.values(), lr=options.learning_rate, betas=(0.9, 0.95),
                                           weight_decay=0.0)

    def logprobs(self, rows: Padded) -> Tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of the n tokens with loss, at the temperature that drew them: [n], [n]."""
        chosen = torch.from_numpy(rows.loss_mask[:, 1:] > 0)
        tokens = torch.from_numpy(rows.tokens)
        logits = self.model.logits(self.model.hidden(tokens[:, :-1])[chosen])  # [n][V], only where it is needed
        logits = logits / torch.from_numpy(rows.temperatures)[:, None].expand(chosen.shape)[chosen][:, None]
        every = torch.log_softmax(logits, -1)
        entropy = -(every.detach().exp() * every.detach()).sum(-1)
        return every.gather(-1, tokens[:, 1:][chosen][:, None])[:, 0], entropy

    def objective(self, logp: torch.Tensor, proximal: torch.Tensor, behaviour: torch.Tensor, advantage: torch.Tensor):
        """Loss of each token, its importance weight, and whether the clip decided: [n] each."""
        o = self.options
        old = behaviour if o.objective == "clipped" else proximal
        weight = torch.ones_like(logp) if o.objective == "clipped" else (proximal - behaviour).exp()
        if o.objective == "tis":
            weight = weight.clamp(max=o.tis_clip)
        ratio = (logp - old).exp()
        bounded = ratio.clamp(1 - o.clip_low, 1 + o.clip_high)
        return (-weight * torch.minimum(ratio * advantage, bounded * advantage), weight,
                bounded * advantage < ratio * advantage)

    def minibatch(self, micro_batches: List[Padded], proximals: List[torch.Tensor]) -> Dict[str, float]:
        """One optimizer step; the loss is the mean over tokens, each with its sample's loss weight.  Where there are
        no `proximals` yet, the weights are still those of the batch's start, and they are filled in."""
        total = sum(float(rows.loss_mask.sum()) for rows in micro_batches)
        sums = dict.fromkeys(("loss", "clip_frac", "tis_mean", "entropy", "tokens"), 0.0)
        for i, rows in enumerate(micro_batches):
            logp, entropy = self.logprobs(rows)
            part = chosen(rows)
            if i == len(proximals):
                proximals.append(logp.detach())
            loss, weight, clipped = self.objective(logp, proximals[i], part["behaviour"], part["advantage"])
            loss = (loss * part["loss_weight"]).sum() / total
            loss.backward()
            for key, value in (("loss", loss), ("clip_frac", clipped.sum()), ("tis_mean", weight.sum()),
                               ("entropy", entropy.sum()), ("tokens", len(logp))):
                sums[key] += float(value)
        for name, parameter in self.model.params.items():
            self.master[name].grad, parameter.grad = parameter.grad, None
        norm = torch.nn.utils.clip_grad_norm_(self.master.values(), self.options.grad_clip, error_if_nonfinite=True)
        self.optimizer.step()
        with torch.no_grad():
            for name, parameter in self.model.params.items():
                parameter.copy_(round_bf16(self.master[name]))
        return {"grad_norm": float(norm), **sums}

    def step(self, batch: Batch, version: int) -> Dict[str, float]:
        """One batch: log-probabilities of the proximal policy for all but the first minibatch, which computes them
        anyway, then the minibatches.  version: of our weights."""
        o = self.options
        minibatches = [list(batch.micro_batches(o.micro_tokens, part=i, parts=o.minibatches))
                       for i in range(o.minibatches)]
        with torch.no_grad():
            proximals: List[List[torch.Tensor]] = [[]]
            proximals += [[self.logprobs(rows)[0] for rows in micro_batches] for micro_batches in minibatches[1:]]
        everything = [rows for micro_batches in minibatches for rows in micro_batches]
        if not everything:
            return {"tokens": 0.0}
        steps = [self.minibatch(*both) for both in zip(minibatches, proximals) if both[0]]
        metrics = compare(everything, [p for part in proximals for p in part], version, o.tis_clip)
        metrics["tokens"] = sum(s["tokens"] for s in steps)
        for key in ("loss", "grad_norm"):
            metrics[key] = sum(s[key] for s in steps) / len(steps)
        for key in ("clip_frac", "tis_mean", "entropy"):
            metrics[key] = sum(s[key] for s in steps) / metrics["tokens"]
        return metrics


def chosen(rows: Padded) -> Dict[str, torch.Tensor]:
    """What belongs to the n tokens with loss, [n] each, in the order of Trainer.logprobs."""
    mask = rows.loss_mask[:, 1:] > 0
    of_sample = np.broadcast_to(rows.advantages[:, None], mask.shape)
    return {name: torch.from_numpy(array[mask]) for name, array in (
        ("behaviour", rows.logprobs[:, 1:]), ("advantage", of_sample), ("loss_weight", rows.loss_mask[:, 1:]),
        ("version", rows.versions[:, 1:]))}


def compare(everything: List[Padded], proximals: List[torch.Tensor], version: int, tis_clip: float) -> Dict[str, float]:
    """The engine's log-probabilities against ours: of all tokens, where staleness counts too, and `same_version/` of
    those that our very weights drew, where all there is are two programs' roundings."""
    parts = [chosen(rows) for rows in everything]
    behaviour, trainer = torch.cat([p["behaviour"] for p in parts]).numpy(), torch.cat(proximals).numpy()
    ours = (torch.cat([p["version"] for p in parts]) == version).numpy()
    metrics = rollout_correction(behaviour, trainer, np.ones_like(ours), tis_clip)
    same = rollout_correction(behaviour, trainer, ours, tis_clip)
    metrics["same_version/logprob_abs_diff"] = same["rollout_corr/logprob_abs_diff"]
    metrics["same_version/token_mult_prob_error"] = same["rollout_corr/token_mult_prob_error"]
    metrics["same_version/fraction"] = float(ours.mean())
    return metrics


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    secret = open(options.secret_file, "rb").readline().strip() if options.secret_file else None
    trainer = Trainer(options)
    with Client(options.address, secret, name="grpo_torch") as client:
        if client.version > 0:
            raise SystemExit(f"the run's policy is at version {client.version} and {options.model} is where it began: "
                             "training on would throw away what it has learned; start a new run")
        version = 0
        for batch in client.batches():  # acknowledged once its weights are with the run: a crash repeats the step
            start = time.monotonic()
            metrics = trainer.step(batch, version)
            metrics["seconds"] = time.monotonic() - start
            client.report(batch.step, int(metrics["tokens"]), learning_rate=options.learning_rate,
                          **{key: metrics[key] for key in metrics if "/" not in key and key != "tokens"})
            version += 1
            push = client.push_delta if options.deltas else client.push_weights
            metrics["push_bytes"] = push(version, trainer.model.params, retry_seconds=60)
            if options.evaluate_every and version % options.evaluate_every == 0:
                metrics["eval/pass_rate"] = client.evaluate(temperature=0).pass_rate
            print(f"step {batch.step:3d}  reward {batch.reward_mean or 0:.3f}  " + "  ".join(
                f"{key.replace('rollout_corr/', '')} {metrics[key]:.{digits}}" for key, digits in (
                    ("loss", "4f"), ("grad_norm", "3f"), ("entropy", "3f"), ("rollout_corr/kl", "2e"),
                    ("rollout_corr/token_mult_prob_error", "6f"), ("same_version/logprob_abs_diff", "2e"),
                    ("eval/pass_rate", "3f"), ("seconds", "1f")) if key in metrics), flush=True)
            if options.metrics:
                with open(options.metrics, "a", encoding="utf-8") as f:
                    f.write(json.dumps({"step": batch.step, "version": version, **metrics}) + "\n")
    print("the run is over")


if __name__ == "__main__":
    main()
