#!/usr/bin/env bash
# transformers 5.24.0: a T5 whose decoder has more layers than its encoder runs forward, and generate() raises IndexError:
# the cache is made with as many layers as num_hidden_layers says, which T5Config takes from the encoder. T5 decoders of
# vision-language models (BLIP-2, InstructBLIP) are of the same class. use_cache=False works.
# Seen on Linux, CPython 3.11, torch 2.13.0; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/ask.py" <<'PY'
import torch
import transformers
from transformers import T5Config, T5ForConditionalGeneration

sizes = dict(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_heads=2, decoder_start_token_id=0)
for encoder, decoder, cache in ((2, 2, True), (2, 3, True), (2, 3, False)):
    model = T5ForConditionalGeneration(T5Config(num_layers=encoder, num_decoder_layers=decoder, **sizes)).eval()
    ids = torch.tensor([[5, 6]])
    model(input_ids=ids, decoder_input_ids=torch.tensor([[0]]))
    try:
        model.generate(ids, max_new_tokens=1, do_sample=False, use_cache=cache)
        outcome = "writes"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    print(transformers.__version__, f"encoder {encoder}, decoder {decoder}, use_cache={cache}:", outcome)
PY
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
5.24.0 encoder 2, decoder 2, use_cache=True: writes
5.24.0 encoder 2, decoder 3, use_cache=True: IndexError: list index out of range
5.24.0 encoder 2, decoder 3, use_cache=False: writes
SEEN
