"""A Llama / Qwen2 / Qwen3 forward pass in plain PyTorch, from a Hugging Face directory; for small models.

Weights are BF16 values held in float32, and all arithmetic is float32: the LayerCast rule, which is also the engine's.
So log-probabilities agree with the engine's to rounding, and importance weights measure the policy, not the numerics.
"""

from typing import Dict

import torch
import torch.nn.functional as F

from drumroll_client import read_model

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "minimind")


class Llama:
    """Letters: B samples, T tokens, d width, H heads, K heads of keys and values, h width of a head, V vocabulary."""

    def __init__(self, directory: str):
        self.config, tensors = read_model(directory)
        c = self.config
        if c["model_type"] not in FAMILIES or c.get("rope_scaling") or c.get("hidden_act", "silu") != "silu":
            raise SystemExit(f"{directory}: this example runs {', '.join(FAMILIES)} with SiLU, without RoPE "
                             f"scaling; found {c['model_type']}, {c.get('hidden_act')}, {c.get('rope_scaling')}")
        self.tied = c.get("tie_word_embeddings", False) or "lm_head.weight" not in tensors
        self.heads, self.kv_heads = c["num_attention_heads"], c.get("num_key_value_heads") or c["num_attention_heads"]
        self.head_dim = c.get("head_dim") or c["hidden_size"] // self.heads
        self.params: Dict[str, torch.Tensor] = {
            name: round_bf16(torch.from_numpy(array.copy())).requires_grad_() for name, array in tensors.items()
            if not (self.tied and name == "lm_head.weight")}

    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens [B][T] -> [B][T][d] after the last norm.  Padding on the right needs no mask: nobody looks right."""
        positions = torch.arange(tokens.shape[1])
        cos, sin = self._rotation(positions)
        hidden_from = torch.full((len(positions), len(positions)), float("-inf")).triu(1)  # [T][T]
        x = F.embedding(tokens, self.params["model.embed_tokens.weight"])
        for i in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            y = self._norm(x, layer + "input_layernorm")
            x = x + self._attention(layer + "self_attn.", y, cos, sin, hidden_from)
            y = self._norm(x, layer + "post_attention_layernorm")
            gate, up = self._linear(y, layer + "mlp.gate_proj"), self._linear(y, layer + "mlp.up_proj")
            x = x + self._linear(F.silu(gate) * up, layer + "mlp.down_proj")
        return self._norm(x, "model.norm")

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., d] -> [..., V]"""
        return F.linear(hidden, self.params["model.embed_tokens.weight" if self.tied else "lm_head.weight"])

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.params[name + ".weight"], self.params.get(name + ".bias"))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return x * scale * self.params[name + ".weight"]

    def _rotation(self, positions: torch.Tensor):
        exponent = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        angle = positions[:, None].float() * self.config.get("rope_theta", 10000.0) ** -exponent  # [T][h / 2]
        angle = torch.cat((angle, angle), -1)
        return angle.cos(), angle.sin()

    def _attention(self, name: str, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, hidden_from: torch.Tensor):
        def heads(which: str, n: int) -> torch.Tensor:  # -> [B][n][T][h], turned by its position but for values
            y = self._linear(x, f"{name}{which}_proj").unflatten(-1, (n, self.head_dim)).transpose(1, 2)
            if f"{name}{which}_norm.weight" in self.params:  # Qwen3
                y = self._norm(y, f"{name}{which}_norm")
            if which == "v":
                return y
            left, right = y.chunk(2, -1)
            return y * cos + torch.cat((-right, left), -1) * sin

        q, k, v = heads("q", self.heads), heads("k", self.kv_heads), heads("v", self.kv_heads)
        shared = self.heads // self.kv_heads
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        scores = q @ k.transpose(-1, -2) * self.head_dim ** -0.5 + hidden_from
        return self._linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), name + "o_proj")


def round_bf16(x: torch.Tensor) -> torch.Tensor:
    """float32 with BF16 values, to nearest even: what the run makes of a weight that it is sent."""
    return x.to(torch.bfloat16).to(torch.float32)
