"""Which emoji are things, and what they are called in fourteen languages."""

import functools
import importlib.resources
import json
import re

import numpy as np
from PIL import Image

from lumina.errors import LuminaError, refuse_missing_library
from lumina.worlds.drawings import sprite

LANGUAGES = ("en", "es", "ja", "ko", "pt", "it", "fr", "de", "fa", "id", "zh", "ru", "tr", "ar")

_COMMON = (
    "🍎 🍌 🍇 🍓 🍍 🍉 🍋 🥕 🌽 🍄 🥦 🧀 🍔 🍕 🌭 🍟 🍩 🍪 🎂 🍦 🍿 🥚 ☕ 🍺 🐱 🐶 🐭 🐰 🦊 🐻 "
    "🐼 🐸 🐵 🐷 🐔 🐧 🦉 🐴 🦋 🐝 🐞 🐢 🐍 🐙 🦀 🐬 🐳 🐘 🦒 🦓 🌵 🌲 🌴 🌻 🌹 🍀 🍁 🌈 ⭐ 🌙 "
    "❄️ 🔥 ⚡ 🚗 🚌 🚲 ✈️ 🚀 🚁 ⛵ 🚂 🚜 ⏰ ☎️ 📷 📺 💻 💡 🔑 🔒 🔨 ✂️ 🔔 🎁 🎈 🎸 🎺 🎻 🥁 🎹 "
    "⚽ 🏀 🏈 🎾 🎲 🏆 👑 👟 👓 🎩 🧦 ☂️ 📚 ✏️ 💎 🪑 🛏️ 🏠 🏰 ⚓ 🧸 😀 😎 😭 🤖 👻 👽 💀 🎃 ❤️"
)

COMMON = tuple(_COMMON.split())
"""Drawings that differ well, of things that people name."""

# Drawings closer than this to one already taken, as root mean square over RGB in [0, 1] on
# white, are near-duplicates that neither a person nor a 32 px comparison tells apart.
NEAR_DUPLICATE = 0.1
COMPARED_SIDE = 32

JOINER, FEMALE, MALE = "\u200d", "\u2640", "\u2642"
PERSONS = {"\U0001f468", "\U0001f469", "\U0001f9d1"}
SKIN_TONES = range(0x1F3FB, 0x1F400)
FLAG_LETTERS = range(0x1F1E6, 0x1F200)
LEFT_OUT = re.compile(
    r"(person|man|woman|men|women|people|couple|family|boy$|girl$|pregnant|old_|older|child$|"
    r"deaf|breast|flag:|keycap)|o’clock|-thirty"
)


@functools.cache
def names(language: str) -> dict[str, str]:
    """Name of each emoji in a language, in lower case without underscores.

    Raises:
        LuminaError: If the package that holds the names is not installed.
    """
    refuse_missing_library("emoji", extra="train")
    import emoji

    emoji.config.load_language(language)
    return {
        symbol: entry[language].strip(":").replace("_", " ")
        for symbol, entry in emoji.EMOJI_DATA.items()
        if language in entry
    }


@functools.cache
def shipped_names(language: str) -> dict[str, str]:
    """As `names`, without the package: of `COMMON`, and in English of all `shipped_things`."""
    file = importlib.resources.files("lumina") / "worlds" / "names.json"
    return json.loads(file.read_text("utf-8"))[language]


@functools.cache
def choose_things() -> tuple[list[str], list[str]]:
    """Emoji to learn, and other drawn emoji that stay unseen.

    Left out are flags, skin tones, clocks, keycaps, persons by age, sex and profession, families,
    what the font does not draw, and near-duplicates of what was taken before.
    """
    import emoji

    english = names("en")
    whole = [
        symbol
        for symbol, entry in emoji.EMOJI_DATA.items()
        if entry["status"] == emoji.STATUS["fully_qualified"]
        and all(symbol in names(language) for language in LANGUAGES)
        and not any(ord(letter) in SKIN_TONES for letter in symbol)
    ]
    things, others = [], []
    pictures = np.empty((len(whole), 3 * COMPARED_SIDE**2), np.float32)
    for symbol in whole:
        try:
            picture = on_white(_stretched(symbol)).ravel()
        except LuminaError:
            continue
        nearest = _nearest(picture, pictures[: len(things)])
        if _is_left_out(symbol, english[symbol]) or nearest < NEAR_DUPLICATE:
            others.append(symbol)
        else:
            pictures[len(things)] = picture
            things.append(symbol)
    return things, others


def on_white(drawing: np.ndarray) -> np.ndarray:
    """RGBA bytes as RGB in [0, 1] on white."""
    color, alpha = drawing[..., :3] / 255, drawing[..., 3:] / 255
    return (color * alpha + 1 - alpha).astype(np.float32)


def shipped_things(model: str = "lumina-mini") -> list[str]:
    """Emoji that a model in the package was trained on."""
    folder = importlib.resources.files("lumina") / "weights" / model
    return json.loads((folder / "vocabulary.json").read_text())


def _stretched(symbol: str) -> np.ndarray:
    square = (COMPARED_SIDE, COMPARED_SIDE)
    drawing = sprite(symbol).convert("RGBa").resize(square, Image.Resampling.BOX)
    return np.asarray(drawing.convert("RGBA"))


def _nearest(picture: np.ndarray, others: np.ndarray) -> float:
    return float(np.sqrt(((others - picture) ** 2).mean(1).min(initial=np.inf)))


def _is_left_out(symbol: str, name: str) -> bool:
    is_flag = any(ord(letter) in FLAG_LETTERS for letter in symbol)
    is_person = JOINER in symbol and any(part in symbol for part in {FEMALE, MALE} | PERSONS)
    return is_flag or is_person or bool(LEFT_OUT.match(name.replace(" ", "_")))
