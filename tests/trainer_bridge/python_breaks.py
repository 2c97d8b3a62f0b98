"""python_breaks.py ADDRESS SECRET SEED - the Python client against the server that test_python_client.c runs, through
a proxy that cuts every connection somewhere: no batch may be lost or come twice, no version be taken twice.
"""
import os
import random
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "trainer_bridge", "python"))
from drumroll_client import Client, ConnectionLost, ProtocolError, RunError  # noqa: E402
from drumroll_client import push  # noqa: E402
from cutting_proxy import Proxy  # noqa: E402

address, secret, seed = sys.argv[1:4]
if int(seed) % 2:
    push.xxhash = None  # SHA-256, as where the package is missing
N_BATCHES = 24


def weights_of(client, version):
    return {name: [0x3f00 + version % 128] * shape[0] * (shape[1] if len(shape) == 2 else 1)
            for name, (shape, _) in client.tensors.items()}


def words(values):
    return {name: b"".join(v.to_bytes(2, "little") for v in value) for name, value in values.items()}


def budgets(chance):
    """Bytes to let pass: in the handshake, in a batch (some 20,000 bytes), in a push (200,000), or after two."""
    while True:
        yield chance.choice((chance.randint(1, 2000), chance.randint(2000, 30_000), chance.randint(20_000, 150_000),
                             chance.randint(150_000, 500_000)))


def exactly_once(path):
    proxy = Proxy(path, address, budgets(random.Random(int(seed))))
    client = None
    while client is None:  # the first handshake is the caller's: nothing has been promised yet
        try:
            client = Client("unix:" + path, secret, name="breaks", timeout=20)
        except ConnectionLost:
            pass
    seen, pushed, retries = [], 0, 0
    batches = client.batches()
    while True:
        try:
            batch = next(batches, None)
        except ConnectionLost:  # breaks faster than one call bears: ask again
            retries, batches = retries + 1, client.batches()
            continue
        if batch is None:
            break
        seen.append(batch.batch_id)
        assert len(batch.trajectories) == 12
        while pushed < len(seen):
            try:
                client.push_weights(len(seen), words(weights_of(client, len(seen))), chunk_bytes=700)
                pushed += 1
            except ConnectionLost:
                retries += 1
    client.close()
    assert seen == list(range(1, N_BATCHES + 1)), seen
    assert proxy.cuts >= N_BATCHES and client.breaks > 0
    return f"{proxy.cuts} cuts, {client.breaks} breaks mended, {retries} calls repeated by the caller"


def refusals(path):
    """What is no break is not tried again: a wrong secret, and a run that went for good."""
    proxy = Proxy(path, address, iter([None, None, 2000]))
    for given, said in (("wrong secret", "not the one of this run"), (None, "none was given")):
        try:
            Client("unix:" + path, given, timeout=5)
            raise AssertionError("a peer without the secret was let in")
        except ProtocolError as error:
            assert said in str(error) and not isinstance(error, ConnectionLost), error
    assert issubclass(RunError, ProtocolError) and issubclass(ConnectionLost, ConnectionError)
    client = Client("unix:" + path, secret, timeout=5, reconnect_seconds=0)
    try:
        client.push_weights(10 ** 6, words(weights_of(client, 1)))
        raise AssertionError("a push through a connection that was cut")
    except ConnectionLost as error:
        assert proxy.cuts == 1, error


with tempfile.TemporaryDirectory() as folder:
    print("exactly once:", exactly_once(os.path.join(folder, "a")))
    refusals(os.path.join(folder, "b"))
