"""python_requests.py ADDRESS MODEL_DIR - the Python client's requests and pushes against a real run.

The run: data.source=trainer, 7 steps of 2 groups of 2 samples (MC-GRPO draws 3), weights.keep_versions=8.  Prints a
line `ok NAME` for each thing that holds.
"""
import os
import random
import sys
import tempfile

import numpy as np

tests = os.path.join(os.path.dirname(__file__), "..")
sys.path[:0] = [os.path.join(tests, "..", "trainer_bridge", "python"), os.path.join(tests, "trainer_bridge")]
from cutting_proxy import Proxy  # noqa: E402
from drumroll_client import (BatchRestarted, Client, ConnectionLost, RunError, from_bf16,  # noqa: E402
                             read_model, to_bf16)

address, model = sys.argv[1:3]
SUMS = [(a, b) for a in (3, 12, 40) for b in (1, 9, 25, 31, 44)]


def refused(code, call, *args, **named):
    try:
        call(*args, **named)
    except RunError as error:
        assert error.code == code and not error.fatal, error
        return
    raise AssertionError(f"expected a refusal: {code}")


def wrong(kind, said, call, *args, **named):
    try:
        call(*args, **named)
    except kind as error:
        assert said in str(error), error
        return
    raise AssertionError(f"expected a {kind.__name__}")


def same_bits(a, b):
    return all(np.array_equal(x.view(np.uint32), y.view(np.uint32)) for x, y in zip(a, b)) and len(a) == len(b)


def submit_through_breaks(prompts):
    """Each connection is cut in or soon after its handshake, so a request may have arrived and its answer not."""
    chance = random.Random(3)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "sock")
        proxy = Proxy(path, address, iter([None] + [chance.randint(2500, 4500) for _ in range(400)]))
        with Client("unix:" + path, name="broken", timeout=20, reconnect_seconds=20) as client:
            client._wire.close()       # the first connection is let through, and lost at once
            for prompt in prompts:
                done = False
                while not done:
                    try:
                        client.submit([{**prompt, "epoch": 0}], max_tokens=40)
                        done = True
                    except ConnectionLost:
                        pass
            assert client.breaks > 2 and proxy.cuts > 2, (client.breaks, proxy.cuts)
            print(f"{len(prompts)} prompts submitted over {proxy.cuts} cuts")


def submit(client):
    prompts = [{"text": f"{a}+{b}=\n", "answer": a + b, "meta": {"sum": a + b}} for a, b in SUMS]
    submit_through_breaks(prompts)
    again = client.submit([{**prompts[-1], "epoch": 0}])  # it waits still
    # The step has taken up what its groups need, by two and a half times at most.
    assert 0 <= again - (client.limits["prompts_max"] - len(SUMS)) <= 5, again
    wrong(KeyError, "did you mean 'text'", client.submit, [{"txt": "1+1="}])
    wrong(ValueError, "exactly one", client.submit, [{"answer": "2"}])
    wrong(TypeError, "did you mean 'temperature'", client.submit, ["1+1="], temprature=1)
    refused("invalid", client.submit, ["1+1="], samples=0)
    print("ok prompts are taken once, and mistakes are told")


def check_batch(batch, hints):
    for t in batch.trajectories:
        assert t.answer == str(t.metadata["sum"]) and t.max_tokens == 40
    hint = next(h for h in hints if h.batch_id == batch.batch_id)
    assert list(hint.groups) == [t.group for t in batch.trajectories]
    assert list(hint.prompts + hint.responses) == [t.n_tokens for t in batch.trajectories]
    rows = batch.padded()
    assert rows.tokens.shape == rows.loss_mask.shape == rows.versions.shape
    assert (rows.loss_mask[~rows.attention_mask] == 0).all()


def evaluate(client):
    greedy = client.evaluate(temperature=0)
    assert len(greedy.trajectories) == 24 and all(t.eval and not t.is_trained for t in greedy.trajectories)
    assert greedy.version == 0 and 0 < greedy.pass_rate < 1
    again = client.evaluate(temperature=0)
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(greedy.trajectories, again.trajectories))
    own = client.evaluate([{"text": "3+1=\n", "answer": 4},
                           {"tokens": greedy.trajectories[0].tokens[:3], "answer": "none"}], samples=3, max_tokens=5)
    assert [t.group_size for t in own.trajectories] == [3] * 6
    assert all(t.n_tokens - t.n_prompt <= 5 for t in own.trajectories)
    print("ok evaluations of held-out and own prompts are drawn beside training")


