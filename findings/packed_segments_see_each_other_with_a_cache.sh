#!/usr/bin/env bash
# transformers 5.24.0: position ids that begin again say that a row holds several sequences, and the mask then keeps these
# apart, but only where no cache is made. use_cache is true unless it is turned off: then the same ids and positions give,
# without a word, logits in which the second sequence has read the first. 5.17.0 does the same.
# Seen on Linux, CPython 3.11, torch 2.13.0; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/ask.py" <<'PY'
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

torch.manual_seed(0)
sizes = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
for kind, config in ((LlamaForCausalLM, LlamaConfig), (Qwen2ForCausalLM, Qwen2Config)):
    model = kind(config(num_key_value_heads=4, **sizes)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
        ids, positions = torch.randint(50, (1, 10)), torch.tensor([[0, 1, 2, 3, 4] * 2])
        alone = model(input_ids=ids[:, 5:]).logits
        for passed in ({}, {"use_cache": False}):
            packed = model(input_ids=ids, position_ids=positions, **passed).logits[:, 5:]
            same = torch.allclose(packed, alone, atol=1e-4)
            print(transformers.__version__, kind.__name__, passed, "second sequence as alone:", same)
PY
for version in 5.17.0 5.24.0; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version"
  "$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee -a "$folder/seen"
done
diff "$folder/seen" - <<'SEEN'
5.17.0 LlamaForCausalLM {} second sequence as alone: False
5.17.0 LlamaForCausalLM {'use_cache': False} second sequence as alone: True
5.17.0 Qwen2ForCausalLM {} second sequence as alone: False
5.17.0 Qwen2ForCausalLM {'use_cache': False} second sequence as alone: True
5.24.0 LlamaForCausalLM {} second sequence as alone: False
5.24.0 LlamaForCausalLM {'use_cache': False} second sequence as alone: True
5.24.0 Qwen2ForCausalLM {} second sequence as alone: False
5.24.0 Qwen2ForCausalLM {'use_cache': False} second sequence as alone: True
SEEN
