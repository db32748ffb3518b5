import pytest

from lumina.worlds.music import MODES, PITCHES, Tune
from lumina.worlds.music_captions import SAID, TOGETHER, tell_tune
from lumina.worlds.music_keys import spell_keys

# Of how many semitones above C the white keys are.
WHITE = (0, 2, 4, 5, 7, 9, 11)


def told(language):
    """What captions call each pitch and mode."""
    if language == "en":
        return PITCHES, tuple(MODES)
    return tuple(part.split(",") for part in SAID[language][2:])


@pytest.mark.parametrize("language", ["en", *SAID])
def test_captions_stay_as_they_are(language):
    for mode in MODES:
        for key in range(12):
            caption = tell_tune(Tune("melody", "piano", key, mode, 120), language)
            assert spell_keys(caption) == caption
            assert spell_keys(caption.lower()) == caption.lower()


@pytest.mark.parametrize("language", [code for code in ("en", *SAID) if code not in TOGETHER])
def test_signs_are_one_semitone_up_and_down(language):
    pitches, (major, _) = told(language)  # neighbouring languages share words for minor
    for key in WHITE:
        for sign, step in (("#", 1), ("♯", 1), (" ♯", 1), ("♭", -1), ("b", -1)):
            if (language, key, step) == ("de", 11, -1):
                continue  # nobody writes Hb
            spelled = spell_keys(f"{pitches[key]}{sign} {major}, piano")
            assert spelled == f"{pitches[(key + step) % 12]} {major}, piano", (key, sign)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("a rising scale in F# major on a piano", "a rising scale in F sharp major on a piano"),
        ("chords in d flat minor", "chords in C sharp minor"),
        ("C-sharp major", "C sharp major"),
        ("H major", "B major"),
        ("bb minor", "B flat minor"),
        ("a b minor", "a b minor"),
        ("a minor scale", "a minor scale"),
        ("Melodie, cis-Moll", "Melodie, cis Moll"),
        ("Des-Dur", "Cis Dur"),
        ("Gis Dur", "As Dur"),
        ("H-Dur, B-Dur, Bb-Dur", "H Dur, B Dur, B Dur"),
        ("mib majeur", "mi bémol majeur"),
        ("sol sustenido maior", "lá bemol maior"),
        ("ре-бемоль минор", "до-диез минор"),
        ("до диез мажор", "до-диез мажор"),
        ("钢琴演奏C#大调", "钢琴演奏升C大调"),
        ("降D大调", "升C大调"),
        ("変ニ長調", "嬰ハ長調"),
        ("내림라장조", "올림다장조"),
    ],
)
def test_other_spellings_get_the_name_that_captions_have(text, known):
    assert spell_keys(text).lower() == known.lower()
    assert spell_keys(spell_keys(text)) == spell_keys(text)
