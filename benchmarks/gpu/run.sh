#!/usr/bin/env bash
# run.sh: everything of polylm that wants a GPU, with one command and without Node or a network:
# builds for the card at hand, runs conformance, the engine against Hugging Face's fixtures, the
# sanitizers where they are installed, the benchmark, and PyTorch beside it where that is installed.
#   benchmarks/gpu/run.sh [--quick] [--out FOLDER] [--parts LIST] [--prebuilt] [--sanitizer-seconds N]
# --quick: tiny shapes and no sanitizers, to see that all of it works (minutes instead of an hour).
# --parts: only some of tests,plain,sanitizers,bench,torch,again,plain-bench, separated by commas.
# --prebuilt: the programs in build-gpu were built elsewhere for this GPU; nothing is compiled.
# --sanitizer-seconds: the limit of one sanitizer run (default 1800); one that hits it is a failure.
# Results: FOLDER/results.json and FOLDER/summary.md (default build-gpu/results). The last line is
# `N passed, N failed, N skipped`; the status is 1 when something failed. Without a GPU or without
# nvcc nothing can be shown: each part is counted as skipped, and the status is 0.
set -u
cd "$(dirname "$0")/../.."
build=build-gpu
out=$build/results
quick=""
wanted=tests,plain,sanitizers,bench,torch,again,plain-bench
prebuilt=""
sanitizer_seconds=1800
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) quick=1 ;;
    --parts) shift; wanted=${1:?--parts wants a list} ;;
    --prebuilt) prebuilt=1 ;;
    --sanitizer-seconds) shift; sanitizer_seconds=${1:?--sanitizer-seconds wants a number} ;;
    --out) shift; out=${1:?--out wants a folder} ;;
    *) sed -n 's/^#   benchmarks/usage: benchmarks/p' "$0" >&2; exit 2 ;;
  esac
  shift
done
passed=0 failed=0 skipped=0
mkdir -p "$out"

say() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }
wants() { case ",$wanted," in *",$1,"*) true ;; *) false ;; esac; }
skip() { printf 'skip %s: %s\n' "$1" "$2"; skipped=$((skipped + 1)); }
good() { printf 'pass %s\n' "$1"; passed=$((passed + 1)); }
bad() { printf 'FAIL %s: %s\n' "$1" "$2"; failed=$((failed + 1)); }
finish() {
  printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  [ "$failed" -eq 0 ]; exit
}

# A native test program: its totals are ours. Arguments: name, log, command.
tests() {
  local name=$1 log=$2 line; shift 2
  say "$name"
  "$@" 2>&1 | tee "$log"
  local status=${PIPESTATUS[0]}
  line=$(grep -E '^native: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -1)
  if [ -z "$line" ]; then bad "$name" "it ended with status $status before its last line"; return; fi
  read -r p f s < <(echo "$line" | tr -c '0-9\n' ' ')
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then bad "$name" "status $status"; fi
}

# A program that prints JSON lines. Arguments: name, file, command.
lines() {
  local name=$1 file=$2; shift 2
  say "$name"
  if "$@" > "$file"; then cat "$file"; good "$name"; else cat "$file"; bad "$name" "status $?"; fi
}

# ------------------------------------------------------------------------------------ what is here
parts="build conformance plain fixtures sanitizers benchmark PyTorch"
card=$(nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total \
  --format=csv,noheader,nounits 2>/dev/null | head -1) || card=""
if [ -z "$card" ]; then
  for part in $parts; do skip "$part" "nvidia-smi shows no NVIDIA GPU"; done
  finish
fi
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null) || nvcc=""
if [ -z "$nvcc" ] || ! command -v cmake >/dev/null; then
  for part in $parts; do skip "$part" "the CUDA toolkit (nvcc) or CMake is not installed"; done
  finish
fi
echo "card: $card"
capability=$(echo "$card" | cut -d, -f2 | tr -d ' .')
arch=$capability-real
[ "$capability" = 90 ] && arch=90a-real

# -------------------------------------------------------------------------------------------- build
say "build for sm_$capability"
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
if [ -n "$prebuilt" ]; then
  if [ -x "$build/polylm_tests" ] && [ -x "$build/polylm_gpu_bench" ]; then
    good "build (made elsewhere)"
  else
    bad build "--prebuilt, but $build has no polylm_tests and polylm_gpu_bench"; finish
  fi
elif CUDACXX=$nvcc cmake -S . -B "$build" "${generator[@]}" -DPOLYLM_ADDON=OFF -DPOLYLM_TESTS=ON \
     -DPOLYLM_CUDA=ON "-DPOLYLM_CUDA_ARCHS=$arch" > "$out/configure.log" 2>&1 &&
   cmake --build "$build" --parallel "${JOBS:-$(nproc)}" --target polylm_tests polylm_gpu_bench \
     > "$out/build.log" 2>&1; then
  good build
