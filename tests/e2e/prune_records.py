"""python3 prune_records.py DRUMROLL_DB: what pruning left in a run's store is what its papers say it should be.

From the stored scores, tilt and number of survivors the probabilities are computed anew, by going through all subsets'
sizes, and with them loss weights and advantages (RLOO) of the survivors: as stored, to single precision.
"""
import math
import sqlite3
import struct
import sys

SURE, SURVIVOR, PRUNED = 0, 1, 2
FINISH_PRUNED = 4


def size_probability(p, k):
    """Of k successes in independent draws of probabilities p."""
    r = [1.0] + [0.0] * len(p)
    for x in p:
        for s in range(len(p), 0, -1):
            r[s] = r[s] * (1 - x) + r[s - 1] * x
        r[0] *= 1 - x
    return r[k] if 0 <= k <= len(p) else 0.0


def without(p, *gone):
    return [x for i, x in enumerate(p) if i not in gone]


class Design:
    def __init__(self, scores, tilt, k):
        odds = [math.exp(tilt * (q - 0.5)) for q in scores]
        low, high = -60.0, 60.0
        for _ in range(100):  # a constant factor of the odds changes nothing but rounding
            middle = (low + high) / 2
            if sum(o * math.exp(middle) / (1 + o * math.exp(middle)) for o in odds) < k:
                low = middle
            else:
                high = middle
        self.p = [o * math.exp(low) / (1 + o * math.exp(low)) for o in odds]
        self.k, self.whole = k, size_probability(self.p, k)

    def single(self, i):
        return self.p[i] * size_probability(without(self.p, i), self.k - 1) / self.whole

    def pair(self, i, j):
        return self.p[i] * self.p[j] * size_probability(without(self.p, i, j), self.k - 2) / self.whole


def check_group(members, samples, survivors, tilt):
    """members: rows of trajectories by sample; returns pruned samples."""
    candidates = [i for i, s in enumerate(samples) if s[2] != SURE]
    pruned = [i for i, s in enumerate(samples) if s[2] == PRUNED]
    assert len(candidates) - len(pruned) == survivors, (len(candidates), len(pruned), survivors)
    for i, m in enumerate(members):
        assert (m["finish"] == FINISH_PRUNED) == (i in pruned), (m["id"], m["finish"])
    if not pruned:
        return 0
    design = Design([samples[i][1] for i in candidates], tilt, survivors)
    place = {i: c for c, i in enumerate(candidates)}
    single = [design.single(place[i]) if i in place else 1.0 for i in range(len(samples))]
    n = len(samples)
    for i, m in enumerate(members):
        if i in pruned:
            assert m["loss_weight"] == 0 and m["has_reward"] == 0 and m["has_advantage"] == 0
            assert not any(m["loss_mask"]) and len(m["tokens"]) == 4 * m["n_tokens"]
            continue
        assert abs(m["loss_weight"] * single[i] - 1) < 1e-4, (m["id"], m["loss_weight"], single[i])
        baseline = 0.0
        for j in range(n):
            if j == i:
                continue
            q = samples[j][1] if j in place else 0.0
            baseline += q
            if j not in pruned:
                joint = design.pair(place[i], place[j]) if i in place and j in place else single[i] * single[j]
                baseline += single[i] / joint * (members[j]["reward"] - q)
        baseline /= n - 1
        assert abs(m["advantage"] - (m["reward"] - baseline)) < 1e-4, (m["id"], m["advantage"], m["reward"], baseline)
    return len(pruned)


def main(path):
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    n_groups = n_pruned = n_features = 0
    lengths = set()
    for row in db.execute("SELECT * FROM prunings p JOIN groups g ON g.id = p.grp WHERE g.state = 2 ORDER BY grp").fetchall():
        samples = [struct.unpack_from("<ddii", row["samples"], 24 * i) for i in range(len(row["samples"]) // 24)]
        members = db.execute("SELECT * FROM trajectories WHERE group_id = ? ORDER BY sample", (row["grp"],)).fetchall()
        assert len(members) == len(samples) == row["n_samples"]
        n_pruned += check_group(members, samples, row["survivors"], row["tilt"])
        lengths |= {m["n_tokens"] - m["n_prompt"] for m in members if m["finish"] == FINISH_PRUNED}
        seen = db.execute("SELECT count(*) FROM quality_features WHERE trajectory BETWEEN ? AND ?", (row["grp"] * 4096, row["grp"] * 4096 + 4095)).fetchone()[0]
        assert seen == sum(s[3] for s in samples)
        n_features += seen
        n_groups += 1
    heads = db.execute("SELECT count(*), max(number) FROM quality_heads").fetchone()
    assert heads[0] == heads[1]
    print(f"groups {n_groups} pruned {n_pruned} features {n_features} heads {heads[0]} lengths {sorted(lengths)}")


if __name__ == "__main__":
    main(sys.argv[1])
