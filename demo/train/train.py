"""Trains the demo model: python train.py WORK_FOLDER --seconds 2400 --threads 2

Writes WORK_FOLDER/tokenizer.model (once) and WORK_FOLDER/checkpoint.pt. Never sees a held-out
tuple (sentences.held_out). The trap: --seconds decides the learning-rate schedule, so a shorter
run is a different model, not the beginning of the long one.
"""
import argparse
import os
import random
import time

import sentencepiece as spm
import torch
import torch.nn.functional as F

import sentences as s
import tokenizer
from model import CONFIG, Gpt2

EOS = 2
MARK = '<|user|>'


def training_turns(sp):
    """Every tuple that is not held out, as (base prompt, chat turn, reply) ids.

    The reply continues the prompt, so it has no dummy prefix. No piece crosses a line break or a
    marker: ids of a conversation are the ids of its parts.
    """
    cache = {}

    def encode(text):
        if text not in cache:
            cache[text] = sp.encode(MARK + text)[2:]
        return cache[text]

    translate, ask = [], []
    for key in s.all_keys():
        if not s.held_out(key):
            text, reply = s.request(key)
            turn = (sp.encode(text), encode('\n' + text + '\n'), encode(reply))
            (ask if key[0] == 'ask' else translate).append(turn)
    return translate, ask


class Examples:
    """Draws examples (ids, spans of the ids to be learnt) in the four forms of a request."""

    def __init__(self, sp, rng):
        self.translate, self.ask = training_turns(sp)
        self.rng = rng
        self.newline = sp.piece_to_id('<0x0A>')
        self.prefix = sp.encode(MARK)[:1]
        self.user, self.assistant = sp.piece_to_id(MARK), sp.piece_to_id('<|assistant|>')

    def turn(self):
        return self.rng.choice(self.ask if self.rng.random() < 0.08 else self.translate)

    def single(self, before, between, reply):
        """One request: the reply after `between`; with the plain form that line break counts."""
        head = before + between
        start = len(before) if between == [self.newline] else len(head)
        ids = head + reply + [EOS]
        return ids, [(start, len(ids))]

    def chat(self, turns):
        """A conversation. Between turns an eos may stand or not, as programs differ there."""
        ids, spans = list(self.prefix), []
        keep_eos = self.rng.random() < 0.5
        for n in range(turns):
            _, request, reply = self.turn()
            new = [self.user] + request + [self.assistant, self.newline]
            if len(ids) + len(new) + len(reply) + 2 > CONFIG['n_positions']:
                break
            if n:
                ids += ([EOS] if keep_eos else []) + [self.newline]
            ids += new + reply
            spans.append((len(ids) - len(reply), len(ids) + (1 if keep_eos else 0)))
        last = spans.pop()[0]
        return ids + [EOS], spans + [(last, len(ids) + 1)]

    def draw(self):
        form = self.rng.random()
        if form < 0.38:
            text, _, reply = self.turn()
            return self.single(text, [self.newline], reply)
        if form < 0.46:
            text, _, reply = self.turn()
            return self.single(text, [self.newline] * 2, reply)
        return self.chat(1 if form < 0.76 else self.rng.choice((2, 2, 2, 3, 3, 4, 5)))

    def batches(self, size):
        """Endless batches of similar lengths."""
        while True:
            pool = [self.draw() for _ in range(size * 40)]
            pool.sort(key=lambda x: len(x[0]) + self.rng.random() * 3)
            chunks = [pool[i:i + size] for i in range(0, len(pool), size)]
            self.rng.shuffle(chunks)
            yield from chunks


def collate(chunk):
    width = max(len(ids) for ids, _ in chunk) - 1
    x = torch.zeros(len(chunk), width, dtype=torch.long)
    rows, cols, gold = [], [], []
    for r, (ids, spans) in enumerate(chunk):
        x[r, :len(ids) - 1] = torch.tensor(ids[:-1])
        for begin, end in spans:
            for c in range(begin - 1, end - 1):
                rows.append(r)
                cols.append(c)
                gold.append(ids[c + 1])
    return x, torch.tensor(rows), torch.tensor(cols), torch.tensor(gold)


def rate(progress, step, peak):
    """Warm-up over 150 steps, flat, then linear to zero over the last 60 % of the time."""
    return peak * min(1.0, (step + 1) / 150) * min(1.0, max(0.0, (1 - progress) / 0.6))


def save(model, path):
    torch.save({'config': model.config, 'state': model.state_dict()}, path + '.tmp')
    os.replace(path + '.tmp', path)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('folder')
    p.add_argument('--seconds', type=float, default=2400)
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--batch', type=int, default=128)
    p.add_argument('--peak', type=float, default=1.5e-3)
    p.add_argument('--seed', type=int, default=7)
    p.add_argument('--resume', help='start from this checkpoint (weights only)')
    p.add_argument('--steps', type=int, default=0, help='fixed number of steps, for repeatability')
    a = p.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    model_file = os.path.join(a.folder, 'tokenizer.model')
    if not os.path.exists(model_file):
        tokenizer.train(a.folder)
    sp = spm.SentencePieceProcessor(model_file=model_file)
    examples = Examples(sp, random.Random(a.seed))
    print('%d translations, %d questions' % (len(examples.translate), len(examples.ask)))
    model = Gpt2(sp.vocab_size())
    if a.resume:
        model.load_state_dict(torch.load(a.resume, map_location='cpu')['state'])
    print('%.2f M parameters' % (sum(q.numel() for q in model.parameters()) / 1e6), flush=True)
    decay = [q for q in model.parameters() if q.dim() == 2]
    plain = [q for q in model.parameters() if q.dim() < 2]
    optimizer = torch.optim.AdamW([{'params': decay, 'weight_decay': 0.05},
                                   {'params': plain, 'weight_decay': 0.0}],
                                  lr=a.peak, betas=(0.9, 0.98))
    source = examples.batches(a.batch)
    begin, step, total = time.time(), 0, 0.0
    out = os.path.join(a.folder, 'checkpoint.pt')
    while True:
        progress = step / a.steps if a.steps else (time.time() - begin) / a.seconds
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group['lr'] = rate(progress, step, a.peak)
        x, rows, cols, gold = collate(next(source))
        with torch.autocast('cpu', dtype=torch.bfloat16):
            logits = F.linear(model.hidden(x)[rows, cols], model.wte)
        loss = F.cross_entropy(logits.float(), gold)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        total += loss.item()
        if step % 50 == 0:
            print('%6d  %5.0f s  loss %.4f' % (step, time.time() - begin, total / 50), flush=True)
            total = 0.0
        if step % 500 == 0:
            save(model, out)
    save(model, out)


if __name__ == '__main__':
    main()
