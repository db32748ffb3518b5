import pytest

from lumina.checkpoints.keys import from_original, original_names, table, to_original


def shapes_of(weights):
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def test_names_of_every_network_go_to_the_original_and_back(every_model, plain, assert_equal):
    weights = plain(every_model)
    names = original_names(shapes_of(weights))
    original = to_original(weights, names)
    assert table(shapes_of(original)) == names
    assert_equal(from_original(original), every_model.state_dict())


def test_the_original_code_calls_weights_so(recorded):
    _, weights = recorded
    ours = from_original(weights)
    assert original_names(shapes_of(ours)) == table(shapes_of(weights))


def test_a_weight_without_a_place_in_the_original_is_named(every_model, plain):
    with pytest.raises(KeyError, match="frame_token"):
        original_names(shapes_of(plain(every_model)) | {"frame_token": (48,)})
