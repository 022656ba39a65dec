#!/bin/sh
# Rebuilds the demo model from its tables: train, export, measure, write the expected tokens.
# Not needed to use polylm. Arguments go to train.py (for example: --threads 4 --seconds 1200).
set -e
here=$(cd "$(dirname "$0")" && pwd)
work=$here/work
model=$here/../model
mkdir -p "$work"
python3 "$here/train.py" "$work" "$@"
python3 "$here/export.py" "$work" "$model"
python3 "$here/evaluate.py" "$model"
python3 "$here/evaluate.py" "$model" --expected "$here/expected.json"
