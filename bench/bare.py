"""The floor of `bench start`: a script that generates the embedded model's answer, without dexar_fast."""

from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

ASSETS = Path(__file__).parents[1] / "dexar_fast" / "assets"
QUESTION = "Describe the image."


def main() -> None:
    processor = AutoProcessor.from_pretrained(ASSETS / "shapes-llava")
    model = AutoModelForImageTextToText.from_pretrained(ASSETS / "shapes-llava", dtype=torch.float32).eval()
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    picture = Image.open(ASSETS / "sample.png").convert("RGB")
    inputs = processor(images=picture, text=text, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=128)
    print(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


if __name__ == "__main__":
    main()
