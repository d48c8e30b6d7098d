#!/usr/bin/env bash
# transformers 5.24.0: generate() of a GOT-OCR2 in bfloat16 fails on what its processor returns, float32 pixels, which the
# model's own forward takes: generate() asks for the image features before the forward, which would have cast the pixels.
# Llama 4 fails in every forward with an image: it reads an attribute that its language model's output has not.
# 5.17.0 does both. Seen on Linux, CPython 3.11, torch 2.13.0; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/ask.py" <<'PY'
import torch
import transformers
from transformers import GotOcr2Config, GotOcr2ForConditionalGeneration, Llama4Config, Llama4ForConditionalGeneration

SIZES = dict(vocab_size=120, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)


def outcome(call, **inputs):
    try:
        with torch.no_grad():
            call(**inputs)
    except Exception as error:
        return type(error).__name__
    return "ok"


def asked(images, **pixels):
    ids = torch.tensor([[5, 6, *[110] * images, 7, 8]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}


vision = dict(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=4, mlp_dim=32, output_channels=16
)
text = dict(model_type="qwen2", num_key_value_heads=2, eos_token_id=None, pad_token_id=0, **SIZES)
got = GotOcr2ForConditionalGeneration(GotOcr2Config(vision_config=vision, text_config=text, image_token_index=110))
got = got.to(torch.bfloat16).eval()
inputs = asked(16, pixel_values=torch.randn(1, 3, 64, 64))

vision = dict(
    hidden_size=32, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=4,
    vision_output_dim=32, projector_input_dim=32, projector_output_dim=32,
)
text = dict(num_key_value_heads=2, head_dim=16, intermediate_size_mlp=48, num_local_experts=2, pad_token_id=0, **SIZES)
llama = Llama4ForConditionalGeneration(Llama4Config(vision_config=vision, text_config=text, image_token_index=110)).eval()
print(
    transformers.__version__,
    "GOT-OCR2 forward:", outcome(got, **inputs),
    "generate:", outcome(got.generate, **inputs, max_new_tokens=1),
    "Llama 4 forward:", outcome(llama, **asked(4, pixel_values=torch.randn(1, 3, 16, 16))),
)
PY
for version in 5.17.0 5.24.0; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version" pillow
  "$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee -a "$folder/seen"
done
diff "$folder/seen" - <<'SEEN'
5.17.0 GOT-OCR2 forward: ok generate: ok Llama 4 forward: ok
5.24.0 GOT-OCR2 forward: ok generate: RuntimeError Llama 4 forward: AttributeError
SEEN
