"""Sentences of a small vocabulary, as many as speech can be trained and judged on.

Words are common ones, each of which sounds unlike the others. They come in almost two million
combinations.
"""

import hashlib
import re

import numpy as np

_CHOICES = {
    "color": "red, blue, green, yellow, black, white, brown, orange, pink, gray",
    "quality": "small, big, old, young, happy, hungry, quiet, beautiful, strong, lazy",
    "animal": (
        "cat, dog, horse, cow, bird, fish, mouse, rabbit, lion, bear, duck, frog, sheep, "
        "monkey, tiger, elephant, zebra"
    ),
    "animals": "cats, dogs, horses, cows, birds, rabbits, lions, bears, ducks, monkeys",
    "my": "my, your, our, the",
    "person": "mother, father, sister, brother, doctor, teacher, farmer, king, queen, baby, friend",
    "number": "two, three, four, five, six, seven, eight, nine, ten, eleven, twelve",
    "thing": (
        "apple, book, chair, house, car, boat, train, lamp, cup, ball, hat, shoe, flower, "
        "bottle, window, door, clock, letter, guitar"
    ),
    "things": "apples, books, chairs, boats, cups, balls, hats, flowers, bottles, letters",
    "does": "sits, runs, sleeps, waits, sings, dances, swims, jumps, walks, plays, laughs",
    "do": "sit, run, sleep, wait, sing, dance, swim, jump, walk, play, laugh",
    "gets": "sees, wants, buys, finds, likes, paints, carries, opens, brings",
    "near": "near, behind, under, in, on",
    "place": (
        "garden, river, kitchen, mountain, forest, city, school, station, market, island, "
        "bridge, table"
    ),
    "time": (
        "today, every morning, every evening, at night, on monday, on sunday, in summer, in winter"
    ),
}

SLOTS: dict[str, tuple[str, ...]] = {
    name: tuple(choices.split(", ")) for name, choices in _CHOICES.items()
}
"""What may stand in each place of a sentence."""

FORMS = (
    "{number} {things}",
    "the {quality} {thing}",
    "the {color} {animal} {does}",
    "{my} {person} {does} {time}",
    "{number} {color} {animals}",
    "the {color} {thing} is {near} the {place}",
    "the {quality} {animal} {does} {time}",
    "{my} {person} {gets} {number} {things}",
    "the {color} {animal} {does} {near} the {place}",
    "{number} {color} {animals} {do} {near} the {place}",
    "{my} {person} {gets} the {color} {thing} {time}",
    "the {quality} {person} {gets} the {color} {thing}",
    "{my} {person} {does} {near} the {place} {time}",
)
"""Sentences, from short to long, with places for words."""


def draw_sentence(rng: np.random.Generator) -> str:
    """Any sentence, held out or not."""
    form = FORMS[int(rng.integers(len(FORMS)))]
    return re.sub(r"{(\w+)}", lambda slot: str(rng.choice(SLOTS[slot[1]])), form)


def is_held_out(sentence: str) -> bool:
    """Whether a sentence is never trained on: a fixed tenth of all."""
    return hashlib.blake2b(sentence.encode(), digest_size=4).digest()[0] % 10 == 0


def list_words() -> tuple[str, ...]:
    """All words that occur, in alphabetical order."""
    texts = [re.sub(r"{\w+}", "", form) for form in FORMS]
    texts += [phrase for phrases in SLOTS.values() for phrase in phrases]
    return tuple(sorted({word for text in texts for word in text.split()}))
