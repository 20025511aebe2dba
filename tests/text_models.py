"""Tiny text encoders of three kinds with random weights, as folders that transformers opens."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from hf_genzoo.text import small_tokenizer

CAPTIONS = ["a small red circle", "a large blue square left of a small green triangle", "a cat", "the cat sat down"]


def text_encoder_folder(kind: str, folder: Path, seed: int = 0) -> Path:
    """A folder with an untrained "clip", "t5" or "bert" of a few thousand weights, and its tokenizer."""
    tokenizer = small_tokenizer(CAPTIONS, 320, 20)
    torch.manual_seed(seed)
    size, marks = len(tokenizer), {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if kind == "clip":
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = CLIPTextModel(CLIPTextConfig(vocab_size=size, **sizes, max_position_embeddings=20, **marks))
    elif kind == "t5":
        model = T5EncoderModel(
            T5Config(vocab_size=size, d_model=12, d_kv=6, d_ff=24, num_layers=2, num_heads=2, pad_token_id=0)
        )
    else:
        sizes = {"hidden_size": 20, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = BertModel(BertConfig(vocab_size=size, **sizes, max_position_embeddings=20, pad_token_id=0))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
