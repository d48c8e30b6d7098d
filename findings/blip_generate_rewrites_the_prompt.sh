#!/usr/bin/env bash
# transformers 5.24.0: generate() of BLIP writes its begin token over the first id of the tensor that the caller gave, and
# leaves the last id out. Whoever asks twice with the same tensor asks another question the second time if the first id
# was a word, and whoever compares the returned ids with the prompt finds one less. 5.17.0 does the same.
# Seen on Linux, CPython 3.11, torch 2.13.0; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/ask.py" <<'PY'
import torch
import transformers
from transformers import BlipConfig, BlipForConditionalGeneration

sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
text = dict(sizes, vocab_size=50, encoder_hidden_size=16, bos_token_id=3, eos_token_id=4, sep_token_id=4, pad_token_id=0)
vision = dict(sizes, image_size=16, patch_size=8)
model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).eval()
ids = torch.tensor([[7, 8, 9]])
out = model.generate(pixel_values=torch.zeros(1, 3, 16, 16), input_ids=ids, max_new_tokens=1, do_sample=False)
print(transformers.__version__, "given [7, 8, 9], left as", ids[0].tolist(), "answered behind", out[0, :-1].tolist())
PY
for version in 5.17.0 5.24.0; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version"
  "$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee -a "$folder/seen"
done
diff "$folder/seen" - <<'SEEN'
5.17.0 given [7, 8, 9], left as [3, 8, 9] answered behind [3, 8]
5.24.0 given [7, 8, 9], left as [3, 8, 9] answered behind [3, 8]
SEEN