else
  tail -40 "$out/configure.log" "$out/build.log" 2>/dev/null
  bad build "see $out/configure.log and $out/build.log"
  finish
fi

# ------------------------------------------------------------------------------------------ fixtures
flat=$build/flat
python=$(command -v python3 || true)
node=$(command -v node || true)
for model in gpt2-tiny gpt2-mid; do
  from=test/fixtures/models/$model
  [ -f "$from/model.safetensors" ] || continue
  mkdir -p "$flat"
  [ -n "$node" ] && "$node" scripts/flatten-fixture.mjs "$from" "$flat/$model.flat"
  [ -n "$python" ] && "$python" benchmarks/gpu/flatten.py "$from" "$flat/$model.py.flat"
  if [ -n "$node" ] && [ -n "$python" ]; then
    if cmp -s "$flat/$model.flat" "$flat/$model.py.flat"; then good "flat file of $model"
    else bad "flat file of $model" "Node's and Python's differ"; fi
  fi
  [ -f "$flat/$model.flat" ] || mv "$flat/$model.py.flat" "$flat/$model.flat" 2>/dev/null ||
    skip "flat file of $model" "neither Node nor Python is installed"
done
export POLYLM_FLAT=$PWD/$flat

# --------------------------------------------------------------------------------------------- tests
wants tests &&
  tests "conformance and fixtures on the card" "$out/tests.log" "$build/polylm_tests" cuda
wants plain &&
  tests "the same without graphs and overlap" "$out/tests-plain.log" \
    env POLYLM_CUDA_PLAIN=1 "$build/polylm_tests" cuda

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) ||
  sanitizer=""
for tool in memcheck racecheck synccheck initcheck; do
  wants sanitizers || continue
  if [ -n "$quick" ]; then skip "$tool" "--quick"; continue; fi
  if [ -z "$sanitizer" ]; then skip "$tool" "compute-sanitizer is not installed"; continue; fi
  say "$tool"
  # cuda_r*: both roles in one step, and steps replayed as graphs: every kernel of the bf16 path.
  if timeout "$sanitizer_seconds" "$sanitizer" --tool "$tool" --error-exitcode 9 --log-file "$out/$tool.log" \
       "$build/polylm_tests" cuda_r > "$out/$tool-tests.log" 2>&1 &&
     timeout "$sanitizer_seconds" "$sanitizer" --tool "$tool" --error-exitcode 9 --log-file "$out/$tool-fp32.log" \
       "$build/polylm_tests" cuda_fp32 >> "$out/$tool-tests.log" 2>&1; then
    good "$tool"
  else
    tail -20 "$out/$tool-tests.log" "$out/$tool.log" 2>/dev/null
    bad "$tool" "see $out/$tool.log and $out/$tool-tests.log"
  fi
done

# ---------------------------------------------------------------------------------------- benchmarks
# Ours, the rival, ours again: what differs between the two runs of ours is the machine's noise.
smoke=()
[ -n "$quick" ] && smoke=(--smoke)
wants bench &&
  lines "benchmark" "$out/ours.jsonl" "$build/polylm_gpu_bench" "${smoke[@]}"
if ! wants torch; then :
elif [ -z "$python" ]; then skip "PyTorch" "python3 is not installed"
elif ! "$python" -c 'import torch' 2>/dev/null; then skip "PyTorch" "it is not installed"
else lines "PyTorch" "$out/torch.jsonl" "$python" benchmarks/gpu/torch_rival.py "${smoke[@]}"; fi
wants again &&
  lines "benchmark, again" "$out/ours-again.jsonl" "$build/polylm_gpu_bench" "${smoke[@]}"
wants plain-bench &&
  lines "decode without graphs and overlap" "$out/plain.jsonl" \
    "$build/polylm_gpu_bench" "${smoke[@]}" --plain --only decode

# The JSON by hand, so that it needs no Python: the lines of each file are an array.
array() { [ -f "$1" ] && grep '^{' "$1" | paste -sd, - || true; }
cat > "$out/results.json" <<JSON
{"card": "$card", "nvcc": "$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')",
 "commit": "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)", "quick": ${quick:-0},
 "passed": $passed, "failed": $failed, "skipped": $skipped,
 "ours": [$(array "$out/ours.jsonl")],
 "torch": [$(array "$out/torch.jsonl")],
 "oursAgain": [$(array "$out/ours-again.jsonl")],
 "plain": [$(array "$out/plain.jsonl")]}
JSON
if [ -n "$python" ]; then
  say "summary"
  if "$python" benchmarks/gpu/summary.py "$out/results.json" | tee "$out/summary.md"; then
    good summary
  else
    bad summary "results.json could not be read"
  fi
fi
finish
