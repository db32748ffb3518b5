import json
import unicodedata
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from lumina.encoders.cleaning import clean_caption
from lumina.encoders.text import encode_texts
from lumina.training.alignment import (
    BOS,
    LOOK_SIDE,
    NOTHING,
    AlignedEncoder,
    AlignmentObjective,
    describe_looks,
    draw_caption,
    train_tokenizer,
)
from lumina.training.recipes import AlignmentRecipe
from lumina.worlds.captions import Brief, draw_brief, write
from lumina.worlds.drawings import reference
from lumina.worlds.vocabulary import LANGUAGES, on_white

CAT, PIZZA = "🐱", "🍕"
KNOWN = ["a cat", "a cat face", "a small dog at the left", "ein fahrrad", "火箭"] * 3
TINY = AlignmentRecipe(
    vocabulary_size=600, width=16, depth=3, heads=2, hidden=32, appearance=8, batch_size=6
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(KNOWN, 340)


@pytest.fixture(scope="module")
def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AlignedEncoder(TINY, 40).eval()


@pytest.fixture(scope="module")
def objective(font):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AlignmentObjective(TINY)


@pytest.mark.parametrize(
    "text",
    [
        "a cat face",
        "a dog the tokenizer never met, at 3 o'clock",
        "zürich",
        "火箭と猫",
        "ဗမာစာ ᚠᛇᚻ",
        "🦤👩‍🚀",
        "ﬁne ２",  # the compatibility forms are one with the plain ones
        "",
    ],
)
def test_any_text_comes_back_from_its_tokens(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids[1:]) == unicodedata.normalize("NFKC", text)
    assert tokenizer.unk_token_id not in ids


def test_what_was_learned_is_one_token_and_the_unknown_is_spelled_in_bytes(tokenizer):
    assert len(tokenizer("火箭", add_special_tokens=False)["input_ids"]) == 1
    unknown = tokenizer("猫", add_special_tokens=False)["input_ids"]
    spelled = tokenizer.convert_ids_to_tokens(unknown)[-3:]
    assert spelled == [f"<0x{byte:02X}>" for byte in "猫".encode()]


def test_texts_start_with_the_mark_and_are_padded_at_the_end(tokenizer):
    tokens = tokenizer(["a cat", "", "a small dog at the left"], padding=True)
    for ids, mask in zip(tokens["input_ids"], tokens["attention_mask"], strict=True):
        assert ids[0] == tokenizer.convert_tokens_to_ids(BOS) == 0
        assert Counter(ids)[0] == 1
        assert mask == sorted(mask, reverse=True)
        assert [i == tokenizer.pad_token_id for i in ids] == [not counts for counts in mask]


@pytest.mark.parametrize("size", [280, 300])
def test_a_tokenizer_is_no_larger_than_asked(size):
    every_letter = ["".join(map(chr, range(0x3041, 0x3096)))]
    assert len(train_tokenizer(KNOWN + every_letter, size)) == size


@pytest.fixture(scope="module")
def briefs(patterns):
    rng = np.random.default_rng(0)
    return [draw_brief(rng, list(patterns)) for _ in range(300)]


def in_language(brief, language):
    return {
        clean_caption(write(brief, language, with_article=with_article))
        for with_article in (True, False)
    }


def test_without_foreign_captions_all_are_english(briefs):
    rng = np.random.default_rng(0)
    for brief in briefs:
        assert draw_caption(brief, rng, foreign=0.0) in in_language(brief, "en")


def test_english_comes_with_and_without_an_article():
    rng = np.random.default_rng(0)
    counts = Counter(draw_caption(Brief((PIZZA,)), rng, foreign=0.0) for _ in range(200))
    assert counts.keys() == {"a pizza", "pizza"}
    assert min(counts.values()) > 50


def test_with_foreign_captions_alone_every_other_language_comes(briefs):
    rng = np.random.default_rng(0)
    brief = Brief((CAT,), "sky blue")
    captions = {draw_caption(brief, rng, foreign=1.0) for _ in range(300)}
    others = {caption for code in LANGUAGES[1:] for caption in in_language(brief, code)}
    assert captions == others
    assert not captions & in_language(brief, "en")


def test_what_only_english_can_say_stays_english(briefs):
    rng = np.random.default_rng(0)
    arranged = [brief for brief in briefs if brief.place or brief.relation]
    assert arranged
    for brief in arranged:
        assert draw_caption(brief, rng, foreign=1.0) in in_language(brief, "en")


def test_the_share_of_foreign_captions_is_as_asked():
    rng = np.random.default_rng(0)
    english = in_language(Brief((PIZZA,), "red"), "en")
    drawn = [draw_caption(Brief((PIZZA,), "red"), rng, foreign=0.25) for _ in range(1000)]
    # Three standard deviations of a share of 0.25 in 1000.
    assert np.mean([text not in english for text in drawn]) == pytest.approx(0.25, abs=0.041)


def test_captions_are_what_the_pipeline_makes_of_prompts(briefs):
    rng = np.random.default_rng(0)
    for brief in briefs:
        caption = draw_caption(brief, rng, foreign=0.5)
        assert clean_caption(caption) == caption != ""


@torch.no_grad()
def test_features_are_what_pipelines_take(encoder, tokenizer):
    texts = ["a cat", "a small dog at the left", "火箭"]
    theirs, their_mask = encode_texts(texts, tokenizer, encoder.encoder, max_tokens=64)
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    features = encoder.features(tokens["input_ids"], tokens["attention_mask"])
    torch.testing.assert_close(
        features[tokens["attention_mask"] == 1], theirs[their_mask == 1], rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_padding_changes_nothing_that_is_read(encoder, tokenizer):
    def read(length):
        tokens = tokenizer("a cat", padding="max_length", max_length=length, return_tensors="pt")
        features = encoder.features(tokens["input_ids"], tokens["attention_mask"])
        mask = tokens["attention_mask"]
        return encoder.slots(features, mask), encoder.mean(features, mask)

    for short, long in zip(read(8), read(24), strict=True):
        torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_mean_of_equal_tokens_is_each_of_them(encoder):
    token = torch.randn(2, 1, TINY.width, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    features = token.expand(-1, 3, -1).where(mask[..., None] == 1, 1e3)
    torch.testing.assert_close(encoder.mean(features, mask), encoder.norm(token[:, 0]))


@pytest.fixture(scope="module")
def drawn(font, patterns):
    return list(patterns)


def distances_of(rows):
    # By products of rows, the distance of a row to itself is not 0 in float32.
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def test_as_many_looks_as_there_are_things_keep_all_distances(drawn):
    drawings = np.stack([reference(thing, LOOK_SIDE) for thing in drawn])
    outlines = drawings[..., 3:].astype(np.float32) / 255
    flat = np.concatenate([on_white(drawings), outlines], -1).reshape(len(drawn), -1)
    expected = distances_of(torch.from_numpy(flat))
    distances = distances_of(describe_looks(drawn, len(drawn)))
    scale = expected.max() / distances.max()
    torch.testing.assert_close(distances * scale, expected, rtol=1e-3, atol=2e-2)


def test_looks_are_uncorrelated_of_zero_mean_and_together_of_unit_spread(drawn):
    looks = describe_looks(drawn, 12)
    assert looks.shape == (len(drawn), 12)
    torch.testing.assert_close(looks.mean(0), torch.zeros(12), rtol=0, atol=1e-4)
    torch.testing.assert_close(looks.std(), torch.tensor(1.0))
    products = looks.T @ looks
    variances = products.diagonal()
    assert (variances.diff() <= 0).all()
    off = products - torch.diag(variances)
    assert off.abs().max() < 1e-4 * variances.max()


def test_a_batch_is_the_same_for_the_same_step(objective):
    for first, again in zip(objective.batch(3), objective.batch(3), strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(objective.batch(3).things, objective.batch(7).things)


def test_three_of_four_steps_take_names_alone(objective):
    for step in range(12):
        batch = objective.batch(step)
        is_alone = (batch.things[:, 1] == NOTHING) & (batch.arrangement == 0)
        assert bool((is_alone & (batch.background == 0)).all()) == (step % 4 != 0)


def test_the_classes_are_of_what_the_captions_say(objective):
    briefs = [
        Brief((CAT,)),
        Brief((PIZZA,), "white"),
        Brief((CAT, PIZZA), "black", relation="to the left of"),
        Brief((CAT,), place="right"),
    ]
    batch = objective._pack(briefs, [write(brief, "en") for brief in briefs])
    cat, pizza = (objective.things.index(thing) for thing in (CAT, PIZZA))
    assert batch.things.tolist() == [[cat, NOTHING], [pizza, NOTHING], [cat, pizza], [cat, NOTHING]]
    assert batch.background.tolist() == [0, 1, 2, 0]
    assert batch.arrangement.tolist() == [0, 0, 5, 2]
    texts = objective.tokenizer.batch_decode([ids[1:] for ids in batch.ids])
    assert texts[0].startswith("a cat face")


def test_a_few_steps_lower_the_loss_and_leave_the_last_layer_alone(objective):
    batch = objective.batch(0)
    last = [weight.clone() for weight in objective.last_layer]
    assert objective.last_layer
    assert not any(weight.requires_grad for weight in objective.last_layer)
    trained = [weight for weight in objective.module.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in trained]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    losses = []
    for _ in range(5):
        loss, figures = objective.loss(batch, 0)
        assert 0 <= figures["top1"] <= 1
        assert loss.item() == pytest.approx(
            sum(value for name, value in figures.items() if name != "top1"), rel=1e-5
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert all(map(torch.equal, last, objective.last_layer))
    with torch.no_grad():
        for weight, old in zip(trained, before, strict=True):
            weight.copy_(old)


@torch.no_grad()
def test_transformers_loads_what_is_exported(objective, tmp_path):
    objective.export(tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path / "text_encoder")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    texts = ["a cat face on a red background", "火箭", "ᚠᛇᚻ"]
    ours = encode_texts(texts, objective.tokenizer, objective.module.encoder, max_tokens=64)
    theirs = encode_texts(texts, tokenizer, encoder, max_tokens=64)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_a_preview_tells_how_much_of_each_language_is_understood(objective, tmp_path, monkeypatch):
    monkeypatch.setattr(objective, "things", objective.things[:30])
    objective.preview(tmp_path, 7)
    found = json.loads((tmp_path / "names-000007.json").read_text())
    assert list(found) == list(LANGUAGES)
    assert all(0 <= share < 0.5 for share in found.values())  # nothing was learned yet
