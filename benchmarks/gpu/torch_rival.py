"""torch_rival.py: the same products, attention and models in PyTorch and Hugging Face, to be run
right before or after polylm_gpu_bench on the same card. One JSON object per line. Without a GPU or
without PyTorch it says so and measures nothing. `--smoke` runs tiny shapes."""
import json
import statistics
import sys
import time

SHAPES = {'1.7B': (24, 16, 128, 256000, 2048), '13B': (40, 40, 128, 256000, 2048)}


def line(name, value, unit):
    print(json.dumps({'name': name, 'value': value, 'unit': unit}), flush=True)


def skip(name, reason):
    print(json.dumps({'name': name, 'skipped': reason}), flush=True)


def seconds_of(torch, call, repeats):
    """Median of `repeats` timed by events, after three that are not counted."""
    for i in range(3):
        call(i)
    times = []
    for i in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call(i)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def products(torch, name, shape, repeats):
    """addmm on rotated weights: [rows, K] times [N, K] transposed, with bias."""
    _, heads, head, _, context = shape
    c = heads * head
    for what, n, k in (('qkv', 3 * c, c), ('attention out', c, c), ('mlp up', 4 * c, c),
                       ('mlp down', c, 4 * c)):
        count = max(1, min(24, (2 << 30) // (2 * n * k)))
        weights = [torch.randn(n, k, device='cuda', dtype=torch.bfloat16) for _ in range(count)]
        bias = torch.randn(n, device='cuda', dtype=torch.bfloat16)
        for rows in (1, 8, 16, 32, 128, 512, 2048):
            if rows > context:
                break
            x = torch.randn(rows, k, device='cuda', dtype=torch.bfloat16)
            s = seconds_of(torch, lambda i: torch.addmm(bias, x, weights[i % count].t()), repeats)
            if rows <= 32:
                line(f'torch {name} {what}, {rows} generated rows', 2 * n * k / s / 1e9, 'GB/s')
            else:
                line(f'torch {name} {what}, {rows} prompt rows', 2 * n * k * rows / s / 1e12, 'TFLOP/s')


def attention(torch, name, shape, repeats):
    _, heads, head, _, context = shape
    sdpa = torch.nn.functional.scaled_dot_product_attention
    for batch in (1, 8, 32):
        q, k, v = (torch.randn(batch, heads, n, head, device='cuda', dtype=torch.bfloat16)
                   for n in (1, context, context))
        s = seconds_of(torch, lambda _: sdpa(q, k, v), repeats)
        line(f'torch {name} decode attention, batch {batch}',
             batch * context * 4 * heads * head / s / 1e9, 'GB/s')
    q, k, v = (torch.randn(1, heads, context, head, device='cuda', dtype=torch.bfloat16)
               for _ in range(3))
    s = seconds_of(torch, lambda _: sdpa(q, k, v, is_causal=True), repeats)
    flop = 4 * (context * (context + 1) / 2) * heads * head
    line(f'torch {name} prefill attention, whole context', flop / s / 1e12, 'TFLOP/s')


def generate(torch, name, shape, new_tokens):
    """Hugging Face generate() of a random GPT-2 of the same shape, eager, batch 1."""
    from transformers import GPT2Config, GPT2LMHeadModel
    layers, heads, head, vocab, context = shape
    config = GPT2Config(n_layer=layers, n_head=heads, n_embd=heads * head, vocab_size=vocab,
                        n_positions=context, bos_token_id=1, eos_token_id=None, pad_token_id=0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device('cuda'):
        model = GPT2LMHeadModel(config).eval()
    torch.set_default_dtype(torch.float32)
    prompt = torch.randint(0, vocab, (1, 8), device='cuda')
    times = []
    for _ in range(4):
        torch.cuda.synchronize()
        start = time.perf_counter()
        model.generate(prompt, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    line(f'transformers {name} generate(), batch 1', new_tokens / statistics.median(times[1:]), 'tokens/s')


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
    for name, shape in shapes.items():
        products(torch, name, shape, 3 if smoke else 50)
        attention(torch, name, shape, 3 if smoke else 50)
        try:
            generate(torch, name, shape, 8 if smoke else 128)
        except (ImportError, torch.cuda.OutOfMemoryError) as error:
            skip(f'transformers {name} generate()', str(error).split('\n')[0])


main()
