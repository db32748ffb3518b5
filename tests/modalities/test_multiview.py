import numpy as np
import pytest
import torch

from lumina.backbones.next_dit import NextDiT
from lumina.modalities.multiview import MODALITY, MOST_VIEWS, tell_views
from lumina.modalities.video import tell_frames
from lumina.worlds.items import azimuths_around, relative_poses


def poses_in(hints):
    """The pose of each view, which is the same in all its places."""
    assert torch.equal(hints[-2:], hints[-2:, :, :1, :1].expand_as(hints[-2:]))
    return hints[-2:, :, 0, 0].T.numpy()


@pytest.mark.parametrize("views", range(1, MOST_VIEWS + 1))
def test_poses_are_those_of_cameras_around_wherever_the_first_is(views):
    hints = tell_views(torch.randn(4, views, 2, 3), 0)
    for first in (0.0, 1.3, -2.0):
        turned = relative_poses(azimuths_around(views, first=first))
        np.testing.assert_allclose(poses_in(hints), turned, atol=1e-6)


def test_views_from_one_direction_have_one_pose_and_one_rotary_angle():
    four, eight = (tell_views(torch.zeros(4, views, 2, 2), 0) for views in (4, 8))
    np.testing.assert_allclose(poses_in(four), poses_in(eight)[::2], atol=1e-6)
    network = NextDiT(
        sample_size=2, hidden_size=24, num_layers=1, num_attention_heads=1, multiple_of=16
    )
    scales = [
        MODALITY.positions(network, torch.zeros(1, 4, views, 2, 2))["rope"].linear
        for views in (4, 8)
    ]
    assert [index / scales[0][0] for index in range(4)] == [
        index / scales[1][0] for index in range(0, 8, 2)
    ]
    assert scales[0][1:] == scales[1][1:] == (1.0, 1.0)


def test_hints_tell_the_first_view_and_no_other():
    latents = torch.randn(4, 5, 2, 3)
    hints = tell_views(latents, 1)
    assert torch.equal(hints[:-2], tell_frames(latents, 1))
    assert hints.shape == (7, 5, 2, 3)


def test_training_tells_the_first_view_of_some_examples_unless_it_is_the_only_one():
    generator = torch.Generator().manual_seed(0)

    def known(views):
        latents = torch.randn(4, views, 2, 2)
        return [int(MODALITY.draw_hints(latents, generator)[4, :, 0, 0].sum()) for _ in range(200)]

    assert set(known(4)) == {0, 1}
    assert 0.2 < sum(known(4)) / 200 < 0.4
    assert not any(known(1))


def test_without_hints_poses_alone_are_known():
    x = torch.randn(2, 4, 3, 2, 2)
    read = MODALITY.enter(x, torch.zeros(2), None)
    assert torch.equal(read[:, :4], x)
    assert torch.equal(read[1, 4:], tell_views(x[1], 0))


@pytest.mark.parametrize(("views", "columns", "rows"), [(1, 1, 1), (4, 4, 1), (5, 3, 2), (8, 4, 2)])
def test_a_contact_sheet_has_room_for_all_views(views, columns, rows):
    medium = np.full((views, 16, 16, 3), 7, np.uint8)
    sheet = np.asarray(MODALITY.show(medium))
    assert (sheet == 7).all(-1).sum() == views * 16 * 16
    assert 16 * columns <= sheet.shape[1] < 16 * (columns + 1)
    assert 16 * rows <= sheet.shape[0] < 16 * (rows + 1)
