"""Refusals of arguments that do not fit together, in the words of diffusers."""

from itertools import pairwise
from math import inf
from numbers import Integral, Real
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from lumina.errors import LuminaError
from lumina.requests import SIZE_MULTIPLE


def network(transformer: Any, wanted: type | None) -> None:
    """Refuse a transformer that another pipeline is for.

    Args:
        transformer: Any transformer, or None.
        wanted: The class that this pipeline is for; None is for any. Classes that are not ours are
            not judged.
    """
    config = getattr(transformer, "config", {})
    if config.get("num_classes") is not None:
        raise LuminaError(
            "the transformer was trained on classes, not on text", hint="use LuminaClassPipeline"
        )
    name = type(transformer).__name__
    pipelines = {"NextDiT": "LuminaPipeline", "FlagDiT": "LuminaFlagPipeline"}
    if wanted is not None and name in pipelines and name != wanted.__name__:
        raise LuminaError(
            f"the transformer is a {name}, and this pipeline is for a {wanted.__name__}",
            hint=f"use {pipelines[name]}",
        )


def text_width(transformer: Any, text_encoder: Any) -> None:
    """Refuse a text encoder whose features the transformer cannot read.

    Args:
        transformer: Any transformer; None says nothing about the width.
        text_encoder: Any model of transformers, or None.
    """
    if transformer is None or text_encoder is None:
        return
    reads = transformer.config["cross_attention_dim"]
    writes = text_encoder.config.get_text_config().hidden_size
    if reads != writes:
        raise LuminaError(
            f"the transformer reads texts of width {reads} (cross_attention_dim), and "
            f"{type(text_encoder).__name__} gives {writes} (hidden_size)",
            hint="load the text encoder that the transformer was trained with",
        )


def size(width: int, height: int) -> None:
    """Refuse a size that does not divide into patches."""
    if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
        raise ValueError(
            f"`height` and `width` have to be divisible by {SIZE_MULTIPLE} but are {height} and"
            f" {width}."
        )


def number(
    name: str, value: Any, *, least: float, most: float = inf, is_whole: bool = True, hint: str = ""
) -> None:
    """Refuse what is no number, or out of range.

    Args:
        name: What the argument is called.
        value: What was given.
        least: The least that is allowed.
        most: The most that is allowed.
        is_whole: Whether it has to be a whole number.
        hint: What is allowed, where it is not simply these limits.

    Raises:
        LuminaError: If it is.
    """
    is_number = isinstance(value, Integral if is_whole else Real) and not isinstance(value, bool)
    if is_number and least <= float(value) <= most:
        return
    wrong = "out of range" if is_number else "no whole number" if is_whole else "no number"
    limits = f"{least} or more" if most == inf else f"{least} to {most}"
    raise LuminaError(f"{name} is {value!r}, which is {wrong}", hint=f"allowed: {hint or limits}")


def sigmas(values: Any) -> None:
    """Refuse shares of noise that do not decrease from 1 at most; None is as good as none.

    Raises:
        LuminaError: If they do not.
    """
    if values is None:
        return
    listed = values.tolist() if isinstance(values, np.ndarray | Tensor) else values
    if not isinstance(listed, list | tuple) or not listed:
        raise LuminaError(
            f"sigmas is {values!r}, which is no list of shares of noise",
            hint="such as [1.0, 0.5]",
        )
    for one in listed:
        number("one of sigmas", one, least=0, most=1, is_whole=False)
    if any(earlier <= later for earlier, later in pairwise(listed)):
        raise LuminaError(
            f"sigmas are {listed}, which do not decrease", hint="begin with the most noise"
        )


def pictures(name: str, value: Any) -> None:
    """Refuse what is no list of pictures, such as one picture, or names of files.

    Raises:
        LuminaError: If it is none.
    """
    is_array = isinstance(value, np.ndarray) and value.ndim == 4
    listed = value if is_array or isinstance(value, list | tuple) else [value]
    for one in listed:
        if listed is not value or not isinstance(one, Image.Image | np.ndarray):
            kind = "no list of pictures" if listed is not value else "no picture"
            raise LuminaError(
                f"{name} has {type(one).__name__} {str(one)[:40]!r}, which is {kind}",
                hint="give a list of pictures of PIL, or an array of bytes (n, height, width, 3)",
            )
        if not isinstance(one, np.ndarray):
            continue
        if one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] != 3:
            raise LuminaError(
                f"{name} has an array {one.shape} of {one.dtype}, which is no picture",
                hint="give bytes from 0 to 255 of the shape (height, width, 3)",
            )


