import pytest

from lumina.worlds.drawings import PALETTE
from lumina.worlds.motion import MOTIONS, Clip
from lumina.worlds.motion_captions import write_clip, write_every
from lumina.worlds.vocabulary import LANGUAGES

pytest.importorskip("emoji")


def clip_of(motion, background="blue"):
    return Clip("🦉", *motion, background=background)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_motions_or_backgrounds_share_a_caption(language):
    captions = [
        caption
        for motion in MOTIONS
        for background in PALETTE
        for caption in write_every(clip_of(motion, background), language)
    ]
    assert len(captions) == len(set(captions))
    assert len(captions) >= len(MOTIONS) * len(PALETTE)


def test_english_is_as_a_person_writes_it():
    left = clip_of(("move", "left"))
    assert write_clip(left) == "an owl moving to the left on a blue background"
    assert "owl moving left on a blue background" in write_every(left)
    assert "a spinning owl" in write_every(clip_of(("spin", "clockwise"), "white"))
    assert write_clip(clip_of(("fade", "in"), "orange")).endswith("on an orange background")


def test_other_languages_name_motion_and_background():
    left = clip_of(("move", "left"))
    assert write_clip(left, "ru") == "сова движется влево на синем фоне"
    assert write_clip(left, "ja") == "青の背景に左へ動くフクロウ"
    assert write_clip(left, "tr") == "mavi arka planda baykuş sola gidiyor"
