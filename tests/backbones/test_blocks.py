"""How networks begin: each block the identity, the output zero."""

import pytest
import torch

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT

TINY = {
    "sample_size": 8,
    "hidden_size": 24,
    "num_layers": 2,
    "num_attention_heads": 3,
    "num_kv_heads": 1,
    "multiple_of": 16,
}
TEXT = {"cross_attention_dim": 16}
CASES = [
    (NextDiT, TEXT),
    (NextDiT, {"num_classes": 10}),
    (NextDiT, {"num_classes": 10, "moe_routing": "time", "num_experts": 3}),
    (NextDiT, TEXT | {"moe_routing": "space", "num_experts": 3}),
    (NextDiT, TEXT | {"moe_routing": "both", "num_experts": 3}),
    (FlagDiT, TEXT),
    (FlagDiT, TEXT | {"has_frame_token": True}),
    (FlagDiT, {"num_classes": 10, "has_line_token": False}),
]


def randomise(module):
    with torch.no_grad():
        for weight in module.parameters():
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            weight.copy_(0.5 * weight + 0.2 * noise)


def run(model):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    times = torch.rand(2, generator=generator)
    if model.config["num_classes"]:
        return model(x, times, class_labels=torch.tensor([3, 10])).sample
    return model(x, times, torch.randn(2, 5, 16, generator=generator)).sample


def watch_blocks(model):
    seen = []
    for block in model.layers:
        block.register_forward_hook(lambda _, given, output: seen.append((given[0], output)))
    return seen


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{'-'.join(case[1])}")
def model(request):
    kind, config = request.param
    return kind(**TINY, **config)


@torch.no_grad()
def test_at_the_start_every_block_is_the_identity_and_the_output_zero(model):
    seen = watch_blocks(model)
    assert (run(model) == 0).all()
    assert len(seen) == 2
    for given, output in seen:
        assert given.abs().max() > 0
        assert torch.equal(given, output)


@torch.no_grad()
def test_other_weights_are_not_the_identity_until_it_starts_again(model):
    randomise(model)
    seen = watch_blocks(model)
    assert run(model).abs().max() > 0
    assert not any(torch.equal(given, output) for given, output in seen)
    model.start_at_identity()
    seen.clear()
    assert (run(model) == 0).all()
    assert all(torch.equal(given, output) for given, output in seen)


def test_the_start_is_left_by_training(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        (run(model) - 1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert run(model).abs().max() > 0
    assert all(block.norm1.linear.weight.abs().max() > 0 for block in model.layers)


def test_a_new_network_of_text_has_one_query_for_both_attentions():
    model = NextDiT(**TINY, **TEXT)
    assert all(block.shares_query for block in model.layers)


SIZES = [(8, 12), (4, 4), (2, 6)]
"""Of samples in one batch."""


def make_listed(model):
    """Arguments of a call for samples of different sizes."""
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randn(4, *size, generator=generator) for size in SIZES]
    times = torch.rand(len(SIZES), generator=generator)
    if model.config["num_classes"]:
        return samples, times, {"class_labels": torch.tensor([3, 10, 1])}
    mask = torch.ones(len(SIZES), 5)
    mask[1, 3:] = 0
    text = torch.randn(len(SIZES), 5, 16, generator=generator)
    return samples, times, {"encoder_hidden_states": text, "encoder_mask": mask}


@torch.no_grad()
def test_samples_of_different_sizes_are_what_they_are_alone(model):
    randomise(model)
    samples, times, condition = make_listed(model)
    together = model(samples, times, **condition).sample
    for number, sample in enumerate(samples):
        own = slice(number, number + 1)
        condition_of_one = {name: value[own] for name, value in condition.items()}
        alone = model(sample.unsqueeze(0), times[own], **condition_of_one).sample
        torch.testing.assert_close(together[number], alone[0])


@torch.no_grad()
def test_samples_of_different_sizes_have_no_padding_outside_attention(model):
    samples, times, condition = make_listed(model)
    alone, together = [], []
    for rows in (alone, together):
        hooks = [
            part.register_forward_pre_hook(
                lambda _, given, rows=rows: rows.append(given[0].shape[:2].numel())
            )
            for part in (model.layers[0].feed_forward, model.layers[0].attn1.to_q)
        ]
        if rows is together:
            model(samples, times, **condition)
        else:
            for number, sample in enumerate(samples):
                own = slice(number, number + 1)
                condition_of_one = {name: value[own] for name, value in condition.items()}
                model(sample.unsqueeze(0), times[own], **condition_of_one)
        for hook in hooks:
            hook.remove()
    assert together == [sum(alone[::2]), sum(alone[1::2])]


def test_checkpointing_changes_no_gradient_of_samples_of_different_sizes(model):
    randomise(model)
    samples, times, condition = make_listed(model)
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        found = model(samples, times, **condition).sample
        sum(part.square().sum() for part in found).backward()
        gradients.append([w.grad for w in model.parameters() if w.grad is not None])
    assert len(gradients[0]) > 20
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("routing", ["time", "space", "both"])
def test_checkpointing_changes_no_balance_and_none_of_its_gradients(routing):
    model = NextDiT(**TINY, num_classes=10, moe_routing=routing, num_experts=3)
    randomise(model)
    samples, times, condition = make_listed(model)
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        balance = []
        velocity = model(samples, times, **condition, balance=balance).sample
        count = len(balance)
        (sum(balance) + sum(part.square().sum() for part in velocity)).backward()
        assert len(balance) == count
        found.append(balance + [w.grad for w in model.parameters() if w.grad is not None])
    torch.testing.assert_close(*found)
