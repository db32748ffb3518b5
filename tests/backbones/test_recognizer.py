import pytest
import torch

from lumina.backbones.recognizer import POSITIONS, NextDiTClassifier

SIZES = ((16, 16), (32, 8), (8, 24), (24, 40))


def make(positions="rotary", **settings):
    torch.manual_seed(0)
    network = NextDiTClassifier(
        num_classes=5,
        sample_size=16,
        patch_size=4,
        hidden_size=24,
        num_layers=2,
        num_attention_heads=3,
        multiple_of=16,
        positions=positions,
        rope_theta=100.0,
        **settings,
    ).double()
    for parameter in network.parameters():
        if not parameter.any():  # gates and modulation begin at zero, where blocks do nothing
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def pictures():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *size, generator=generator, dtype=torch.float64) for size in SIZES]


@pytest.fixture(params=POSITIONS)
def network(request):
    return make(request.param)


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in network.named_parameters()}


def test_a_picture_among_others_of_any_size_has_the_logits_that_it_has_alone(network):
    together = network(pictures())
    for number, picture in enumerate(pictures()):
        alone = network(picture[None])
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[number], expected[0])


def test_gradients_of_a_batch_are_the_sum_of_those_of_its_pictures(network):
    def loss(logits):
        return logits.square().sum()

    together = gradients(network, loss(network.logits(pictures())))
    alone = gradients(network, sum(loss(network.logits(p[None])) for p in pictures()))
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, alone[name], msg=name)


def test_the_order_of_a_batch_changes_no_logits(network):
    order = [2, 0, 3, 1]
    shuffled = network.logits([pictures()[number] for number in order])
    torch.testing.assert_close(shuffled, network.logits(pictures())[order])


def test_padding_with_masked_attention_gives_what_packing_gives(network):
    packed = network(pictures())
    loose = pictures() + [torch.zeros(3, 4, 4).double()] * 4  # mostly padding, were it padded
    torch.testing.assert_close(network(loose).logits[: len(SIZES)], packed.logits)


def test_the_place_of_a_patch_matters(network):
    picture = pictures()[0]
    turned = picture.roll(4, dims=-1)  # whole patches
    assert (network.logits(picture[None]) - network.logits(turned[None])).abs().max() > 1e-3


def test_rotary_positions_see_distances_alone():
    network = make()
    rope = network._rope(3, 5, torch.device("cpu"))
    half = rope.shape[1]
    angles = torch.atan2(rope[..., 1], rope[..., 0]).view(3, 5, half)
    steps = (angles[1:, 1:] - angles[:-1, :-1]) % (2 * torch.pi)
    torch.testing.assert_close(steps, steps[:1, :1].expand_as(steps), atol=1e-5, rtol=0)


def test_positions_of_larger_pictures_reach_no_further():
    network = make()  # of 4 patches a side
    usual, wide, large = (
        network._rope(*grid, torch.device("cpu")) for grid in ((4, 4), (5, 6), (11, 11))
    )
    whole = NextDiTClassifier(**network.config | {"rope_reach": 100.0})
    assert torch.equal(whole._rope(5, 6, torch.device("cpu")), wide)
    assert not torch.allclose(whole._rope(11, 11, torch.device("cpu")), large)
    # Every second patch is where all are in a picture of half the size.
    torch.testing.assert_close(
        large.view(11, 11, -1, 2)[::2, ::2][:4, :4].reshape(usual.shape), usual
    )


def test_a_learned_table_is_itself_at_its_size_and_smooth_at_others():
    network = make("learned")
    table = network.position_embed
    assert torch.equal(network._table(4, 4), table.flatten(1).mT)
    with torch.no_grad():
        table.copy_(torch.arange(4.0).expand_as(table))
    wide = network._table(4, 8).view(4, 8, -1)[..., 0]
    assert (wide.diff(dim=1) > 0).all()
    torch.testing.assert_close(wide, wide[:1].expand(4, 8))


def test_the_blocks_pass_tokens_through_before_the_first_step():
    fresh = NextDiTClassifier(
        num_classes=5, patch_size=4, hidden_size=24, num_layers=2, num_attention_heads=3
    )
    picture = torch.randn(2, 3, 16, 16)
    tokens = fresh.norm_out(fresh.patch_embedder(picture))
    torch.testing.assert_close(fresh.features(picture), tokens.mean(1))


def test_gradients_with_checkpointed_blocks_are_the_same(network):
    plain = gradients(network, network.logits(pictures()).square().sum())
    network.enable_gradient_checkpointing()
    network.train()
    checkpointed = gradients(network, network.logits(pictures()).square().sum())
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, checkpointed[name], msg=name)


def test_it_is_saved_and_loaded(network, tmp_path):
    network.float().save_pretrained(tmp_path)
    loaded = NextDiTClassifier.from_pretrained(tmp_path)
    for name, weight in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    # Products of matrices may differ in their last bits by where weights lie in memory.
    same = [picture.float() for picture in pictures()]
    torch.testing.assert_close(loaded.logits(same), network.logits(same))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"positions": "absolute"}, "'rotary', 'learned'"),
        ({"num_attention_heads": 5}, "does not divide into 5 heads"),
    ],
)
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        NextDiTClassifier(**({"hidden_size": 24, "num_attention_heads": 3} | settings))


def test_a_picture_that_fills_no_whole_patches_is_refused(network):
    with pytest.raises(ValueError, match="15 x 16 does not divide into patches of 4 x 4"):
        network(torch.zeros(1, 3, 15, 16).double())
