"""alter_record.py RUN_DIR - changes the last bit of one recorded log-probability, and the record's checksum with it, as
somebody would who wants it not to be noticed.  Prints the trajectory's id and the position.
"""
import ctypes
import ctypes.util
import sqlite3
import struct
import sys

XXH3 = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0").XXH3_64bits
XXH3.argtypes, XXH3.restype = [ctypes.c_char_p, ctypes.c_size_t], ctypes.c_uint64


def checksum(row):
    """PROTOCOL.md, "Checksum": numbers as 64-bit words, texts behind their length, arrays as they are."""
    parts = []

    def whole(*keys):
        parts.extend(struct.pack("<q", row[key]) for key in keys)

    def real(*keys):
        parts.extend(struct.pack("<d", row[key]) for key in keys)

    whole("id", "group_id", "sample", "group_size")
    text = row["prompt_id"].encode()
    parts.append(struct.pack("<Q", len(text)) + text)
    whole("epoch", "eval", "seed")
    real("temperature", "top_p")
    whole("top_k")
    if row["min_p"] > 0:
        real("min_p")
    whole("max_tokens", "n_prompt", "n_tokens")
    parts.extend([row["tokens"], row["logprobs"], row["versions"], row["loss_mask"]])
    whole("finish", "has_reward")
    if row["has_reward"]:
        real("reward", "reward_answer", "reward_steps")
    whole("has_advantage")
    if row["has_advantage"]:
        real("advantage", "baseline", "scale")
    whole("pivot")
    real("loss_weight")
    if row["target_logprobs"] is not None:
        parts.append(row["target_logprobs"])
    data = b"".join(parts)
    return ctypes.c_int64(XXH3(data, len(data))).value


def main():
    db = sqlite3.connect(sys.argv[1] + "/drumroll.db")
    db.row_factory = sqlite3.Row
    row = dict(db.execute("SELECT t.*, p.prompt_id FROM trajectories t JOIN prompts p ON p.key = t.prompt "
                          "WHERE t.n_tokens - t.n_prompt > 6 AND NOT t.eval ORDER BY t.id LIMIT 1 OFFSET 3").fetchone())
    assert checksum(row) == row["checksum"], "the checksum is made otherwise"
    position = row["n_tokens"] - 3
    logprobs = bytearray(row["logprobs"])
    logprobs[4 * position] ^= 1
    row["logprobs"] = bytes(logprobs)
    with db:
        db.execute("UPDATE trajectories SET logprobs = ?, checksum = ? WHERE id = ?", (row["logprobs"], checksum(row), row["id"]))
    db.close()
    print(row["id"], position)


main()
