"""Names of weights in the original release, and ours.

Ours are those of diffusers' port of Next-DiT, for all backbones.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from lumina.checkpoints.shapes import Shapes

W = TypeVar("W")  # a tensor, or what stands for one

# Each row: how the original code calls a part, and how we do. Read from the top, the first that
# fits a name counts. "#" stands for a number.
COMMON = (
    ("x_embedder.", "patch_embedder.proj."),
    ("final_layer.adaLN_modulation.1.", "norm_out.linear_1."),
    ("final_layer.linear.", "norm_out.linear_2."),
    ("eol_token", "line_token"),
    ("pad_token", "pad_token"),
    ("layers.#.adaLN_modulation.1.", "layers.#.norm1.linear."),
    ("layers.#.attention.wq.", "layers.#.attn1.to_q."),
    ("layers.#.attention.wk.", "layers.#.attn1.to_k."),
    ("layers.#.attention.wv.", "layers.#.attn1.to_v."),
    ("layers.#.attention.q_norm.", "layers.#.attn1.norm_q."),
    ("layers.#.attention.k_norm.", "layers.#.attn1.norm_k."),
    ("layers.#.feed_forward.w#.", "layers.#.feed_forward.linear_#."),
    ("layers.#.feed_forward.experts.#.w#.", "layers.#.feed_forward.experts.#.linear_#."),
    ("layers.#.feed_forward.gate.", "layers.#.feed_forward.gate."),
    ("layers.#.feed_forward_time.experts.#.w#.", "layers.#.feed_forward.experts.#.linear_#."),
    ("layers.#.feed_forward_time.gate.", "layers.#.feed_forward.gate."),
    ("layers.#.feed_forward_space.experts.#.w#.", "layers.#.second_forward.experts.#.linear_#."),
    ("layers.#.feed_forward_space.gate.", "layers.#.second_forward.gate."),
)
TEXT = (
    ("t_embedder.mlp.0.", "time_caption_embed.timestep_embedder.linear_1."),
    ("t_embedder.mlp.2.", "time_caption_embed.timestep_embedder.linear_2."),
    ("cap_embedder.#.", "time_caption_embed.caption_embedder.#."),
    ("layers.#.attention.wk_y.", "layers.#.attn2.to_k."),
    ("layers.#.attention.wv_y.", "layers.#.attn2.to_v."),
    ("layers.#.attention.ky_norm.", "layers.#.attn2.norm_k."),
    ("layers.#.attention.wo.", "layers.#.attn2.to_out.0."),
    ("layers.#.attention.gate", "layers.#.gate"),
    ("layers.#.attention_y_norm.", "layers.#.norm1_context."),
)
CLASSES = (
    ("t_embedder.mlp.0.", "time_class_embed.timestep_embedder.linear_1."),
    ("t_embedder.mlp.2.", "time_class_embed.timestep_embedder.linear_2."),
    ("y_embedder.embedding_table.", "time_class_embed.label_embedder."),
    ("layers.#.attention.wo.", "layers.#.attn1.to_out.0."),
)
NORMS_BEFORE = (
    ("layers.#.attention_norm.", "layers.#.norm1.norm."),
    ("layers.#.ffn_norm.", "layers.#.ffn_norm1."),
)
NORMS_AFTER = (
    ("layers.#.attention_norm.", "layers.#.norm2."),
    ("layers.#.ffn_norm.", "layers.#.ffn_norm2."),
    ("layers.#.ffn_norm_time.", "layers.#.ffn_norm2."),
    ("layers.#.ffn_norm_space.", "layers.#.second_norm2."),
)
NORMS_AROUND = (
    ("layers.#.attention_norm1.", "layers.#.norm1.norm."),
    ("layers.#.attention_norm2.", "layers.#.norm2."),
    ("layers.#.ffn_norm1.", "layers.#.ffn_norm1."),
    ("layers.#.ffn_norm2.", "layers.#.ffn_norm2."),
)
SOUND = (
    ("proj_in.", "x_embedder."),
    ("blocks.#.", "layers.#."),
)

COPIES = ("to_q.", "norm_q.")
"""Ours holds a second copy of these under `attn2`, as diffusers' port does."""


def table(shapes: Shapes) -> dict[str, str]:
    """Our name of each weight of an original checkpoint.

    Args:
        shapes: Name and shape of all its weights, which together tell which model it is.

    Raises:
        KeyError: If a name belongs to no model of the family.
    """
    images = {name: _apply(SOUND, name) or name for name in shapes}
    rows = COMMON + _rows({images[name]: shape for name, shape in shapes.items()})
    found = {name: _apply(rows, image) for name, image in images.items()}
    if unknown := [name for name, ours in found.items() if ours is None]:
        raise KeyError(unknown[0])
    return {name: ours for name, ours in found.items() if ours is not None}


