"""torch_rival.py: the same products, attention and models in PyTorch and Hugging Face, to be run
right before or after polylm_gpu_bench on the same card (run.sh does). One JSON object per line, the
names of polylm_gpu_bench with "torch " before them. Without a GPU or without PyTorch it says so and
measures nothing. `--smoke` runs tiny shapes. Not here: comparing (summary.py).
What is timed is a CUDA graph of many calls over different weights, as ours is, so that neither
launches nor the card's cache flatter or punish anybody."""
import json
import statistics
import sys
import time

SHAPES = {'1.7B': (24, 16, 128, 256000, 2048), '13B': (40, 40, 128, 256000, 2048)}
ROTATED_BYTES = 1 << 30         # matrices or caches that calls go round: far more than any cache


def line(name, value, unit):
    print(json.dumps({'name': name, 'value': round(value, 4), 'unit': unit}), flush=True)


def skip(name, reason):
    print(json.dumps({'name': name, 'skipped': str(reason).split('\n')[0]}), flush=True)


def guarded(torch, name, measure):
    """A measurement that cannot be had is a line that says so, and the rest goes on."""
    try:
        measure()
    except (ImportError, RuntimeError, ValueError, TypeError) as error:     # RuntimeError: also no memory
        skip(name, error)
    torch.cuda.empty_cache()


def seconds_of(torch, call, calls, rounds):
    """Seconds of one call(i): the median of `rounds` graphs of `calls` calls each."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):                     # libraries allocate at their first calls
        for i in range(3):
            call(i)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            call(i)
    times = []
    for i in range(rounds + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        if i > 0:
            times.append(start.elapsed_time(end) / 1e3 / calls)
    return statistics.median(times)


def product(torch, name, what, n, k, rows, smoke):
    count = max(1, min(24, ROTATED_BYTES // (2 * n * k)))
    weights = [torch.randn(n, k, device='cuda', dtype=torch.bfloat16) for _ in range(count)]
    bias = torch.randn(n, device='cuda', dtype=torch.bfloat16)
    x = torch.randn(rows, k, device='cuda', dtype=torch.bfloat16)
    calls = 2 if smoke else 48 if rows <= 32 else 12
    s = seconds_of(torch, lambda i: torch.addmm(bias, x, weights[i % count].t()), calls, 5)
    if rows <= 32:
        line(f'torch {name} {what}, {rows} generated rows', 2 * n * k / s / 1e9, 'GB/s')
    else:
        line(f'torch {name} {what}, {rows} prompt rows', 2 * n * k * rows / s / 1e12, 'TFLOP/s')


def products(torch, name, shape, smoke):
    _, heads, head, _, context = shape
    c = heads * head
    for what, n, k in (('qkv', 3 * c, c), ('attention out', c, c), ('mlp up', 4 * c, c),
                       ('mlp down', c, 4 * c)):
        for rows in (1, 8, 16, 32, 128, 512, 2048):
            if rows <= context:
                guarded(torch, f'torch {name} {what}, {rows} rows',
                        lambda: product(torch, name, what, n, k, rows, smoke))


def decode_attention(torch, name, shape, batch, smoke):
    _, heads, head, _, context = shape
    size = batch * context * 4 * heads * head
    count = max(1, min(24, ROTATED_BYTES // size))
    caches = [[torch.randn(batch, heads, context, head, device='cuda', dtype=torch.bfloat16)
               for _ in range(2)] for _ in range(count)]
    q = torch.randn(batch, heads, 1, head, device='cuda', dtype=torch.bfloat16)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    s = seconds_of(torch, lambda i: sdpa(q, *caches[i % count]), 2 if smoke else 24, 5)
    line(f'torch {name} decode attention, batch {batch}', size / s / 1e9, 'GB/s')


def prefill_attention(torch, name, shape, smoke):
    _, heads, head, _, context = shape
    q, k, v = (torch.randn(1, heads, context, head, device='cuda', dtype=torch.bfloat16)
               for _ in range(3))
    sdpa = torch.nn.functional.scaled_dot_product_attention
    s = seconds_of(torch, lambda _: sdpa(q, k, v, is_causal=True), 2 if smoke else 12, 5)
    flop = 4 * (context * (context + 1) / 2) * heads * head
    line(f'torch {name} prefill attention, whole context', flop / s / 1e12, 'TFLOP/s')


def generate(torch, name, shape, new_tokens):
    """Hugging Face generate() of a random GPT-2 of the same shape, eager, batch 1, and prefill."""
    from transformers import GPT2Config, GPT2LMHeadModel
    layers, heads, head, vocab, context = shape
    config = GPT2Config(n_layer=layers, n_head=heads, n_embd=heads * head, vocab_size=vocab,
                        n_positions=context, bos_token_id=1, eos_token_id=None, pad_token_id=0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device('cuda'):
            model = GPT2LMHeadModel(config).eval()
    finally:
        torch.set_default_dtype(before)
    prompt = torch.randint(3, vocab, (1, 8), device='cuda')
    mask = torch.ones_like(prompt)
    times = []
    for _ in range(4):
        torch.cuda.synchronize()
        start = time.perf_counter()
        out = model.generate(prompt, attention_mask=mask, max_new_tokens=new_tokens,
                             min_new_tokens=new_tokens, do_sample=False)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if out.shape[1] != 8 + new_tokens:
            raise ValueError(f'generate() stopped after {out.shape[1] - 8} tokens')
    line(f'torch {name} generate, {new_tokens} tokens, batch 1',
         new_tokens / statistics.median(times[1:]), 'tokens/s')
    for rows in (128, 512, 2048):
        if rows > context:
            break
        ids = torch.randint(3, vocab, (1, rows), device='cuda')
        times = []
        for _ in range(4):
            torch.cuda.synchronize()
            start = time.perf_counter()
            hidden = model.transformer(ids).last_hidden_state[:, -1:]
            model.lm_head(hidden)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        line(f'torch {name} prefill, {rows} tokens', rows / statistics.median(times[1:]), 'tokens/s')


def main():
    smoke = '--smoke' in sys.argv[1:]
    try:
        import torch
    except ImportError:
        skip('everything', 'PyTorch is not installed')
        return
    if not torch.cuda.is_available():
        skip('everything', 'PyTorch sees no GPU')
        return
    shapes = {'tiny': (2, 2, 64, 2000, 128)} if smoke else SHAPES
    print(json.dumps({'name': 'card', 'card': torch.cuda.get_device_name(), 'torch': torch.__version__}))
    tokens = 8 if smoke else 128
    with torch.inference_mode():
        for name, shape in shapes.items():
            products(torch, name, shape, smoke)
            for batch in (1, 8, 32):
                guarded(torch, f'torch {name} decode attention, batch {batch}',
                        lambda: decode_attention(torch, name, shape, batch, smoke))
            guarded(torch, f'torch {name} prefill attention, whole context',
                    lambda: prefill_attention(torch, name, shape, smoke))
            guarded(torch, f'torch {name} generate, {tokens} tokens, batch 1',
                    lambda: generate(torch, name, shape, tokens))


main()
