"""external_trainer.py ADDRESS MODEL_DIR - plugs into a run as a user's trainer would.

Gives the run's own weights back: once before it takes a batch, then once per batch, so a sample's tokens
do not depend on when its version changed.  Leaves once without an acknowledgement and comes back.
"""
import json
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "trainer_bridge", "python"))
from drumroll_client import Client  # noqa: E402


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    return {name: memoryview(data)[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]].cast("H")
            for name, t in header.items() if name != "__metadata__"}


def main():
    address, model = sys.argv[1:3]
    weights = read_safetensors(os.path.join(model, "model.safetensors"))
    seen, version = [], 1

    with Client(address, name="external", timeout=240) as client:
        client.push_weights(version, weights)
        batch = client.pull(timeout=240)
        seen.append(batch.batch_id)  # not acknowledged: this trainer goes down here
    with Client(address, name="external again", timeout=240) as client:
        for batch in client.batches():
            seen.append(batch.batch_id)
            assert all(t.loss_weight == 0 for t in batch.trajectories if t.pivot)
            version += 1
            client.push_weights(version, weights)
            client.report(step=batch.step, tokens=1, loss=0.5)
    print(json.dumps(seen))


main()
