#!/usr/bin/env bash
# Everything that needs a GPU, in one go of under 8 minutes: the tests marked cuda, then one table of figures.
#
#   bash tests/gpu.sh [--out DIR] [--wheels DIR] [--dry-run]
#
# --out DIR      where table.md, figures.json and tests.log are written (reports/gpu)
# --wheels DIR   packages to take from there first, for a machine that reaches no package index
# --dry-run      the same steps on the CPU with tiny sizes and few cases, to know that the script works; its figures mean nothing
#
# PYTHON picks the interpreter (python3); it must have torch, transformers and pytest.
# Exit status: 0 where all tests passed and every figure was taken, 1 otherwise.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=reports/gpu wheels='' device=cuda part=''
while [ $# -gt 0 ]; do
    case "$1" in
        --out) out="$2"; shift 2 ;;
        --wheels) wheels="$2"; shift 2 ;;
        --dry-run) device=cpu part='--part 1/9'; shift ;;
        *) echo "tests/gpu.sh: unknown argument '$1'; see the first lines of the script" >&2; exit 2 ;;
    esac
done
python="${PYTHON:-python3}"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
if [ -n "$wheels" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$scratch/site" "$wheels"/*.whl
    PYTHONPATH="$PYTHONPATH:$scratch/site"
fi
if [ "$device" = cpu ]; then  # such a machine lacks what only other tests need
    mkdir -p "$scratch/site"
    for absent in playwright jsonschema nbclient nbformat sphinx; do
        echo "raise ImportError('$absent is not on a machine with a GPU')" >"$scratch/site/$absent.py"
    done
    PYTHONPATH="$scratch/site:$PYTHONPATH"
fi
mkdir -p "$out"

# Warnings are no errors here: the versions of such a machine are its own, not those of tests/constraints.txt.
status=0
marked="$(grep --recursive --files-with-matches --include='test_*.py' 'mark\.cuda' tests)"
"$python" -m pytest -o addopts='' -o filterwarnings=default -p no:cacheprovider -q --strict-markers \
    -m cuda --cuda-device "$device" $part --disable-warnings $marked >"$out/tests.log" 2>&1 || status=1
tail -n 25 "$out/tests.log"

"$python" -W ignore -m tests.benchmarks.gpu --device "$device" --out "$out" --tests "$(tail -n 1 "$out/tests.log")" || status=1
exit $status