def callback(given: Any) -> None:
    """Refuse what is to be called after each step, and cannot be.

    Raises:
        LuminaError: If it is neither None nor a function.
    """
    if given is not None and not callable(given):
        raise LuminaError(
            f"callback_on_step_end is {given!r}, which cannot be called",
            hint="give a function of the pipeline, the step, its timestep and a dict, or None",
        )


def callback_tensors(names: list[str] | None, known: list[str]) -> None:
    """Refuse a tensor that callbacks are not given."""
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise ValueError(
            f"`callback_on_step_end_tensor_inputs` has to be in {known}, but found {unknown}"
        )


def prompt(text: Any, embeds: Tensor | None, mask: Tensor | None) -> None:
    """Refuse prompts given twice, not at all, without their mask, or as anything but text."""
    if text is None and embeds is None:
        raise ValueError(
            "Provide either `prompt` or `prompt_embeds`. Cannot leave both `prompt` and"
            " `prompt_embeds` undefined."
        )
    _text_or_features("prompt", text, embeds, mask)
    if text is not None and not isinstance(text, str | list):
        raise ValueError(f"`prompt` has to be of type `str` or `list` but is {type(text)}")
    if isinstance(text, list) and not (text and all(isinstance(part, str) for part in text)):
        raise ValueError(f"`prompt` has to be a list of one or more texts but is {text}")


def prompts(given: Any) -> list[str]:
    """The prompts of a call that takes no features, as a list; refused as by `prompt`."""
    given = list(given) if isinstance(given, tuple) else given
    prompt(given, None, None)
    return [given] if isinstance(given, str) else given


def sequence_length(tokens: int) -> None:
    """Refuse a length at which nothing of a prompt is left."""
    if tokens < 1:
        raise ValueError(f"`max_sequence_length` has to be 1 or more but is {tokens}.")


def negative_prompt(text: Any, embeds: Tensor | None, mask: Tensor | None) -> None:
    """Refuse negative prompts given twice, or without their mask."""
    _text_or_features("negative_prompt", text, embeds, mask)


def equal_shapes(kind: str, first: Tensor, second: Tensor) -> None:
    """Refuse features of prompts and negative prompts that differ in shape.

    Args:
        kind: The end of the name of the arguments: "embeds" or "attention_mask".
        first: What was passed in for the prompts.
        second: What was passed in for the negative prompts.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"`prompt_{kind}` and `negative_prompt_{kind}` must have the same shape when passed"
            f" directly, but got: `prompt_{kind}` {first.shape} != `negative_prompt_{kind}`"
            f" {second.shape}."
        )


def negative_prompts(
    text: str | list[str] | None, prompts: list[str] | None, count: int
) -> list[str]:
    """One negative prompt for each of a number of prompts.

    Raises:
        TypeError: If `text` is a collection other than a list.
        ValueError: If it has another number of texts than there are prompts.
    """
    if text is None or isinstance(text, str):
        return [text or ""] * count
    if not isinstance(text, list):
        raise TypeError(
            f"`negative_prompt` should be the same type to `prompt`, but got {type(text)} !="
            f" {type(prompts)}."
        )
    if len(text) != count:
        raise ValueError(
            f"`negative_prompt`: {text} has batch size {len(text)}, but `prompt`: {prompts} has"
            f" batch size {count}. Please make sure that passed `negative_prompt` matches the"
            " batch size of `prompt`."
        )
    return text


def one_for_each(negative_embeds: Tensor, count: int) -> None:
    """Refuse features of negative prompts that are not as many as the prompts."""
    if len(negative_embeds) != count:
        raise ValueError(
            f"`negative_prompt_embeds` has batch size {len(negative_embeds)}, but there are {count}"
            " prompts. Please pass one for each prompt."
        )


def _text_or_features(name: str, text: Any, embeds: Tensor | None, mask: Tensor | None) -> None:
    if text is not None and embeds is not None:
        raise ValueError(
            f"Cannot forward both `{name}`: {text} and `{name}_embeds`: {embeds}. Please make"
            " sure to only forward one of the two."
        )
    if embeds is not None and mask is None:
        raise ValueError(f"Must provide `{name}_attention_mask` when specifying `{name}_embeds`.")
