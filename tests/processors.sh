#!/usr/bin/env bash
# The tests on the processors that this one can pass for: what passes here must pass on any.
#
#   tests/processors.sh [PYTEST ARGUMENTS]          every setting, with 1 and 2 threads; all tests unless told which
#   tests/processors.sh --short [PYTEST ARGUMENTS]  two of them, the tests of the arithmetic alone, two cases of each (CI)
#
# PYTHON=dir/bin/python picks the interpreter, WORKERS=0 runs in one process. Ends with a table, and fails where one setting failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${PYTHON:-.venv/bin/python}"
avx2="ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2"
settings=(
    "1 ATEN_CPU_CAPABILITY=default" "2 ATEN_CPU_CAPABILITY=default"
    "1 ATEN_CPU_CAPABILITY=avx2" "2 ATEN_CPU_CAPABILITY=avx2"
    "1 ONEDNN_MAX_CPU_ISA=SSE41" "2 ONEDNN_MAX_CPU_ISA=SSE41"
    "1 ONEDNN_MAX_CPU_ISA=AVX2" "2 ONEDNN_MAX_CPU_ISA=AVX2"
    "1 MKL_ENABLE_INSTRUCTIONS=AVX2" "2 MKL_ENABLE_INSTRUCTIONS=AVX2"
    "1 $avx2" "2 $avx2"
)
if [[ "${1:-}" == --short ]]; then
    shift
    settings=("1 ATEN_CPU_CAPABILITY=default" "2 $avx2")
    [[ $# -gt 0 ]] || set -- --sample-tables tests/model/test_blocks.py tests/sweeps/test_sweep.py tests/sweeps/test_paths.py
fi

# Threads that wait must not keep a core: two processes with two threads each share two cores.
export OMP_WAIT_POLICY=passive

status=0
table=""
for setting in "${settings[@]}"; do
    threads="${setting%% *}"
    read -ra variables <<<"${setting#* }"
    printf '%s, threads: %s\n' "${variables[*]}" "$threads"
    log="$(env "${variables[@]}" OMP_NUM_THREADS="$threads" MKL_NUM_THREADS="$threads" \
        "$python" -m pytest -q -p no:cacheprovider --numprocesses "${WORKERS:-2}" --dist loadfile "$@" 2>&1)" || { status=1 && printf '%s\n' "$log"; }
    table+="$(printf '%-7s | %s | %s' "$threads" "${variables[*]}" "$(tail -n 1 <<<"$log")")"$'\n'
done
printf '\nthreads | setting | result\n%s' "$table"
exit "$status"
