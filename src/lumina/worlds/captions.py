"""What a caption asks for, how it says so in fourteen languages, and the scene that answers it."""

import hashlib
from dataclasses import dataclass

import numpy as np

from lumina.worlds.drawings import PALETTE, Placed, Scene
from lumina.worlds.vocabulary import LANGUAGES, names

PLACES = {"left": (0.26, 0.5), "right": (0.74, 0.5), "top": (0.5, 0.26), "bottom": (0.5, 0.74)}
RELATIONS = {
    "to the left of": ("left", "right"),
    "to the right of": ("right", "left"),
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
}

WHOLE = (0.76, 0.84)  # extent of a thing alone, as a fraction of the canvas's shorter side
SMALL = (0.36, 0.44)  # extent of a small thing and of each of two
JITTER = 0.02  # of centers, as a fraction of the canvas

# How each language says that a thing (n) has a background of a color (c).
BACKGROUND = {
    "es": "{n} sobre fondo {c}",
    "pt": "{n} em fundo {c}",
    "it": "{n} su sfondo {c}",
    "fr": "{n} sur fond {c}",
    "de": "{n} auf {c} Hintergrund",
    "id": "{n} dengan latar belakang {c}",
    "tr": "{c} arka planda {n}",
    "ru": "{n} на {c} фоне",
    "ja": "{c}の背景に{n}",
    "zh": "{c}背景上的{n}",
    "ko": "{c} 배경의 {n}",
    "fa": "{n} روی پس‌زمینهٔ {c}",
    "ar": "{n} على خلفية {c}",
}

# Colors in the order of the palette, in the form that the phrase above needs.
COLORS = {
    "es": "blanco,negro,rojo,verde,azul,amarillo,gris,rosa,naranja,morado,celeste,marrón",
    "pt": "branco,preto,vermelho,verde,azul,amarelo,cinza,rosa,laranja,roxo,azul-claro,marrom",
    "it": "bianco,nero,rosso,verde,blu,giallo,grigio,rosa,arancione,viola,celeste,marrone",
    "fr": "blanc,noir,rouge,vert,bleu,jaune,gris,rose,orange,violet,bleu ciel,marron",
    "de": "weißem,schwarzem,rotem,grünem,blauem,gelbem,grauem,rosa,orangem,violettem,"
    "himmelblauem,braunem",
    "id": "putih,hitam,merah,hijau,biru,kuning,abu-abu,merah muda,oranye,ungu,biru langit,cokelat",
    "tr": "beyaz,siyah,kırmızı,yeşil,mavi,sarı,gri,pembe,turuncu,mor,gök mavisi,kahverengi",
    "ru": "белом,чёрном,красном,зелёном,синем,жёлтом,сером,розовом,оранжевом,фиолетовом,"
    "голубом,коричневом",
    "ja": "白,黒,赤,緑,青,黄色,灰色,ピンク,オレンジ,紫,水色,茶色",
    "zh": "白色,黑色,红色,绿色,蓝色,黄色,灰色,粉色,橙色,紫色,天蓝色,棕色",
    "ko": "흰색,검은색,빨간색,초록색,파란색,노란색,회색,분홍색,주황색,보라색,하늘색,갈색",
    "fa": "سفید,سیاه,قرمز,سبز,آبی,زرد,خاکستری,صورتی,نارنجی,بنفش,آبی آسمانی,قهوه‌ای",
    "ar": "بيضاء,سوداء,حمراء,خضراء,زرقاء,صفراء,رمادية,وردية,برتقالية,بنفسجية,زرقاء سماوية,بنية",
}


