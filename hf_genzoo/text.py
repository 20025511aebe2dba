"""Text encoders: any of transformers, frozen, or a small one that learns with the model; and their tokenizers."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    CLIPTextModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5EncoderModel,
)

from hf_genzoo.data.caption_cache import CaptionCache
from hf_genzoo.pipelines.glide import token_states

PAD, START, END = "<pad>", "<start>", "<end>"
_ENCODERS = {"clip": CLIPTextModel, "clip_text_model": CLIPTextModel, "t5": T5EncoderModel}
"""Where the plain class of a model is more than its text encoder."""


def load_text_encoder(
    name_or_path: str, revision: str | None = None
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """A text encoder of transformers with its tokenizer, frozen: CLIP's and T5's encoders, BERT and its like.

    Args:
        name_or_path: Repository on the Hub, or a folder. That of a diffusers pipeline has both in subfolders.
        revision: Branch, tag or commit on the Hub.

    Raises:
        OSError: It cannot be found.
        ValueError: It has no tokenizer that can pad.
    """
    whole = (Path(name_or_path) / "text_encoder").is_dir()
    places: list[dict[str, Any]] = [{"subfolder": s} if whole else {} for s in ("tokenizer", "text_encoder")]
    config = AutoConfig.from_pretrained(name_or_path, revision=revision, **places[1])
    tokenizer = AutoTokenizer.from_pretrained(name_or_path, revision=revision, **places[0])
    if tokenizer.pad_token is None:
        raise ValueError(f"the tokenizer of {name_or_path} has no padding token; take another text encoder")
    cls = _ENCODERS.get(config.model_type, AutoModel)
    encoder = cls.from_pretrained(name_or_path, revision=revision, **places[1])
    return tokenizer, encoder.eval().requires_grad_(False)


def text_dim(encoder: PreTrainedModel) -> int:
    """Length of the vector of a token."""
    return int(encoder.config.hidden_size)


def encoder_key(tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel) -> str:
    """Hash of all that settles what an encoder makes of a text: its kind, its weights and its tokenizer."""
    total = hashlib.blake2b(digest_size=16)
    total.update(type(encoder).__name__.encode())
    for name, value in sorted(encoder.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {"vocabulary": tokenizer.get_vocab()} if backend is None else json.loads(backend.to_str())
    rules = {name: rule for name, rule in rules.items() if name not in ("truncation", "padding")}  # of the last call
    total.update(json.dumps(rules, sort_keys=True).encode())
    return total.hexdigest()


def small_tokenizer(captions: Iterable[str], vocab_size: int, length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the captions: frequent words are one token, and any text can be written.

    Args:
        captions: Texts to learn from.
        vocab_size: Tokens at most; 256 bytes and 3 marks are among them.
        length: Longest text in tokens, the marks at its ends included.

    Raises:
        ValueError: If there is no room for the bytes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + 3:
        raise ValueError(f"a vocabulary of {vocab_size} has no room for {len(alphabet)} bytes and 3 marks")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])  # pyright: ignore
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, START, END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single=f"{START} $A {END}", special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in (START, END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=START, eos_token=END, model_max_length=length
    )


def small_text_encoder(vocab_size: int, length: int, dim: int, layers: int) -> DistilBertModel:
    """An untrained transformer over tokens, for the marks of `small_tokenizer`.

    Every token sees the whole caption, as in GLIDE and unlike in CLIP: in "a circle above a square" the circle's place
    is told by words after it.
    """
    config = DistilBertConfig(
        vocab_size=vocab_size,
        dim=dim,
        hidden_dim=4 * dim,
        n_layers=layers,
        n_heads=max(1, dim // 32),
        max_position_embeddings=length,
        pad_token_id=0,
        dropout=0.0,
        attention_dropout=0.0,
        initializer_range=dim**-0.5,  # BERT's 0.02 is for 768 numbers a token: with few, the layers would do nothing
    )
    return DistilBertModel(config)


class FrozenTexts:
    """Captions through a frozen encoder: each is encoded once, ever.

    Args:
        tokenizer: Of the encoder.
        encoder: On its device.
        length: Tokens of a caption, padding included.
        root: Folder of all caches.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel, length: int, root: Path) -> None:
        self._tokenizer, self._encoder, self._length = tokenizer, encoder, length
        self._cache = CaptionCache(root, encoder_key(tokenizer, encoder), length)

    def prepare(self, texts: Sequence[str]) -> int:
        """Encode all texts that are not kept yet, and say how many these were."""
        return self._cache.fill(texts, lambda part: token_states(self._tokenizer, self._encoder, part, self._length))

    def __call__(self, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """States (B, length, dim) and their mask (B, length); texts that come for the first time are encoded."""
        self.prepare(texts)
        return self._cache.gather(texts, device)
