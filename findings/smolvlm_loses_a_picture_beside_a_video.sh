#!/usr/bin/env bash
# transformers 5.24.0: SmolVLM's processor, given a picture and a video in one prompt, writes the placeholders of both into
# the ids, and hands on the pixels of the video alone: pixel_values of the frames replace those of the picture and its tiles.
# No error, no warning: 36 places for image features stand in the ids, and there are images for 16 of them.
# Seen on Linux, CPython 3.11, torch 2.14.1 with torchvision 0.29.1; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 transformers==5.24.0 \
  tokenizers==0.23.1 pillow num2words
cat > "$folder/ask.py" <<'PY'
import numpy as np
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers.video_utils import VideoMetadata

NAMES = ["<pad>", "<unk>", "<image>", "<video>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
words = Tokenizer(models.WordLevel({name: place for place, name in enumerate(NAMES)}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
tokenizer.add_special_tokens({"additional_special_tokens": NAMES[2:]})
tokenizer.image_token, tokenizer.image_token_id, tokenizer.video_token = "<image>", 2, "<video>"
tokenizer.fake_image_token, tokenizer.global_image_token = NAMES[4:6]
tokenizer.end_of_utterance_token = NAMES[6]
sides = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}}
processor = transformers.SmolVLMProcessor(
    transformers.SmolVLMImageProcessor(**sides), tokenizer, transformers.SmolVLMVideoProcessor(**sides), image_seq_len=4
)
picture = {"images": [[Image.new("RGB", (16, 16), "red")]]}
frames = np.zeros((4, 16, 16, 3), dtype=np.uint8)
times = VideoMetadata(total_num_frames=4, fps=2.0, width=16, height=16, duration=2.0, frames_indices=[0, 1, 2, 3])
video = {"videos": [[frames]], "video_metadata": [[times]], "do_sample_frames": False}
for text, given in (("<image>", picture), ("<video>", video), ("<image><video>", picture | video)):
    made = processor(text=[text], return_tensors="pt", **given)
    places = int((made["input_ids"] == 2).sum())
    print(text, "places:", places, "images:", made["pixel_values"].shape[1], "of 4 places each")
PY
"$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
<image> places: 20 images: 5 of 4 places each
<video> places: 16 images: 4 of 4 places each
<image><video> places: 36 images: 4 of 4 places each
SEEN