@dataclass(frozen=True)
class Brief:
    """What a caption asks for.

    Args:
        things: One emoji, or two with a relation between them.
        background: A palette color, or None where the caption names none.
        place: Where one small thing stands, or None for a large one in the middle.
        relation: How the first of two things stands to the second.
    """

    things: tuple[str, ...]
    background: str | None = None
    place: str | None = None
    relation: str | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages whose grammar can say this."""
        return LANGUAGES if self.place is None and self.relation is None else ("en",)

    @property
    def is_held_out(self) -> bool:
        """Whether this combination is never trained on: a fixed tenth; a name alone never is."""
        if not (self.background or self.place or self.relation):
            return False
        key = "|".join([*self.things, self.background or "", self.place or "", self.relation or ""])
        return hashlib.blake2b(key.encode(), digest_size=4).digest()[0] % 10 == 0


def write(brief: Brief, language: str, *, with_article: bool = True) -> str:
    """Caption of a brief in a language.

    Raises:
        ValueError: If the language's grammar cannot say it.
    """
    if language not in brief.languages:
        raise ValueError(f"{language!r} cannot say it, only {', '.join(brief.languages)}")
    called = [names(language)[emoji] for emoji in brief.things]
    if language == "en":
        return _write_english(brief, called, with_article)
    if brief.background is None:
        return called[0]
    color = COLORS[language].split(",")[list(PALETTE).index(brief.background)]
    return BACKGROUND[language].format(n=called[0], c=color)


def draw_brief(
    rng: np.random.Generator, things: list[str], *, pairs: float = 0.15, grounds: float = 0.25
) -> Brief:
    """Random brief for training: never one that is held out.

    Args:
        rng: Source of chance.
        things: Emoji to choose from.
        pairs: Share of briefs, in [0, 1], that ask for two things.
        grounds: Share of those, in [0, 1], that name a background.
    """
    while True:
        brief = _any_brief(rng, things, pairs, grounds)
        if not brief.is_held_out:
            return brief


def stage(brief: Brief, rng: np.random.Generator | None = None) -> Scene:
    """Scene that answers a brief; with `rng`, sizes and places vary a little."""
    if brief.relation:
        spots = [PLACES[place] for place in RELATIONS[brief.relation]]
    else:
        spots = [PLACES[brief.place] if brief.place else (0.5, 0.5)]
    extents = SMALL if brief.place or brief.relation else WHOLE
    placed = []
    for emoji, (x, y) in zip(brief.things, spots, strict=True):
        extent, shift = sum(extents) / 2, (0.0, 0.0)
        if rng is not None:
            extent = float(rng.uniform(*extents))
            shift = tuple(rng.uniform(-JITTER, JITTER, 2).tolist())
        placed.append(Placed(emoji, (x + shift[0], y + shift[1]), extent))
    return Scene(brief.background or "white", tuple(placed))


def add_article(name: str) -> str:
    """A name after "a" or "an", or as it is where it stands for several."""
    is_plural = name.endswith("s") and not name.endswith(("ss", "us"))
    if is_plural:
        return name
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"


def _any_brief(rng: np.random.Generator, things: list[str], pairs: float, grounds: float) -> Brief:
    def pick(options: list[str]) -> str:
        return options[rng.integers(len(options))]

    single = 1 - pairs
    shares = [0.53 * single, 0.29 * single, 0.18 * single, pairs]
    kind = rng.choice(["alone", "background", "place", "pair"], p=shares)
    chance = {"background": 1.0, "pair": grounds}.get(str(kind), 0.5)
    background = pick(list(PALETTE)) if rng.random() < chance else None
    if kind == "alone":
        return Brief((pick(things),))
    if kind == "background":
        return Brief((pick(things),), background)
    if kind == "place":
        return Brief((pick(things),), background, pick(list(PLACES)))
    first, second = (things[i] for i in rng.choice(len(things), 2, replace=False))
    return Brief((first, second), background, relation=pick(list(RELATIONS)))


def _write_english(brief: Brief, called: list[str], with_article: bool) -> str:
    first = called[0]
    if brief.place:
        first = f"small {first}"
    text = add_article(first) if with_article else first
    if brief.relation:
        text += f" {brief.relation} {add_article(called[1]) if with_article else called[1]}"
    if brief.place:
        text += f" at the {brief.place}"
    if brief.background:
        text += f" on {add_article(brief.background)} background"
    return text
