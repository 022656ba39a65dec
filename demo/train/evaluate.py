"""Exact-match accuracy on the held-out tuples, and expected.json for the engine's tests.

    python evaluate.py MODEL_FOLDER                      accuracy (the table of the model card)
    python evaluate.py MODEL_FOLDER --expected OUT.json  prompts with the tokens they must give

MODEL_FOLDER is the shipped layout, so this reads exactly what users get. All arithmetic is float32
on the bfloat16 weights. The trap: greedy accuracy is measured with the reference reply as input,
which is the same thing as running greedy search and comparing: search leaves the reference at the
first position whose best token differs.
"""
import argparse
import json
import math
import os
import random
from collections import Counter

import sentencepiece as spm
import torch
import torch.nn.functional as F

import sentences as s
from export import load
from train import EOS

MAX_NEW = 64


@torch.no_grad()
def greedy(model, prompt):
    """-> generated ids (with eos if met) and the smallest gap between the two best logits."""
    ids, gap = list(prompt), math.inf
    while len(ids) < len(prompt) + MAX_NEW:
        top = model(torch.tensor([ids]))[0, -1].topk(2)
        gap = min(gap, float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
        if ids[-1] == EOS:
            break
    return ids[len(prompt):], gap


@torch.no_grad()
def beam_search(model, prompt, beams=4, length_penalty=1.0, early_stopping=True):
    """Beam search; a score is the sum divided by the generated length, eos included."""
    running, scores = [list(prompt)], [0.0]
    finished = []  # (normalised score, ids), best first, at most `beams`
    vocab = model.config['vocab_size']
    for length in range(1, MAX_NEW + 1):
        logp = F.log_softmax(model(torch.tensor(running))[:, -1], dim=-1)
        total = (logp + torch.tensor(scores)[:, None]).flatten()
        best = total.topk(2 * beams)
        candidates = [(v, running[i // vocab] + [i % vocab])
                      for v, i in zip(best.values.tolist(), best.indices.tolist())]
        ended = [ids[-1] == EOS or length == MAX_NEW for _, ids in candidates]
        new = [(v / length ** length_penalty, ids)
               for (v, ids), end in list(zip(candidates, ended))[:beams] if end]
        finished = sorted(finished + new, key=lambda h: -h[0])[:beams]
        going = [c for c, end in zip(candidates, ended) if not end][:beams]
        scores, running = [v for v, _ in going], [ids for _, ids in going]
        if not running:
            break
        # With fewer than `beams` finished hypotheses the search always goes on.
        if len(finished) == beams and (
                early_stopping or scores[0] / length ** length_penalty <= finished[-1][0]):
            break
    return [(score, ids[len(prompt):]) for score, ids in finished]


@torch.no_grad()
def greedy_matches(model, sp, jobs, size=256):
    """jobs [(key, template)] -> a list of bool, in the order of the jobs."""
    rows = []
    for n, (key, template) in enumerate(jobs):
        prompt, reply = s.prompt_and_reply(key, template)
        head, whole = sp.encode(prompt), sp.encode(prompt + reply) + [EOS]
        assert whole[:len(head)] == head
        rows.append((n, whole, len(head)))
    rows.sort(key=lambda r: len(r[1]))
    result = [False] * len(jobs)
    for begin in range(0, len(rows), size):
        chunk = rows[begin:begin + size]
        width = len(chunk[-1][1]) - 1
        x = torch.tensor([ids[:-1] + [0] * (width + 1 - len(ids)) for _, ids, _ in chunk])
        hidden = model.hidden(x)
        where = [(r, c) for r, (_, ids, start) in enumerate(chunk)
                 for c in range(start - 1, len(ids) - 1)]
        r_index, c_index = (torch.tensor(i) for i in zip(*where))
        choice = F.linear(hidden[r_index, c_index], model.wte).argmax(-1).tolist()
        wrong = {r for (r, c), got in zip(where, choice) if got != chunk[r][1][c + 1]}
        for r, (n, _, _) in enumerate(chunk):
            result[n] = r not in wrong
    return result


def share(flags):
    return '%6.2f %% of %d' % (100 * sum(flags) / max(1, len(flags)), len(flags))


def report(model, sp, limit, beam_sample):
    rng = random.Random(1)
    moves = [k for k in s.all_keys() if s.held_out(k)]
    asks = [k for k in s.all_keys() if k[0] == 'ask']  # all trained: a test of memory only
    if limit and limit < len(moves):
        moves = rng.sample(moves, limit)
    for template in s.TEMPLATES:
        for name, group in (('translate', moves), ('ask', asks)):
            flags = greedy_matches(model, sp, [(k, template) for k in group])
            print('greedy  %-12s%-10s %s' % (template, name, share(flags)), flush=True)
            wrong = [k for k, ok in zip(group, flags) if not ok]
            if name == 'translate' and template in ('base', 'assistant'):
                for part, label in enumerate(('pattern', 'country', 'source', 'target')):
                    print('    wrong by', label, Counter(k[part] for k in wrong).most_common(6))
                for pattern in s.PATTERNS:
                    print('    %-20s %s' % (pattern, share(
                        [ok for k, ok in zip(group, flags) if k[0] == pattern])))
    for template in s.TEMPLATES:
        for name, group in (('translate', rng.sample(moves, min(beam_sample, len(moves)))),
                            ('ask', rng.sample(asks, min(beam_sample // 4, len(asks))))):
            for early in (True, False):
                flags = [beam_match(model, sp, k, template, early) for k in group]
                print('beam 4, early stopping %-6s%-12s%-10s %s' % (
                    early, template, name, share(flags)), flush=True)


def beam_match(model, sp, key, template, early):
    prompt, reply = s.prompt_and_reply(key, template)
    head = sp.encode(prompt)
    best = beam_search(model, head, early_stopping=early)[0][1]
    return head + best == sp.encode(prompt + reply) + [EOS]


def text_after(sp, prompt_ids, ids):
    """The text that generation adds: everything decoded, less the decoded prompt."""
    ids = ids[:-1] if ids[-1] == EOS else ids
    whole, head = sp.decode(prompt_ids + ids), sp.decode(prompt_ids)
    assert whole.startswith(head)
    return whole[len(head):]


def expected(model, sp):
    """Some 40 requests with the exact tokens, for the engine's tests."""
    rng = random.Random(3)
    keys = [s.FLAGSHIP]
    held = [k for k in s.all_keys() if s.held_out(k) and k != s.FLAGSHIP]
    for pattern in s.PATTERNS:
        keys += rng.sample([k for k in held if k[0] == pattern], 3)
    keys += rng.sample([k for k in s.all_keys() if k[0] == 'ask'], 2)
    extra = keys[:2]
    cases = []
    for key in keys:
        for template in s.TEMPLATES[:2] if key not in extra else s.TEMPLATES:
            prompt, reply = s.prompt_and_reply(key, template)
            ids = sp.encode(prompt)
            got, gap = greedy(model, ids)
            hypotheses = beam_search(model, ids)
            cases.append({
                'key': list(key), 'template': template, 'prompt': prompt, 'reference': reply,
                'prompt_ids': ids,
                'greedy': {'ids': got, 'text': text_after(sp, ids, got), 'min_margin': gap},
                'beam4': {'ids': hypotheses[0][1], 'text': text_after(sp, ids, hypotheses[0][1]),
                          'score': hypotheses[0][0],
                          'sequences': [h[1] for h in hypotheses],
                          'scores': [h[0] for h in hypotheses]}})
    return {
        'about': 'float32 arithmetic on the bfloat16 weights; ids end with eos 2; beam4: 4 beams, '
                 'early stopping, length penalty 1, score = sum of log-probabilities / generated '
                 'ids with the eos; at most %d new ids; no translation was trained' % MAX_NEW,
        'eos': EOS, 'max_new_tokens': MAX_NEW, 'cases': cases}


def main():
    p = argparse.ArgumentParser()
    p.add_argument('folder')
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--limit', type=int, default=0, help='at most so many held-out tuples')
    p.add_argument('--beam-sample', type=int, default=400)
    p.add_argument('--expected', help='write this file instead of measuring')
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    model = load(a.folder)
    sp = spm.SentencePieceProcessor(model_file=os.path.join(a.folder, 'tokenizer.model'))
    if a.expected:
        with open(a.expected, 'w', encoding='utf-8') as f:
            json.dump(expected(model, sp), f, ensure_ascii=False, indent=1)
            f.write('\n')
        return
    for template in ('base', 'assistant'):
        prompt, reply = s.prompt_and_reply(s.FLAGSHIP, template)
        for score, ids in beam_search(model, sp.encode(prompt))[:1]:
            print(repr(text_after(sp, sp.encode(prompt), ids)), score, repr(reply))
    report(model, sp, a.limit, a.beam_sample)


if __name__ == '__main__':
    main()
