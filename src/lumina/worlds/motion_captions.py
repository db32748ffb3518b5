"""How captions say what happens in a clip, in fourteen languages.

What they leave unsaid is white, as for pictures, and a spin that names no direction is clockwise.
"""

from collections.abc import Iterator

from lumina.worlds.captions import BACKGROUND, COLORS, add_article
from lumina.worlds.drawings import PALETTE
from lumina.worlds.motion import MOTIONS, Clip
from lumina.worlds.vocabulary import shipped_names

# English, after the thing.
AFTER: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("move", "left"): ("moving to the left", "moving left"),
    ("move", "right"): ("moving to the right", "moving right"),
    ("move", "up"): ("moving up", "moving upward"),
    ("move", "down"): ("moving down", "moving downward"),
    ("spin", "clockwise"): ("spinning clockwise", "turning clockwise"),
    ("spin", "counterclockwise"): ("spinning counterclockwise", "turning counterclockwise"),
    ("resize", "larger"): ("growing", "becoming larger"),
    ("resize", "smaller"): ("shrinking", "becoming smaller"),
    ("fade", "in"): ("fading in", "appearing slowly"),
    ("fade", "out"): ("fading out", "disappearing slowly"),
    ("bounce", "sideways"): ("bouncing from side to side", "bouncing left and right"),
    ("bounce", "up and down"): ("bouncing up and down", "bouncing between top and bottom"),
    ("still", None): ("staying still", "standing still"),
}

# English, before the thing.
BEFORE: dict[tuple[str, str | None], str] = {
    ("spin", "clockwise"): "spinning",
    ("resize", "larger"): "growing",
    ("resize", "smaller"): "shrinking",
    ("still", None): "still",
}

