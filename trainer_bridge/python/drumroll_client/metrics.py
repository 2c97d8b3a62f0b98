"""How far the policy that drew is from the one that trains, by the names that verl, slime and NeMo-RL use."""

from __future__ import annotations

from typing import Any, Dict

import numpy as np


def rollout_correction(behaviour: Any, trainer: Any, mask: Any, tis_clip: float = 2.0) -> Dict[str, float]:
    """behaviour, trainer: log-probabilities of the same tokens, of any one shape; mask: nonzero where they count.

    With d = trainer - behaviour, means over tokens that the behaviour policy drew:

    rollout_corr/kl                     -d            KL(behaviour || trainer), the direct estimator (k1)
    rollout_corr/k3_kl                  e^d - 1 - d   the same quantity, never negative (Schulman 2020)
    rollout_corr/token_mult_prob_error  e^|d|         1: equal (NeMo-RL's train/token_mult_prob_error)
    rollout_corr/logprob_abs_diff       |d|           slime's train_rollout_logprob_abs_diff
    rollout_corr/rollout_is_mean        e^d           before the cut; 1 in expectation where behaviour has full support
    rollout_corr/rollout_is_clipped     share of tokens whose weight e^d was cut at tis_clip
    """
    chosen = np.asarray(mask).astype(bool)
    gap = np.asarray(trainer, np.float64)[chosen] - np.asarray(behaviour, np.float64)[chosen]
    if gap.size == 0:
        gap = np.zeros(1)
    weight = np.exp(gap)
    return {"rollout_corr/kl": float(np.mean(-gap)),
            "rollout_corr/k3_kl": float(np.mean(np.expm1(gap) - gap)),
            "rollout_corr/token_mult_prob_error": float(np.mean(np.exp(np.abs(gap)))),
            "rollout_corr/logprob_abs_diff": float(np.mean(np.abs(gap))),
            "rollout_corr/rollout_is_mean": float(np.mean(weight)),
            "rollout_corr/rollout_is_clipped": float(np.mean(weight > tis_clip))}
