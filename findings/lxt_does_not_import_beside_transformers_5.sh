#!/usr/bin/env bash
# lxt 2.1, the release of 2025 that AttnLRP's authors publish: its requirements name transformers without a bound, so that
# `pip install lxt` brings transformers 5, beside which `import lxt.efficient` fails: its BERT patches import a module that
# transformers 5 no longer has, also where only Llama is asked for. With transformers 4.57.1 the same import works.
# Seen with CPython 3.11, torch 2.13.0. The outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
seen() {
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "transformers==$1" torch==2.13.0 lxt==2.1
  "$folder/venv/bin/python" - <<'PY' 2>/dev/null
from importlib.metadata import requires, version

bound = next(each for each in requires("lxt") if each.startswith("transformers"))
try:
    from lxt.efficient import monkey_patch

    outcome = f"{monkey_patch.__name__} imported"
except ImportError as error:
    outcome = f"{type(error).__name__}: {error}"
print(f"requires {bound!r}, transformers {version('transformers')}: {outcome}")
PY
}
{ seen 5.24.0; seen 4.57.1; } | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
requires 'transformers', transformers 5.24.0: ModuleNotFoundError: No module named 'transformers.modeling_attn_mask_utils'
requires 'transformers', transformers 4.57.1: monkey_patch imported
SEEN
