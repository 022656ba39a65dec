"""build_report.py: builds the CUDA kernels as a release does (every listed architecture) and writes
what that costs: compile time and object size of each file, and registers, spills and shared memory
of each kernel, from what ptxas says. Needs nvcc and CMake, no GPU.
Usage: python3 build_report.py BUILD_FOLDER OUT.md [ARCHS [JOBS]]     (default: release, 2 jobs)
Trap: CMake calls it back as the compiler's launcher, with --wrap, once per file."""
import json
import os
import re
import resource
import subprocess
import sys
import time

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
SPILL = re.compile(r'(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads')
USED = re.compile(r'Used (\d+) registers')
STATIC = re.compile(r'(\d+) bytes smem')


def wrap(folder, command):
    """Runs one compiler call, keeps what it said and the processor time it took."""
    start = time.time()
    done = subprocess.run(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
    sys.stdout.write(done.stdout)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    sources = [c for c in command if c.endswith('.cu')]
    if done.returncode == 0 and sources and '-c' in command:
        out = command[command.index('-o') + 1]
        entry = {'source': os.path.basename(sources[0]), 'seconds': time.time() - start,
                 'processor': used.ru_utime + used.ru_stime, 'bytes': os.path.getsize(out),
                 'said': done.stdout}
        with open(os.path.join(folder, entry['source'] + '.json'), 'w', encoding='utf8') as file:
            json.dump(entry, file)
    return done.returncode


def demangled(names):
    text = subprocess.run(['c++filt'], input='\n'.join(names), stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    short = [re.sub(r'^void |polylm::|\(anonymous namespace\)::|\(.*\)$', '', n) for n in text.split('\n')]
    return dict(zip(names, short))


def kernels_of(said):
    """(mangled, architecture) -> facts"""
    found = {}
    current = None
    for text in said.split('\n'):
        entry, spill, used = ENTRY.search(text), SPILL.search(text), USED.search(text)
        if entry:
            current = found.setdefault((entry[1], entry[2]), {'registers': 0, 'spills': 0, 'stack': 0, 'shared': 0})
        if spill and current is not None:
            current['stack'] = int(spill[1])
            current['spills'] = int(spill[2]) + int(spill[3])
        if used and current is not None:
            current['registers'] = int(used[1])
            static = STATIC.search(text)
            current['shared'] = int(static[1]) if static else 0
    return found


def dynamic(name):
    """Shared memory that a launch asks for, in KiB, as the kernel's file says."""
    numbers = [int(n) for n in re.findall(r'-?\d+', name.split('<')[-1])] if '<' in name else []
    if name.startswith('decode_kernel'):
        columns, rows = numbers[:2]
        size = 8 * rows * 8 * (columns * 16 + 4) * 4 / 1024
        return f'{size:.1f}' + (' + 2 M K B' if 'true' in name else '')
    if name.startswith('prefill_kernel'):
        return str(4 * (numbers[0] * 32 * 64 + 8192) // 1024)
    if name.startswith('prefill_attend'):
        stages = 3 if numbers[0] <= 4 else 2
        return str(stages * 2 * 32 * numbers[0] * 32 * 2 // 1024)
    if name.startswith('decode_attend'):
        return f'{8 * (32 * numbers[0] + 2) * 4 / 1024:.1f}'
    fixed = {'fma_kernel': '12.4', 'reduce_blocks_kernel': '8', 'merge_kernel': '8', 'finish_kernel': '8',
             'norm_kernel': '0.03', 'take_listed_kernel': '8', 'keep_rows_kernel': '8',
             'fp32_attend_kernel': '1 + 4 D B'}
    return fixed.get(name.split('<')[0], '0')


def build(folder, archs, jobs):
    logs = os.path.abspath(os.path.join(folder, 'ptxas'))
    os.makedirs(logs, exist_ok=True)
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), '../..'))
    launcher = f'{sys.executable};{os.path.abspath(__file__)};--wrap;{logs}'
    subprocess.run(['cmake', '-S', root, '-B', folder, '-DPOLYLM_ADDON=OFF', '-DPOLYLM_TESTS=ON',
                    '-DPOLYLM_WERROR=ON', '-DPOLYLM_CUDA=ON', f'-DPOLYLM_CUDA_ARCHS={archs}',
                    f'-DCMAKE_CUDA_COMPILER_LAUNCHER={launcher}', '-DCMAKE_CUDA_FLAGS=-Xptxas=-v'], check=True)
    start = time.time()
    subprocess.run(['cmake', '--build', folder, '--parallel', jobs, '--target', 'polylm_gpu_bench'], check=True)
    wall = time.time() - start
    entries = []
    for name in sorted(os.listdir(logs)):
        with open(os.path.join(logs, name), encoding='utf8') as file:
            entries.append(json.load(file))
    return entries, wall, os.path.getsize(os.path.join(folder, 'polylm_gpu_bench'))


def report(entries, wall, program, archs, jobs, to):
    version = subprocess.run(['nvcc', '--version'], stdout=subprocess.PIPE, text=True, check=True).stdout
    release = re.search(r'release ([\d.]+), V([\d.]+)', version)
    warnings = sum(len(re.findall(r'warning', e['said'], re.I)) for e in entries)
    ours = [e for e in entries if e['source'] != 'peaks.cu']
    print('# The CUDA build\n\nWritten by `benchmarks/gpu/build_report.py`; no GPU was needed and none was used.\n', file=to)
    print(f'nvcc {release[2]}, architectures: {archs}, {jobs} jobs on a shared machine. Whole build of '
          f'`polylm_gpu_bench`, C++ included: {wall:.0f} s; the CUDA files: {sum(e["processor"] for e in ours):.0f} s '
          f'of processor time, {sum(e["bytes"] for e in ours) / 1e6:.1f} MB of objects (device code compressed); '
          f'the program: {program / 1e6:.1f} MB. Warnings: {warnings}.\n', file=to)
    print('| file | processor s | object KB |\n|---|---|---|', file=to)
    for e in sorted(entries, key=lambda e: -e['processor']):
        print(f"| {e['source']} | {e['processor']:.1f} | {e['bytes'] / 1e3:.0f} |", file=to)
    found = {}
    for e in entries:
        for (name, arch), facts in kernels_of(e['said']).items():
            found.setdefault(name, {})[arch] = facts
    names = demangled(list(found))
    all_archs = sorted({a for facts in found.values() for a in facts}, key=lambda a: int(re.sub(r'\D', '', a)))
    print('\nRegisters of a thread by architecture; spills are the worst of them, stores and loads, in bytes. Dynamic '
          'shared memory in KiB (M rows, K or D columns); static shared memory is none unless it says so.\n', file=to)
    print(f"| kernel | {' | '.join(all_archs)} | spills | stack | dynamic shared |", file=to)
    print('|---' * (len(all_archs) + 4) + '|', file=to)
    for name in sorted(found, key=lambda n: names[n]):
        facts = found[name]
        registers = ' | '.join(str(facts[a]['registers']) if a in facts else '-' for a in all_archs)
        shared = max(f['shared'] for f in facts.values())
        print(f"| `{names[name]}` | {registers} | {max(f['spills'] for f in facts.values())} | "
              f"{max(f['stack'] for f in facts.values())} | {dynamic(names[name])}"
              f"{f' + {shared} B static' if shared else ''} |", file=to)


def main():
    if len(sys.argv) > 3 and sys.argv[1] == '--wrap':
        sys.exit(wrap(sys.argv[2], sys.argv[3:]))
    if len(sys.argv) < 3:
        sys.exit('usage: build_report.py BUILD_FOLDER OUT.md [ARCHS [JOBS]]')
    folder, out = sys.argv[1:3]
    archs = sys.argv[3] if len(sys.argv) > 3 else 'release'
    jobs = sys.argv[4] if len(sys.argv) > 4 else '2'
    entries, wall, program = build(folder, archs, jobs)
    with open(out, 'w', encoding='utf8') as to:
        report(entries, wall, program, archs, jobs, to)


main()
