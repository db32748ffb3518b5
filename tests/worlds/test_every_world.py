import pytest

import lumina
from lumina.catalog import MODALITY_OF
from lumina.checkpoints.folder import PIPELINES
from lumina.errors import UnknownNameError
from lumina.modalities import MODALITIES
from lumina.requests import OF_MODALITIES
from lumina.worlds import WORLDS, World, find_world


@pytest.mark.parametrize("name", WORLDS)
def test_each_world_keeps_the_protocol_and_has_examples_of_a_modality(name):
    world = find_world(name)
    assert isinstance(world, World)
    assert world.modality in MODALITIES


@pytest.mark.parametrize("name", OF_MODALITIES)
def test_a_request_tells_all_that_others_know_of_its_modality(name):
    kind = OF_MODALITIES[name]
    assert MODALITY_OF[kind.pipeline] == name
    assert PIPELINES[kind.pipeline] == kind.parts
    assert getattr(lumina, kind.pipeline)._modality == name
    kind(prompt="a dog", **kind.usual((256, 256, 4)))


def test_an_unknown_world_is_refused_by_its_name():
    with pytest.raises(UnknownNameError, match="mottion"):
        find_world("mottion")
