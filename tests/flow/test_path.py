import torch

from lumina.flow.path import mix, velocity_loss

NOISE, DATA = torch.randn(2, 3, 4, 2, 5, generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([0.0, 0.25, 1.0])


def test_the_path_goes_from_noise_to_data_in_a_straight_line():
    points = mix(NOISE, DATA, TIMES)
    assert torch.equal(points[0], NOISE[0])
    assert torch.equal(points[2], DATA[2])
    torch.testing.assert_close(points[1], NOISE[1] + 0.25 * (DATA[1] - NOISE[1]))


def test_the_exact_velocity_has_no_loss_and_an_offset_has_its_square():
    exact = velocity_loss(lambda x, t: DATA - NOISE, NOISE, DATA, TIMES)
    torch.testing.assert_close(exact, torch.zeros(3))
    off = velocity_loss(lambda x, t: DATA - NOISE + 2, NOISE, DATA, TIMES)
    torch.testing.assert_close(off, torch.full((3,), 4.0))


def test_channels_past_those_of_the_data_do_not_count():
    def velocity(x, t):
        return torch.cat([DATA - NOISE, 7 * torch.ones_like(DATA)], dim=1)

    torch.testing.assert_close(velocity_loss(velocity, NOISE, DATA, TIMES), torch.zeros(3))


def test_a_list_gives_what_the_batch_gives():
    def velocity(x, t):
        stacked = torch.stack(list(x))
        return stacked * (1 + t.view(-1, 1, 1, 1))

    together = velocity_loss(velocity, NOISE, DATA, TIMES)
    apart = velocity_loss(velocity, list(NOISE), list(DATA), TIMES)
    torch.testing.assert_close(together, apart)
