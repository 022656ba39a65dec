"""Trains the SentencePiece model of the demo on the demo's own sentences.

Not a general tokenizer: anything else falls back to characters and bytes. The trap: the prompt
holds newlines, so the normaliser must be the identity and must not strip white space; a newline
becomes its byte piece.
"""
import os
import sys

import sentencepiece as spm

import sentences as s

VOCAB = 3072
REPEAT = 6


def corpus_lines():
    """Each line twice: at the start of a text and after a line break (no dummy prefix)."""
    yield ' '.join(chr(c) for c in range(33, 127))
    for code in s.CODES:
        for lang in s.LANGUAGES:
            for name in (s.CAPITALS[code][lang], s.COUNTRIES[lang][code]):
                for _ in range(REPEAT):
                    yield name
                    yield '<|user|>' + name
        for lang in s.LANGUAGES:
            for pattern in s.PATTERNS:
                line = s.sentence(pattern, code, lang)
                yield line
                yield '<|user|>' + line
    for a in s.LANGUAGES.values():
        for b in s.LANGUAGES.values():
            if a != b:
                for _ in range(REPEAT):
                    yield '<|user|>Translate this sentence from %s to %s.' % (a, b)


def train(folder):
    os.makedirs(folder, exist_ok=True)
    prefix = os.path.join(folder, 'tokenizer')
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(list(corpus_lines())), model_prefix=prefix, vocab_size=VOCAB,
        model_type='bpe', character_coverage=1.0, byte_fallback=True,
        normalization_rule_name='identity', remove_extra_whitespaces=False,
        add_dummy_prefix=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        user_defined_symbols=['<|user|>', '<|assistant|>'],
        split_digits=True, split_by_unicode_script=True, max_sentencepiece_length=16,
        num_threads=1, minloglevel=2)
    os.remove(prefix + '.vocab')


if __name__ == '__main__':
    train(sys.argv[1])
