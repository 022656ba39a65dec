"""The GPT-2 of PolyLM in plain PyTorch: Conv1D layout, learned positions, gelu_fast, tied head.

Not an inference engine (no cache). The trap: weights are stored [in, out], so a linear layer is
x @ W + b.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

CONFIG = {'n_embd': 256, 'n_head': 4, 'n_layer': 4, 'n_inner': 768, 'n_positions': 256}


class Conv1D(nn.Module):
    def __init__(self, n_in, n_out, std):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out) * std)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        return F.linear(x, self.weight.t(), self.bias)


class Attention(nn.Module):
    def __init__(self, d, heads, std, depth_std):
        super().__init__()
        self.heads = heads
        self.c_attn = Conv1D(d, 3 * d, std)
        self.c_proj = Conv1D(d, d, depth_std)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (p.view(b, t, self.heads, d // self.heads).transpose(1, 2)
                   for p in self.c_attn(x).split(d, dim=2))
        scores = q @ k.transpose(-1, -2) / math.sqrt(d // self.heads)  # [b, heads, t, t]
        mask = torch.ones(t, t, dtype=torch.bool).triu(1)
        scores = scores.float().masked_fill(mask, float('-inf'))
        y = scores.softmax(-1).to(v.dtype) @ v
        return self.c_proj(y.transpose(1, 2).reshape(b, t, d))


class Mlp(nn.Module):
    def __init__(self, d, inner, std, depth_std):
        super().__init__()
        self.c_fc = Conv1D(d, inner, std)
        self.c_proj = Conv1D(inner, d, depth_std)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate='tanh'))


class Block(nn.Module):
    def __init__(self, c, std):
        super().__init__()
        depth_std = std / math.sqrt(2 * c['n_layer'])
        self.ln_1 = nn.LayerNorm(c['n_embd'], eps=1e-5)
        self.attn = Attention(c['n_embd'], c['n_head'], std, depth_std)
        self.ln_2 = nn.LayerNorm(c['n_embd'], eps=1e-5)
        self.mlp = Mlp(c['n_embd'], c['n_inner'], std, depth_std)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt2(nn.Module):
    def __init__(self, vocab, c=None, std=0.02):
        super().__init__()
        c = c or CONFIG
        self.config = dict(c, vocab_size=vocab)
        self.wte = nn.Parameter(torch.randn(vocab, c['n_embd']) * std)
        self.wpe = nn.Parameter(torch.randn(c['n_positions'], c['n_embd']) * std / 2)
        self.h = nn.ModuleList(Block(c, std) for _ in range(c['n_layer']))
        self.ln_f = nn.LayerNorm(c['n_embd'], eps=1e-5)

    def hidden(self, ids):
        """ids [b, t] -> [b, t, n_embd]; rows padded on the right need no mask."""
        x = self.wte[ids] + self.wpe[:ids.shape[1]]
        for block in self.h:
            x = block(x)
        return self.ln_f(x)

    def forward(self, ids):
        return F.linear(self.hidden(ids), self.wte)

    def round_to_bf16(self):
        """The values that are shipped, kept in float32 for evaluation."""
        for p in self.parameters():
            p.data = p.data.to(torch.bfloat16).float()
        return self