def from_original(weights: Mapping[str, W]) -> dict[str, W]:
    """Weights of an original checkpoint under our names.

    Args:
        weights: Tensors, or anything else that has a `shape`.

    Raises:
        KeyError: If a name belongs to no model of the family.
    """
    names = table({name: _shape(weight) for name, weight in weights.items()})
    return with_copies({ours: weights[name] for name, ours in names.items()})


def with_copies(weights: Mapping[str, W]) -> dict[str, W]:
    """Add the second copies of queries that a model of text has, where they are missing."""
    if not any(".attn2." in name for name in weights):
        return dict(weights)
    copied = [name for name in weights if ".attn1." in name and is_copied(name)]
    copies = {name.replace(".attn1.", ".attn2."): weights[name] for name in copied}
    return copies | dict(weights)


def is_copied(name: str) -> bool:
    """Whether a weight of ours is of those that both attentions of a block hold."""
    return any(f".{part}" in name for part in COPIES)


def is_copy(name: str) -> bool:
    """Whether a weight of ours is the second copy of queries, which the original does not have."""
    return ".attn2." in name and is_copied(name)


def to_original(weights: Mapping[str, W], names: Mapping[str, str]) -> dict[str, W]:
    """Weights under our names as the original checkpoint has them.

    Args:
        weights: Weights of a model of ours.
        names: What `table` gave for the checkpoint, or `original_names` for the model.
    """
    return {name: weights[ours] for name, ours in names.items()}


def original_names(shapes: Shapes) -> dict[str, str]:
    """Our name of each weight that the original checkpoint of a model of ours has.

    Args:
        shapes: Names and shapes of all weights of the model.

    Raises:
        KeyError: If the original release has no place for a weight.
    """
    rows = COMMON + _rows_of_ours(shapes)
    if "layers.0.second_norm2.weight" in shapes:
        # Here the first feed-forward network is not the only one, and is called after the time.
        single = ("layers.#.feed_forward.", "layers.#.ffn_norm.")
        rows = tuple(row for row in rows if not row[0].startswith(single))
    back = tuple((ours, theirs) for theirs, ours in rows)
    sound = tuple((image, sound) for sound, image in SOUND) if is_of_sound(shapes) else ()
    names = {}
    for ours in shapes:
        if is_copy(ours):
            continue
        name = _apply(back, ours)
        if name is None:
            raise KeyError(ours)
        names[_apply(sound, name) or name] = ours
    return names


def is_of_sound(shapes: Shapes) -> bool:
    """Whether a model reads sound: of the models of text, only those never pad."""
    return "layers.0.gate" in shapes and "pad_token" not in shapes


def _rows_of_ours(shapes: Shapes) -> tuple[tuple[str, str], ...]:
    """What `_rows` gives, told by our names."""
    has_before, has_after = (
        f"layers.0.{name}.weight" in shapes for name in ("norm1.norm", "norm2")
    )
    kind = TEXT if "layers.0.gate" in shapes else CLASSES
    if has_before and has_after:
        return kind + NORMS_AROUND
    return kind + (NORMS_AFTER if has_after else NORMS_BEFORE)


def _shape(weight: Any) -> tuple[int, ...]:
    return tuple(weight.shape)


def _rows(shapes: Shapes) -> tuple[tuple[str, str], ...]:
    if "cap_embedder.0.weight" not in shapes:
        # Flag-DiT and Next-DiT of classes have the same names; the former modulates six times.
        parts = len_of(shapes, "layers.0.adaLN_modulation.1.bias") / len_of(
            shapes, "x_embedder.bias"
        )
        has_experts = any("experts" in name for name in shapes)
        return CLASSES + (NORMS_BEFORE if parts == 6 and not has_experts else NORMS_AFTER)
    if "layers.0.attention_norm1.weight" in shapes:
        return TEXT + NORMS_AROUND
    return TEXT + NORMS_BEFORE


def len_of(shapes: Shapes, name: str) -> int:
    """Rows of a weight.

    Raises:
        KeyError: If there is none of that name.
    """
    return shapes[name][0]


def _apply(rows: tuple[tuple[str, str], ...], name: str) -> str | None:
    for theirs, ours in rows:
        match = re.match(re.escape(theirs).replace(r"\#", r"(\d+)"), name)
        if match:
            for number in match.groups():
                ours = ours.replace("#", number, 1)
            return ours + name[match.end() :]
    return None
