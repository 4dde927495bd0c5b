#!/usr/bin/env bash
# The source distribution and the wheel, built and installed in an empty environment of each Python that is named.
#
#   tests/packages.sh python3.11 python3.12 python3.13
#
# In each: all dependencies at their tested versions, `pip check`, a study from the wheel, another from the source
# distribution, and the tests that need nothing but pytest. PyTorch is several gigabytes where its only build is that
# for CUDA; TORCH=wheel.whl installs that one first. Nothing of the checkout can be imported meanwhile.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
[[ $# -gt 0 ]] || set -- python3

place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
cd "$place"

"$1" -m venv build
build/bin/python -m pip --quiet install --constraint "$here/tests/constraints.txt" build
build/bin/python -m build --outdir dist "$here" >/dev/null
ls -l dist

check() {  # what was installed answers
    "$1/bin/python" -c 'import interp, sys; assert "site-packages" in interp.__file__; print(sys.version.split()[0], "has", interp.__file__)'
    OMP_NUM_THREADS=1 "$1/bin/interp" run color-noun --n 8 --out "$1/run-$2" --quiet
    test -s "$1/run-$2/report.html"
}

for python in "$@"; do
    environment="$(basename "$python")"
    "$python" -m venv "$environment"
    pip() { "$environment/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
    if [[ -n "${TORCH:-}" ]]; then pip install --no-compile --constraint "$here/tests/constraints.txt" "$TORCH"; fi
    pip install --no-compile --constraint "$here/tests/constraints.txt" dist/*.whl pytest
    pip check
    check "$environment" wheel
    cp -r "$here/tests" "$here/pyproject.toml" "$environment/"
    (cd "$environment" && bin/python -m pytest -q -p no:cacheprovider -c pyproject.toml --rootdir . -o pythonpath=. \
        tests/test_stats.py tests/test_store.py tests/test_results.py tests/test_readouts.py tests/sweeps/test_toy.py \
        tests/sweeps/test_journal.py tests/test_captures.py tests/model/test_blocks.py)
    pip uninstall --yes interp
    pip install --no-compile --no-deps dist/*.tar.gz
    check "$environment" sdist
    echo "$environment: wheel and source distribution installed, run and tested."
done
