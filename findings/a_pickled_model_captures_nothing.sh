#!/usr/bin/env bash
# transformers: a model that torch.save wrote and another process loads gives no hidden states, without a word, until that
# process makes a model of the same class. What a class can capture is noted when one is made. And once a model has been
# asked for hidden states it cannot be pickled at all: its hooks are local functions. Spawned workers meet both, and LLaVA,
# which takes its image features from such hidden states, fails in them. Seen with 5.17.0 and 5.24.0 on Linux, CPython
# 3.11, torch 2.13.0; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/ask.py" <<'PY'
import sys

import torch
import transformers
from transformers import CLIPVisionConfig, CLIPVisionModel

PIXELS = torch.zeros(1, 3, 32, 32)
config = CLIPVisionConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
)


def captured(model):
    states = model(PIXELS, output_hidden_states=True).hidden_states
    return states if states is None else len(states)


def outcome(model):
    try:
        torch.save(model, sys.argv[2] + ".again")
    except Exception as error:
        return type(error).__name__
    return "ok"


if sys.argv[1] == "write":
    model = CLIPVisionModel(config).eval()
    torch.save(model, sys.argv[2])
    print(transformers.__version__, "here:", captured(model), "saved again:", outcome(model))
else:
    print(transformers.__version__, "loaded:", captured(torch.load(sys.argv[2], weights_only=False)))
    CLIPVisionModel(config)
    print(transformers.__version__, "once one is made:", captured(torch.load(sys.argv[2], weights_only=False)))
PY
for version in 5.17.0 5.24.0; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version"
  for step in write read; do
    "$folder/venv/bin/python" "$folder/ask.py" "$step" "$folder/model.pt" 2>/dev/null | tee -a "$folder/seen"
  done
done
diff "$folder/seen" - <<'SEEN'
5.17.0 here: 3 saved again: AttributeError
5.17.0 loaded: None
5.17.0 once one is made: 3
5.24.0 here: 3 saved again: AttributeError
5.24.0 loaded: None
5.24.0 once one is made: 3
SEEN
