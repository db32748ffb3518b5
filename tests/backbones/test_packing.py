import torch

from lumina.backbones.packing import pack, pack_each, unpack_each


def test_what_is_packed_comes_out_again():
    samples = [torch.randn(3, 2, length) for length in (4, 1, 6)]
    packed = pack_each(samples, lambda data: data.movedim(-1, 1))
    assert packed.tokens.shape == (3, 6, 3, 2)
    assert packed.mask.sum(1).tolist() == [4, 1, 6]
    found = unpack_each(packed, samples, lambda tokens, like: tokens.movedim(1, -1))
    for sample, restored in zip(samples, found, strict=True):
        assert torch.equal(sample, restored)


def test_a_row_has_the_tokens_of_all_samples_and_no_padding():
    parts = [torch.randn(length, 3, 2) for length in (4, 1, 6)]
    packed = pack(parts)
    row = packed.row
    joined = row.join(packed.tokens)
    assert torch.equal(joined, torch.cat(parts).unsqueeze(0))
    assert torch.equal(row.part(joined), packed.tokens)
    owners = row.spread(torch.arange(3).view(3, 1, 1))
    assert owners.flatten().tolist() == [0] * 4 + [1] + [2] * 6
