#!/usr/bin/env bash
# transformers 5.17.0: generate(prefill_chunk_size=...) of a LLaVA model writes another answer than generate() alone to a
# prompt with an image, without an error or a warning. 5.24.0 writes the same one.
# Seen on Linux, CPython 3.11, torch 2.13.0: 5.17.0 "same answer: False", 5.24.0 "same answer: True".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/ask.py" <<'PY'
import torch
import transformers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

torch.manual_seed(0)
text = LlamaConfig(
    vocab_size=120, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    eos_token_id=None, initializer_range=0.5,
)
vision = CLIPVisionConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4,
    initializer_range=0.5,
)
config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=110, vision_feature_layer=-1)
model = LlavaForConditionalGeneration(config).eval()
ids = torch.tensor([[5, 6, *[110] * 16, 7, 8, 9, 10]])
inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, 16, 16)}
answers = [
    model.generate(**inputs, max_new_tokens=12, do_sample=False, **more)[0, ids.shape[1] :].tolist()
    for more in ({}, {"prefill_chunk_size": 7})
]
print(transformers.__version__, "same answer:", answers[0] == answers[1])
PY
for version in 5.17.0 5.24.0; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version" pillow
  "$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee -a "$folder/seen"
done
diff "$folder/seen" - <<'SEEN'
5.17.0 same answer: False
5.24.0 same answer: True
SEEN
