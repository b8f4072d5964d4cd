"""Embeddings of the classes' texts by CLIP's text encoder, for cosine heads.

Shapes: C classes, E numbers of a text's embedding.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from abaw_expr.errors import SettingsError
from abaw_expr.models.encoders.clip_names import open_clip_names
from abaw_expr.models.encoders.clip_networks import CLIP
from abaw_expr.models.encoders.weights import download, fit, read_tensors
from abaw_expr.models.encoders.weights_path import DEFAULT, weights_path
from abaw_expr.models.head import CosineHead
from abaw_expr.models.network import Network
from abaw_expr.settings import Settings

PROMPT = "a photo of a person who looks {}."
WORDS = {
    "Neutral": "neutral",
    "Anger": "angry",
    "Disgust": "disgusted",
    "Fear": "afraid",
    "Happiness": "happy",
    "Sadness": "sad",
    "Surprise": "surprised",
    "Other": "confused",
}
"""The word of a class in the prompt (D; Other is a mixture, for which no word stands)."""


def load_texts(network: Network, settings: Settings) -> None:
    """Gives cosine heads the embeddings of the classes' texts.

    Raises SettingsError where open_clip is not installed, the task has no classes or `model.text-weights` names no
    file, and RunError where the file does not fit.
    """
    heads = [module for module in network.modules() if isinstance(module, CosineHead)]
    if heads:
        texts = encode_texts(texts_of(settings), settings.model.text_encoder, settings.model.text_weights)
        for head in heads:
            head.texts.copy_(texts)


def texts_of(settings: Settings) -> tuple[str, ...]:
    """The text of each class, in their order: those of `model.prompts`, or the default (D)."""
    task, given = settings.task_of, settings.model.prompts
    if not task.one_class:
        raise SettingsError("a cosine head compares with texts of classes", found=f"task {task.name}", expected="expr")
    if len(given) not in (0, task.n_columns):
        expected = f"{task.n_columns} texts, in the order of the classes"
        raise SettingsError("the setting model.prompts cannot be used", found=f"{len(given)} texts", expected=expected)
    return given or tuple(PROMPT.format(WORDS.get(name, name.lower())) for name in task.columns)


@torch.inference_mode()
def encode_texts(texts: tuple[str, ...], name: str, weights: str) -> Tensor:
    """The embeddings of texts, of length 1, float32 [C, E]."""
    clip, tokens = _text_side(name, weights)
    found: Tensor = clip.eval().encode_text(tokens(texts), normalize=True)
    return found.float().clone()


@contextmanager
def _without_warnings() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _text_side(name: str, weights: str) -> tuple[Any, Any]:
    """CLIP with its text side, and its tokeniser."""
    try:
        import open_clip
    except ImportError as error:
        remedy = 'Install it: pip install "abaw-expr[text]".'
        raise SettingsError("cosine heads need open_clip for CLIP's text side", remedy=remedy) from error
    if not weights:
        remedy = "Name --model.text-weights: a file with CLIP's image and text side, or default."
        raise SettingsError("the text encoder has no weights: its embeddings would be random", remedy=remedy)
    if weights == DEFAULT:
        clip = download(lambda: open_clip.create_model(name, pretrained=CLIP[name].weights), f"clip:{name}")
    else:
        path = weights_path(weights)
        with _without_warnings():  # that it has no weights: it gets them at once
            clip = open_clip.create_model(name)
        fit(clip, open_clip_names(read_tensors(path)), path, what="model.text-weights")
    return clip, open_clip.get_tokenizer(name)
