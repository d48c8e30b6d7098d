#!/usr/bin/env bash
# Inseq 0.7.1: how scores are aggregated depends on what ran before in the process. Once a gradient method has made one
# result, aggregate("scores") of attention, too, is the normed vector sum instead of the mean: its default is shared.
# Seen on Linux, CPython 3.11, torch 2.13.0, transformers 5.24.0: "alike: False None vnorm".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 inseq==0.7.1
cat > "$folder/aggregate.py" <<'PY'
import inseq
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ["<s>", "</s>", "<pad>", "<unk>", "a", "cat", "sat", "on", "it"]
core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
core.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
)
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=9, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, initializer_range=1.0,
    attn_implementation="eager", bos_token_id=0, eos_token_id=1, pad_token_id=2,
)
model = LlamaForCausalLM(config).eval()


def attributed(method):
    found = inseq.load_model(model, method, tokenizer=tokenizer)
    return found.attribute("a cat", "a cat sat on it", show_progress=False)


def scores():
    found = attributed("attention")
    by = found[0]._dict_aggregate_fn["target_attributions"].get("scores")
    return by, found.aggregate("scores", do_post_aggregation_checks=False)[0].target_attributions.nan_to_num()


before, first = scores()
attributed("saliency")
after, second = scores()
print("alike:", torch.allclose(first, second), before, after)
PY
"$folder/venv/bin/python" "$folder/aggregate.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
alike: False None vnorm
SEEN
