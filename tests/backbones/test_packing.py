import torch

from lumina.backbones.packing import pack, unpack


def test_what_is_packed_comes_out_again():
    parts = [torch.randn(length, 3, 2) for length in (4, 1, 6)]
    packed = pack(parts)
    assert packed.tokens.shape == (3, 6, 3, 2)
    assert packed.mask.sum(1).tolist() == [4, 1, 6]
    for part, found in zip(parts, unpack(packed.tokens, packed.mask), strict=True):
        assert torch.equal(part, found)
