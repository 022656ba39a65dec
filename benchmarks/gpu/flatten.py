"""flatten.py: scripts/flatten-fixture.mjs for machines without Node: writes a fixture folder
(config.json, expected.json, model.safetensors) as the flat file that native tests read. The format
is described there; run.sh compares the two byte for byte where both can run.
Usage: python3 flatten.py FOLDER OUT"""
import json
import os
import struct
import sys


def leaves(value, name):
    """(path, numbers) of everything in a JSON value."""
    if isinstance(value, bool):
        yield name, [1 if value else 0]
    elif isinstance(value, (int, float)):
        yield name, [value]
    elif isinstance(value, str):
        yield name, [ord(c) for c in value]
    elif isinstance(value, list) and all(is_number(v) for v in value):
        yield name, value
    elif isinstance(value, list):
        yield f'{name}/length', [len(value)]
        for i, item in enumerate(value):
            yield from leaves(item, f'{name}/{i}')
    elif value is not None:
        for key, item in in_order_of_javascript(value):
            yield from leaves(item, f'{name}/{key}' if name else key)


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def in_order_of_javascript(value):
    """An object's entries as JavaScript walks them: whole numbers first, in their order."""
    whole = sorted((k for k in value if k.isdigit() and str(int(k)) == k), key=int)
    return [(k, value[k]) for k in whole] + [(k, v) for k, v in value.items() if k not in set(whole)]


def record(name, kind, dims, data):
    label = name.encode()
    return (struct.pack('<I', len(label)) + label + struct.pack('<BI', kind, len(dims)) +
            struct.pack(f'<{len(dims)}q', *dims) + struct.pack('<Q', len(data)) + data)


def flatten(folder, out):
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    with open(out, 'wb') as to:
        for file in ('config', 'expected'):
            with open(os.path.join(folder, f'{file}.json'), encoding='utf8') as text:
                value = json.load(text)
            for name, numbers in leaves(value, file):
                data = struct.pack(f'<{len(numbers)}d', *numbers)
                to.write(record(name, 0, [len(numbers)], data))
        with open(os.path.join(folder, 'model.safetensors'), 'rb') as weights:
            header = json.loads(weights.read(struct.unpack('<Q', weights.read(8))[0]))
            first = weights.tell()
            for name, tensor in header.items():
                if name == '__metadata__':
                    continue
                if tensor['dtype'] != 'BF16':
                    raise ValueError(f"{name} is {tensor['dtype']}, expected BF16")
                begin, end = tensor['data_offsets']
                weights.seek(first + begin)
                to.write(record(f'tensor/{name}', 1, tensor['shape'], weights.read(end - begin)))


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit('usage: flatten.py FOLDER OUT')
    flatten(sys.argv[1], sys.argv[2])
