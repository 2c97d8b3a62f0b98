"""alternating_trainer.py ADDRESS MODEL_DIR OTHER_DIR N [SECONDS] - answers each batch with N versions.

They are two models in turn; SECONDS is how long it is at a batch before.
Writes the second model to OTHER_DIR first: MODEL_DIR with other norms.  Odd versions are that one, even ones (and the
run's own version 0) MODEL_DIR, so whoever knows a token's version has the weights that drew it.  A second process goes
on where the first was ended.  With TRAINER_RECORD in the environment every batch is written there before it is answered.
"""
import json
import os
import shutil
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "trainer_bridge", "python"))
from drumroll_client import Client, RunError  # noqa: E402


def main():
    address, model, other, n_versions = sys.argv[1:5]
    seconds = float(sys.argv[5]) if len(sys.argv) > 5 else 0
    with open(os.path.join(model, "model.safetensors"), "rb") as f:
        data = bytearray(f.read())
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    places = {name: [8 + n + at for at in t["data_offsets"]] for name, t in header.items() if name != "__metadata__"}

    def tensors():
        return {name: memoryview(bytes(data))[start:end].cast("H") for name, (start, end) in places.items()}

    weights = [tensors(), None]
    for name, (start, end) in places.items():
        if "norm" in name:
            for low in range(start, end, 2):
                data[low] ^= 8  # of bf16's 7 bits of mantissa the fourth: up to 6 %
    weights[1] = tensors()
    os.makedirs(other, exist_ok=True)
    for file in os.listdir(model):
        if file.endswith(".json") and "tok" in file or file in ("config.json", "generation_config.json"):
            shutil.copy(os.path.join(model, file), other)
    with open(os.path.join(other, "model.safetensors"), "wb") as f:
        f.write(data)

    record = os.environ.get("TRAINER_RECORD")
    with Client(address, name="alternating", timeout=60) as client:
        version = client.version
        for batch in client.batches():
            if record:
                with open(record, "a") as f:
                    f.write(json.dumps({"batch": batch.batch_id, "ids": [t.id for t in batch.trajectories]}) + "\n")
            time.sleep(seconds)
            for _ in range(int(n_versions)):
                version += 1
                for attempt in range(200):  # the one before may still be on its way to the ranks
                    try:
                        client.push_weights(version, weights[version % 2])
                        break
                    except RunError as error:
                        if attempt == 199 or "still on its way" not in str(error):
                            raise
                        time.sleep(0.02)


main()