def learn(client, batches, words):
    """Versions 1 (delta), 2 (LoRA pairs), 3 (the same as a delta), 4 (a small delta), 5 (against a wrong base)."""
    hints_of = client.hints
    batch = next(batches)
    check_batch(batch, hints_of)
    evaluate(client)               # the run waits for weights
    scored = client.score(batch.trajectories, 0)
    assert same_bits(scored.logprobs, [t.logprobs for t in batch.trajectories])
    part = client.score([batch.trajectories[0].tokens], 0, n_prompt=batch.trajectories[0].n_prompt, temperature=0.5)
    assert not same_bits(part.logprobs, scored.logprobs[:1])
    refused("missing", client.score, batch.trajectories, 77)
    print("ok scores under a kept version are those on record, bit for bit")

    one = {name: w.copy() for name, w in words.items()}
    one["model.norm.weight"][::7] ^= 1
    full = sum(w.nbytes for w in words.values())
    client.remember_base(0, words)  # the model directory
    sent = client.push_delta(1, one)
    assert client.version == 1 and 0 < sent < 1000, f"{sent} of {full} bytes"

    batch = next(batches)
    check_batch(batch, hints_of)
    assert batch.version == 1 and all((t.versions[t.n_prompt:] == 1).all() for t in batch.trajectories)
    chance, module = np.random.default_rng(1), "model.layers.1.self_attn.q_proj"
    rows, cols = words[module + ".weight"].shape
    a, b = (chance.standard_normal(shape).astype(np.float32) / 16 for shape in ((2, cols), (rows, 2)))
    prefix = f"base_model.model.{module}.lora_"
    wrong(ValueError, "expected shape", client.push_lora, 2, {prefix + "A.weight": a, prefix + "B.weight": a}, alpha=4)
    wrong(KeyError, "lora_A.weight", client.push_lora, 2, {"nonsense.weight": a}, alpha=4)
    client.push_lora(2, {prefix + "A.default.weight": a, prefix + "B.default.weight": b}, alpha=4)
    merged = dict(one)
    product = b[:, :1] * a[:1] + b[:, 1:] * a[1:]
    merged[module + ".weight"] = to_bf16(from_bf16(one[module + ".weight"]) + np.float32(2) * product)

    check_batch(next(batches), hints_of)
    sent = client.push_delta(3, merged)   # against 1: adapters are no base
    assert 0 < sent < full / 10, f"{sent} of {full} bytes"
    batch = next(batches)
    assert batch.version == 3
    both = [client.score(batch.trajectories, version).logprobs for version in (1, 2, 3)]
    assert same_bits(both[1], both[2]) and same_bits(both[2], [t.logprobs for t in batch.trajectories])
    assert not same_bits(both[0], both[1])
    print("ok LoRA pairs give the same policy as the merged weights")
    sent = client.push_delta(4, {**merged, "model.norm.weight": words["model.norm.weight"]})
    assert client.version == 4 and 0 < sent < 300, f"{sent} of {full} bytes"
    print("ok a delta of a few values is small")
    check_batch(next(batches), hints_of)
    client.remember_base(2, one)   # a mistake: the run holds 4
    assert client.push_delta(5, words) == full and client.version == 5
    print("ok a delta against the wrong base goes in full")


def main():
    words = read_model(model, words=True)[1]
    hints = []
    with Client(address, name="requests", timeout=90, order="completion", on_lengths=hints.append) as client:
        client.hints = hints
        wrong(ValueError, "no address", Client, "nowhere")
        assert len(client.evaluate(temperature=0).trajectories) == 24
        print("ok an evaluation is served before any prompt has come")
        submit(client)
        batches = client.batches()
        learn(client, batches, words)
        client.ack(5)              # `batches` would ask for the next one at once
    with Client(address, name="pieces", timeout=90, micro_batch=1) as client:
        sizes, batch_ids = [], []
        for step in client.steps():
            try:
                sizes.append([len(piece.trajectories) for piece in step])
            except BatchRestarted:
                continue
            batch_ids.append(step.batch_id)
            client.push_weights(client.version + 1, words, retry_seconds=60)
        assert sizes == [[3], [3]] * 2 or sizes == [[3, 3]] * 2, sizes
        assert batch_ids == [6, 7], batch_ids
    print("ok a step comes in pieces of a group each")


main()
