"""Writes a trained checkpoint in the layout in which PolyLM is published, and reads it back.

    python export.py WORK_FOLDER MODEL_FOLDER

Not a general converter. The trap: c_proj, c_fc and mlp.c_proj are transposed views in the file
(strides (1, rows)), and lm_head.weight shares the storage of wte: both on purpose, because the
published files are like that.
"""
import json
import os
import shutil
import sys
from collections import OrderedDict

import torch

from model import Gpt2

BF16 = torch.bfloat16


def view(weight):
    """The same [in, out] matrix as the transpose of a contiguous [out, in] one."""
    return weight.t().contiguous().t()


def state_dict(model):
    n = model.config['n_positions']
    src = {k: v.detach().to(BF16) for k, v in model.state_dict().items()}
    out = OrderedDict()
    out['transformer.wpe.weight'] = src['wpe']
    out['transformer.wte.weight'] = src['wte']
    for i in range(model.config['n_layer']):
        a, b = 'h.%d.' % i, 'transformer.h.%d.' % i

        def copy(name, change=lambda t: t):
            out[b + name] = change(src[a + name])

        copy('ln_1.weight')
        copy('ln_1.bias')
        out[b + 'attn.bias'] = torch.ones(n, n).tril().view(1, 1, n, n).to(BF16)
        out[b + 'attn.masked_bias'] = torch.tensor(-1e4, dtype=BF16)
        copy('attn.c_attn.weight', lambda t: t.contiguous())
        copy('attn.c_attn.bias')
        copy('attn.c_proj.weight', view)
        copy('attn.c_proj.bias')
        copy('ln_2.weight')
        copy('ln_2.bias')
        copy('mlp.c_fc.weight', view)
        copy('mlp.c_fc.bias')
        copy('mlp.c_proj.weight', view)
        copy('mlp.c_proj.bias')
    out['transformer.ln_f.weight'] = src['ln_f.weight']
    out['transformer.ln_f.bias'] = src['ln_f.bias']
    out['lm_head.weight'] = out['transformer.wte.weight']
    return out


def published_config(c):
    last = c['vocab_size'] - 1
    return {
        'activation_function': 'gelu_fast', 'architectures': ['GPT2LMHeadModel'],
        'attn_pdrop': 0.0, 'bos_token_id': last, 'embd_pdrop': 0.0, 'eos_token_id': last,
        'initializer_range': 0.02, 'layer_norm_epsilon': 1e-05, 'model_type': 'gpt2',
        'n_embd': c['n_embd'], 'n_head': c['n_head'], 'n_inner': c['n_inner'],
        'n_layer': c['n_layer'], 'n_positions': c['n_positions'],
        'reorder_and_upcast_attn': False, 'resid_pdrop': 0.0,
        'scale_attn_by_inverse_layer_idx': False, 'scale_attn_weights': True,
        'summary_activation': None, 'summary_first_dropout': 0.1,
        'summary_proj_to_labels': True, 'summary_type': 'cls_index',
        'summary_use_proj': True, 'tokenizer_class': 'AutoTokenizer',
        'transformers_version': '4.31.0', 'use_cache': True, 'vocab_size': c['vocab_size'],
    }


def special(content):
    return {'content': content, 'lstrip': False, 'normalized': True, 'rstrip': False,
            'single_word': False}


def tokenizer_config(n_positions):
    def added(content):
        return {'__type': 'AddedToken', **special(content)}
    return {
        'add_bos_token': False, 'add_eos_token': False, 'bos_token': added('<s>'),
        'clean_up_tokenization_spaces': False, 'eos_token': added('</s>'),
        'model_max_length': n_positions, 'pad_token': None, 'sp_model_kwargs': {},
        'tokenizer_class': 'LlamaTokenizer', 'unk_token': added('<unk>'),
    }


def write_json(path, value):
    with open(path, 'w', encoding='utf-8') as f:
        f.write(json.dumps(value, indent=2) + '\n')


def export(work, folder):
    os.makedirs(folder, exist_ok=True)
    saved = torch.load(os.path.join(work, 'checkpoint.pt'), map_location='cpu')
    config = saved['config']
    model = Gpt2(config['vocab_size'], config)
    model.load_state_dict(saved['state'])
    torch.save(state_dict(model), os.path.join(folder, 'pytorch_model.bin'))
    write_json(os.path.join(folder, 'config.json'), published_config(config))
    write_json(os.path.join(folder, 'tokenizer_config.json'),
               tokenizer_config(config['n_positions']))
    write_json(os.path.join(folder, 'special_tokens_map.json'),
               {'bos_token': special('<s>'), 'eos_token': special('</s>'),
                'unk_token': special('<unk>')})
    shutil.copyfile(os.path.join(work, 'tokenizer.model'),
                    os.path.join(folder, 'tokenizer.model'))


def load(folder):
    """The shipped files -> model in float32 (every value is a bfloat16)."""
    with open(os.path.join(folder, 'config.json'), encoding='utf-8') as f:
        c = json.load(f)
    names = ('n_embd', 'n_head', 'n_inner', 'n_layer', 'n_positions', 'vocab_size')
    model = Gpt2(c['vocab_size'], {k: c[k] for k in names})
    data = torch.load(os.path.join(folder, 'pytorch_model.bin'), map_location='cpu')
    state = {}
    for name, tensor in data.items():
        name = name.replace('transformer.', '').replace('wte.weight', 'wte')
        name = name.replace('wpe.weight', 'wpe')
        if not name.endswith(('.attn.bias', 'masked_bias')) and name != 'lm_head.weight':
            state[name] = tensor.float()
    model.load_state_dict(state)
    return model.eval()


if __name__ == '__main__':
    export(sys.argv[1], sys.argv[2])
