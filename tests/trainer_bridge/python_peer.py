"""python_peer.py ADDRESS SECRET - the Python client against the server that test_python_client.c runs.

What is expected of the trajectories is what tests/support/bridge_fixture.c makes.
"""
import array
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "trainer_bridge", "python"))
from drumroll_client import Client, ProtocolError, RunError, to_bf16  # noqa: E402

address, secret = sys.argv[1:3]


def check_trajectory(t, batch_id, i, n_response):
    group, sample = batch_id * 10 + i, i % 3
    assert (t.id, t.group, t.sample, t.group_size) == (group * 4096 + sample, group, sample, sample + 3)
    assert (t.prompt_id, t.answer, t.meta) == ("gsm8k/\u00fc-17", "\u2212 42\n\"quoted\"", "{\"level\":5}")
    assert t.seed == 0xfedcba9876543210 + sample
    assert t.n_prompt == 3 and list(t.tokens) == [1, 70000, 42] + [100 + k for k in range(n_response)]
    assert list(t.logprobs) == [0.0] * 3 + [-0.125 * k for k in range(n_response)]
    assert list(t.target_logprobs) == [0.0] * 3 + [float("-inf") if k == 1 else -0.25 * k for k in range(n_response)]
    half = n_response // 2
    assert list(t.versions) == [-1] * 3 + [6] * half + [7] * (n_response - half)
    assert list(t.mask) == [0] * 3 + [1] * n_response
    assert t.segments == [(3, half, 6, 1, 1), (3 + half, n_response - half, 7, 1, 1)]
    assert (t.finish, t.reward, t.reward_steps, t.pivot) == ("error", 0.1, 1 / 3, True)
    assert struct.pack("f", t.advantage) == struct.pack("f", -1.7)
    assert (t.drafted, t.accepted, t.decode_s, t.staleness_min) == (40, 30, 3.25, -1)


def weights_of(client):
    """Odd tensors as BF16 words, even ones as float32 that must be rounded: 1 + 3/512 is above the middle."""
    made = {"lm_head.weight": b"left out, it is tied"}
    for i, (name, (shape, dtype)) in enumerate(client.tensors.items()):
        assert dtype == "bf16"
        n = shape[0] * (shape[1] if len(shape) == 2 else 1)
        made[name] = array.array("H", [0x3f00 + (k + i) % 256 for k in range(n)]) if i % 2 else \
            array.array("f", [1 + 3 / 512] * n)
    return made


def expect(kind, said, call, *args, **named):
    try:
        call(*args, **named)
    except kind as error:
        assert said in str(error), f"'{error}' does not say '{said}'"
        return error
    raise AssertionError(f"no {kind.__name__} where one was expected")


def main():
    expect(RunError, "not the one of this run", Client, address, "wrong secret", connect_seconds=1)
    expect(ProtocolError, "none was given", Client, address, connect_seconds=1)
    expect(ConnectionError, "is it running?", Client, "unix:/nowhere/sock", connect_seconds=0.1)
    for bad in ("pigeon:1", "unix:", "tcp:host", "tcp:host:port"):
        expect(ValueError, "unix:PATH", Client, bad)

    client = Client(address, secret, name="python peer", timeout=5)
    assert client.run_id == "run-1" and client.version == 0
    first = client.pull()
    client.close()  # without an acknowledgement

    with Client(address, secret, name="python peer", timeout=5) as client:
        seen = []
        for batch in client.batches():
            assert batch.step == batch.batch_id and batch.version == 7
            assert len(batch.trajectories) == 30 * batch.batch_id
            for i, t in enumerate(batch.trajectories):
                check_trajectory(t, batch.batch_id, i, 9)
            seen.append(batch.batch_id)
            version = len(seen)
            client.push_weights(version, weights_of(client), chunk_bytes=1000)
            client.report(step=batch.step, tokens=5, loss=0.25 * version)
        assert first.batch_id == 1 and seen == [1, 2, 3]
        assert client.version == 3
        refused = expect(RunError, "push 4 or more", client.push_weights, 3, weights_of(client))
        assert refused.code == "invalid" and not refused.may_retry and not refused.fatal
        expect(KeyError, "model.embed_tokens.weight", client.push_weights, 4, {})
        assert client.pull() is None

    assert bytes(to_bf16(array.array("f", [1.0, float("nan"), 1 + 1 / 256, 1 + 3 / 256]))) == \
        struct.pack("<4H", 0x3f80, 0x7fc0, 0x3f80, 0x3f82)  # halves go to even
    expect(TypeError, "dequantize", to_bf16, array.array("i", [1]))
    print("the Python client is content")


main()
