#!/usr/bin/env bash
# transformers 5.24.0: a model in float64 computes its logits in float64, and generate(output_logits=True) hands them on as
# float32; so does output_scores. What is sampled and compared there has 7 digits, whatever the model's dtype. A check of
# an answer's probabilities in float64 has to run the forward itself. 5.17.0 does the same.
# Seen on Linux, CPython 3.11, torch 2.13.0; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/ask.py" <<'PY'
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(**sizes, eos_token_id=None, pad_token_id=0)).double().eval()
ids = torch.tensor([[1, 2, 3]])
with torch.no_grad():
    own = model(ids).logits[0, -1]
out = model.generate(
    ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False,
    output_logits=True, output_scores=True, return_dict_in_generate=True,
)
kinds = [str(each.dtype).removeprefix("torch.") for each in (own, out.logits[0], out.scores[0])]
print(transformers.__version__, "forward", kinds[0], "logits", kinds[1], "scores", kinds[2],
      "lost digits:", bool((out.logits[0][0].double() - own).abs().max() > 0))
PY
for version in 5.17.0 5.24.0; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version"
  "$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee -a "$folder/seen"
done
diff "$folder/seen" - <<'SEEN'
5.17.0 forward float64 logits float32 scores float32 lost digits: True
5.24.0 forward float64 logits float32 scores float32 lost digits: True
SEEN
