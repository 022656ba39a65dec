"""summary.py: results.json of run.sh as Markdown: what was promised and what was measured, and every
number next to PyTorch's, for whoever ran it. Usage: python3 summary.py results.json. Not here: measuring; the
committed page benchmarks/results/gpu-h200.md, which `npm run published` makes from the same JSON."""
import json
import os
import sys


def table(lines):
    """name -> (value, unit, ratio)"""
    return {l['name']: (l['value'], l['unit'], l.get('ratio', 0)) for l in lines if 'value' in l}


def show(value):
    return '-' if value is None else f'{value:.2f}'


def ratio_of(ours, torch, name):
    if name not in ours or f'torch {name}' not in torch or torch[f'torch {name}'][0] == 0:
        return None
    return ours[name][0] / torch[f'torch {name}'][0]


def share(ours, name):
    return ours[name][2] if name in ours else None


def mean(values):
    """Geometric mean of what there is."""
    there = [v for v in values if v]
    product = 1.0
    for v in there:
        product *= v
    return product ** (1 / len(there)) if there else None


def goals(ours, torch):
    """What goals.json asks for: (name, measured, at least, aim)."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'goals.json'), encoding='utf8') as file:
        listed = json.load(file)
    return [(goal['name'],
             share(ours, goal['share']) if 'share' in goal else mean([ratio_of(ours, torch, name) for name in goal['torch']]),
             goal['least'], goal['aim']) for goal in listed]


def main():
    if len(sys.argv) != 2:
        sys.exit('usage: summary.py results.json')
    with open(sys.argv[1], encoding='utf8') as file:
        results = json.load(file)
    ours, again, torch, plain = (table(results[key]) for key in ('ours', 'oursAgain', 'torch', 'plain'))
    print(f"# Measured on {results['card']}\n")
    print(f"Commit {results['commit']}, nvcc {results['nvcc']}; tests: {results['passed']} passed, "
          f"{results['failed']} failed, {results['skipped']} skipped.\n")
    print('| promised | measured | at least | aim |\n|---|---|---|---|')
    for name, value, least, aim in goals(ours, torch):
        print(f'| {name} | {show(value)} | {least} | {aim} |')
    print('\n| what | ours | again | unit | share of the card | without graphs | PyTorch | ratio |')
    print('|---|---|---|---|---|---|---|---|')
    for name, (value, unit, part) in ours.items():
        other = torch.get(f'torch {name}', (None,))[0]
        print(f'| {name} | {show(value)} | {show(again.get(name, (None,))[0])} | {unit} | '
              f'{show(part) if part else "-"} | {show(plain.get(name, (None,))[0])} | {show(other)} | '
              f'{show(ratio_of(ours, torch, name))} |')
    for line in results['ours'] + results['torch']:
        if 'skipped' in line and 'name' in line and line['name'] != 'total':
            print(f"\nskipped: {line['name']}: {line['skipped']}")


main()