# Other languages, in the order of `MOTIONS`; none of the forms depends on the thing's gender.
SAID = {
    "es": "moviéndose a la izquierda,moviéndose a la derecha,moviéndose hacia arriba,"
    "moviéndose hacia abajo,girando en sentido horario,girando en sentido antihorario,creciendo,"
    "encogiendo,apareciendo poco a poco,desapareciendo poco a poco,rebotando de lado a lado,"
    "rebotando arriba y abajo,sin moverse",
    "pt": "movendo-se para a esquerda,movendo-se para a direita,movendo-se para cima,"
    "movendo-se para baixo,girando no sentido horário,girando no sentido anti-horário,crescendo,"
    "encolhendo,aparecendo aos poucos,desaparecendo aos poucos,quicando de um lado a outro,"
    "quicando para cima e para baixo,sem se mover",
    "it": "che si muove a sinistra,che si muove a destra,che si muove in alto,"
    "che si muove in basso,che gira in senso orario,che gira in senso antiorario,che cresce,"
    "che rimpicciolisce,che appare lentamente,che scompare lentamente,"
    "che rimbalza da un lato all'altro,che rimbalza su e giù,che resta immobile",
    "fr": "qui va à gauche,qui va à droite,qui monte,qui descend,"
    "qui tourne dans le sens horaire,qui tourne dans le sens antihoraire,qui grandit,"
    "qui rapetisse,qui apparaît lentement,qui disparaît lentement,qui rebondit de gauche à droite,"
    "qui rebondit de haut en bas,qui reste immobile",
    "de": "bewegt sich nach links,bewegt sich nach rechts,bewegt sich nach oben,"
    "bewegt sich nach unten,dreht sich im Uhrzeigersinn,dreht sich gegen den Uhrzeigersinn,wächst,"
    "schrumpft,erscheint langsam,verschwindet langsam,prallt hin und her,prallt auf und ab,"
    "steht still",
    "id": "bergerak ke kiri,bergerak ke kanan,bergerak ke atas,bergerak ke bawah,"
    "berputar searah jarum jam,berputar berlawanan arah jarum jam,membesar,mengecil,"
    "muncul perlahan,menghilang perlahan,memantul ke kiri dan kanan,memantul naik turun,diam",
    "tr": "sola gidiyor,sağa gidiyor,yukarı gidiyor,aşağı gidiyor,saat yönünde dönüyor,"
    "saat yönünün tersine dönüyor,büyüyor,küçülüyor,yavaşça beliriyor,yavaşça kayboluyor,"
    "sağa sola sekiyor,aşağı yukarı sekiyor,hareketsiz duruyor",
    "ru": "движется влево,движется вправо,движется вверх,движется вниз,"
    "вращается по часовой стрелке,вращается против часовой стрелки,растёт,уменьшается,"
    "медленно появляется,медленно исчезает,прыгает из стороны в сторону,прыгает вверх и вниз,"
    "не движется",
    "ja": "左へ動く,右へ動く,上へ動く,下へ動く,時計回りに回る,反時計回りに回る,大きくなる,"
    "小さくなる,ゆっくり現れる,ゆっくり消える,左右に跳ねる,上下に跳ねる,動かない",
    "zh": "向左移动的,向右移动的,向上移动的,向下移动的,顺时针旋转的,逆时针旋转的,变大的,变小的,"
    "慢慢出现的,慢慢消失的,左右弹跳的,上下弹跳的,静止的",
    "ko": "왼쪽으로 움직이는,오른쪽으로 움직이는,위로 움직이는,아래로 움직이는,시계 방향으로 도는,"
    "시계 반대 방향으로 도는,커지는,작아지는,천천히 나타나는,천천히 사라지는,좌우로 튀는,"
    "위아래로 튀는,움직이지 않는",
    "fa": "در حال حرکت به چپ,در حال حرکت به راست,در حال حرکت به بالا,در حال حرکت به پایین,"
    "در حال چرخش ساعتگرد,در حال چرخش پادساعتگرد,در حال بزرگ شدن,در حال کوچک شدن,"
    "در حال پدیدار شدن,در حال ناپدید شدن,در حال جهیدن به چپ و راست,در حال جهیدن به بالا و پایین,"
    "بی حرکت",
    "ar": "في حركة إلى اليسار,في حركة إلى اليمين,في حركة إلى الأعلى,في حركة إلى الأسفل,"
    "في دوران مع عقارب الساعة,في دوران عكس عقارب الساعة,في تزايد,في تناقص,في ظهور بطيء,"
    "في اختفاء بطيء,في ارتداد يمينا ويسارا,في ارتداد إلى الأعلى والأسفل,دون حركة",
}
BEFORE_THE_THING = {"ja": "{m}{n}", "zh": "{m}{n}", "ko": "{m} {n}"}


def write_clip(clip: Clip, language: str = "en") -> str:
    """First caption of a clip in a language, which names its background."""
    return write_every(clip, language)[0]


def write_every(clip: Clip, language: str = "en") -> tuple[str, ...]:
    """All captions of a clip in a language.

    Those of a clip on white say so or say nothing of the background.
    """
    captions = []
    for moving, bare in _moving_things(clip, language):
        captions.append(_on_background(moving, clip.background, language))
        if bare:
            captions.append(_on_background(bare, clip.background, language))
        if clip.background == "white":
            captions += [moving, bare] if bare else [moving]
    return tuple(captions)


def _moving_things(clip: Clip, language: str) -> Iterator[tuple[str, str | None]]:
    """A thing in motion in all words, each with its article and, if it has one, without."""
    name = shipped_names(language)[clip.thing]
    motion = (clip.kind, clip.direction)
    if language != "en":
        said = SAID[language].split(",")[MOTIONS.index(motion)]
        yield BEFORE_THE_THING.get(language, "{n} {m}").format(n=name, m=said), None
        return
    for said in AFTER[motion]:
        yield f"{add_article(name)} {said}", f"{name} {said}"
    if said := BEFORE.get(motion):
        moving = f"{said} {name}"
        yield add_article(moving), moving


def _on_background(moving: str, background: str, language: str) -> str:
    if language == "en":
        return f"{moving} on {add_article(background)} background"
    color = COLORS[language].split(",")[list(PALETTE).index(background)]
    return BACKGROUND[language].format(n=moving, c=color)
