"""recording_trainer.py ADDRESS MODEL_DIR OTHER_DIR OUT SECONDS - a trainer that outlives the run it serves.

Answers each batch with one version after SECONDS, acknowledges it, and writes it to OUT as JSON lines, one per
trajectory.  Even versions are MODEL_DIR's weights (as the run's own version 0), odd ones those of OTHER_DIR.  When the
run is gone it waits for its return, and then does what PROTOCOL.md asks: repeats its last acknowledgement, and pushes
again if the run is at older weights than its own.  Ends when the run says that it is over.
"""
import json
import os
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "trainer_bridge", "python"))
from drumroll_client import Client, ProtocolError, RunError  # noqa: E402


def read_weights(folder):
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    return {name: memoryview(data)[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]].cast("H")
            for name, t in header.items() if name != "__metadata__"}


class Trainer:
    def __init__(self, address, models, out, seconds):
        self.address, self.weights, self.out, self.seconds = address, [read_weights(m) for m in models], out, seconds
        self.version, self.acked, self.seen = 0, [], {}

    def push(self, client, version):
        self.version = version  # what it has, whether or not the run has taken it
        client.push_weights(version, self.weights[version % 2])

    def record(self, batch):
        for t in batch.trajectories:
            print(json.dumps({
                "batch": batch.batch_id, "step": batch.step, "id": t.id, "prompt_id": t.prompt_id, "epoch": t.epoch,
                "sample": t.sample, "group_size": t.group_size, "n_prompt": t.n_prompt, "tokens": t.tokens.tolist(), "logprobs": t.logprobs.tobytes().hex(),
                "versions": t.versions.tolist(), "mask": t.mask.tolist(), "finish": t.finish, "reward": t.reward,
                "advantage": t.advantage, "pivot": t.pivot, "loss_weight": t.loss_weight,
                "segments": t.segments}), file=self.out)
        self.out.flush()

    def serve(self):
        with Client(self.address, name="recording", timeout=120, connect_seconds=60, reconnect_seconds=0) as client:
            for batch_id in self.acked[-2:]:
                client.ack(batch_id)
            if self.version > client.weights_version:
                self.push(client, self.version if self.version > client.version else client.version + 1)
            self.version = max(self.version, client.version)
            while True:
                batch = client.pull()
                if batch is None:
                    return True
                data = [(t.id, t.tokens.tobytes(), t.logprobs.tobytes()) for t in batch.trajectories]
                assert batch.batch_id not in self.acked, f"batch {batch.batch_id} came again after it was acknowledged"
                assert self.seen.setdefault(batch.batch_id, data) == data, f"batch {batch.batch_id} came with other bytes"
                time.sleep(self.seconds)
                self.record(batch)  # the batch is in the next version: from here on it must not come again
                self.acked.append(batch.batch_id)
                self.push(client, self.version + 1)
                client.ack(batch)


def main():
    address, model, other, out, seconds = sys.argv[1:6]
    with open(out, "w") as f:
        trainer = Trainer(address, [model, other], f, float(seconds))
        while True:
            try:
                if trainer.serve():
                    return
            except RunError as error:
                if not error.may_retry and error.code != "state":
                    raise
            except (ProtocolError, OSError):
                pass
            time.sleep(0.02)


main()
