#!/usr/bin/env bash
# captum 0.9.0 with transformers 5.24.0: LLMAttribution(...).attribute(ImageMaskInput) with its default arguments attributes
# exactly 0 to every segment of the picture, whatever the model. By default it decodes over a cache, and asks the model's
# prepare_inputs_for_generation() for the inputs without `is_first_iteration`; transformers 5 then leaves the pixels out, so
# that all masked pictures give the same logits. With use_cached_outputs=False or forward_in_tokens=False they differ.
# transformers 5.17.0 does the same. Seen on Linux, CPython 3.11, torch 2.13.0; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/ask.py" <<'PY'
import captum
import numpy as np
import torch
import transformers
from captum.attr import FeatureAblation, ImageMaskInput, LLMAttribution
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

torch.manual_seed(0)
sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
vision = CLIPVisionConfig(**sizes, image_size=16, patch_size=8)
text = LlamaConfig(**sizes, vocab_size=60, initializer_range=0.5)
config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=50, vision_feature_layer=-1)
model = LlavaForConditionalGeneration(config).eval()


class Tokenizer:
    """A word for each id."""

    def decode(self, ids):
        return " ".join(map(str, ids.tolist()))

    def __call__(self, text, **unused):
        places = [0, 3, 6]
        return {"input_ids": [int(word) for word in text.split()], "offset_mapping": [(n, n + 2) for n in places]}


def processed(image):
    ids = torch.tensor([[1, 7, 50, 50, 50, 50, 8]])
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
halves = torch.arange(16).repeat(16, 1) // 8
attribution = LLMAttribution(FeatureAblation(model), Tokenizer())
for how in ({}, {"use_cached_outputs": False}, {"forward_in_tokens": False}):
    with torch.no_grad():
        inp = ImageMaskInput(image, halves, processor_fn=processed)
        found = attribution.attribute(inp, target=torch.tensor([11, 12, 13]), **how).token_attr
    print(captum.__version__, transformers.__version__, how, "every value is 0:", not found.any().item())
PY
for version in 5.17.0 5.24.0; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version" captum==0.9.0 pillow
  "$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee -a "$folder/seen"
done
diff "$folder/seen" - <<'SEEN'
0.9.0 5.17.0 {} every value is 0: True
0.9.0 5.17.0 {'use_cached_outputs': False} every value is 0: False
0.9.0 5.17.0 {'forward_in_tokens': False} every value is 0: False
0.9.0 5.24.0 {} every value is 0: True
0.9.0 5.24.0 {'use_cached_outputs': False} every value is 0: False
0.9.0 5.24.0 {'forward_in_tokens': False} every value is 0: False
SEEN
