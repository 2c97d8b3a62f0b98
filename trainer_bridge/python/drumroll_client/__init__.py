"""Take scored trajectories from a drumroll run and give weights back (../../PROTOCOL.md, version 1).

    from drumroll_client import Client

    with Client("unix:runs/demo/bridge.sock", name="mine") as client:
        for batch in client.batches():               # acknowledged when the loop comes back for the next one
            for rows in batch.micro_batches(16384):  # numpy arrays: rows.tokens [B][T], rows.logprobs, rows.loss_mask
                ...
            client.push_weights(client.version + 1, model.state_dict())
            client.report(step=batch.step, loss=loss)

Read client.py and receive.py first, then batch.py and trajectory.py.  Needs Python 3.9, msgpack and numpy; with
xxhash checksums are faster and those of trajectories are verified too; with zstandard there are deltas.
"""

from .batch import Batch, Lengths, Packed, Padded, pack, pad
from .bf16 import from_bf16, to_bf16
from .client import Client
from .errors import BatchRestarted, BridgeError, ConnectionLost, ProtocolError, RunError
from .metrics import rollout_correction
from .receive import Step
from .requests import Evaluation, Scores
from .safetensors import read_model, read_safetensors, write_safetensors
from .trajectory import Trajectory

__all__ = ["Batch", "BatchRestarted", "BridgeError", "Client", "ConnectionLost", "Evaluation", "Lengths", "Packed",
           "Padded", "ProtocolError", "RunError", "Scores", "Step", "Trajectory", "from_bf16", "pack", "pad",
           "read_model", "read_safetensors", "rollout_correction", "to_bf16", "write_safetensors"]
