"""How captions name an item and its color, in fourteen languages."""

from typing import NamedTuple

from lumina.worlds.captions import add_article
from lumina.worlds.item_kinds import KINDS
from lumina.worlds.items import COLORS, Item


class Words(NamedTuple):
    """Words of a language.

    Args:
        kinds: Names, in the order of `KINDS`.
        genders: For each of them, which of the forms of a color goes with it.
        colors: For each gender, a form of each color, in the order of `COLORS`.
        phrase: How a name (n) and a color (c) are put together.
    """

    kinds: str
    genders: str
    colors: dict[str, str]
    phrase: str = "{n} {c}"


WORDS = {
    "es": Words(
        "silla,mesa,taza,coche,casa,árbol,perro,lámpara,avión,barco",
        "fffmfmmfmm",
        {
            "m": "rojo,naranja,amarillo,verde,cian,azul,morado,rosa",
            "f": "roja,naranja,amarilla,verde,cian,azul,morada,rosa",
        },
    ),
    "pt": Words(
        "cadeira,mesa,caneca,carro,casa,árvore,cachorro,luminária,avião,barco",
        "fffmffmfmm",
        {
            "m": "vermelho,laranja,amarelo,verde,ciano,azul,roxo,rosa",
            "f": "vermelha,laranja,amarela,verde,ciano,azul,roxa,rosa",
        },
    ),
    "it": Words(
        "sedia,tavolo,tazza,auto,casa,albero,cane,lampada,aereo,barca",
        "fmfffmmfmf",
        {
            "m": "rosso,arancione,giallo,verde,ciano,blu,viola,rosa",
            "f": "rossa,arancione,gialla,verde,ciano,blu,viola,rosa",
        },
    ),
    "fr": Words(
        "chaise,table,tasse,voiture,maison,arbre,chien,lampe,avion,bateau",
        "fffffmmfmm",
        {
            "m": "rouge,orange,jaune,vert,cyan,bleu,violet,rose",
            "f": "rouge,orange,jaune,verte,cyan,bleue,violette,rose",
        },
    ),
    "de": Words(
        "Stuhl,Tisch,Tasse,Auto,Haus,Baum,Hund,Lampe,Flugzeug,Boot",
        "mmfnnmmfnn",
        {
            "m": "roter,oranger,gelber,grüner,türkiser,blauer,violetter,rosa",
            "f": "rote,orange,gelbe,grüne,türkise,blaue,violette,rosa",
            "n": "rotes,oranges,gelbes,grünes,türkises,blaues,violettes,rosa",
        },
        "{c} {n}",
    ),
    "ru": Words(
        "стул,стол,кружка,машина,дом,дерево,собака,лампа,самолёт,лодка",
        "mmffmnffmf",
        {
            "m": "красный,оранжевый,жёлтый,зелёный,бирюзовый,синий,фиолетовый,розовый",
            "f": "красная,оранжевая,жёлтая,зелёная,бирюзовая,синяя,фиолетовая,розовая",
            "n": "красное,оранжевое,жёлтое,зелёное,бирюзовое,синее,фиолетовое,розовое",
        },
        "{c} {n}",
    ),
    "ar": Words(
        "كرسي,طاولة,كوب,سيارة,منزل,شجرة,كلب,مصباح,طائرة,قارب",
        "mfmfmfmmfm",
        {
            "m": "أحمر,برتقالي,أصفر,أخضر,سماوي,أزرق,بنفسجي,وردي",
            "f": "حمراء,برتقالية,صفراء,خضراء,سماوية,زرقاء,بنفسجية,وردية",
        },
    ),
    "fa": Words(
        "صندلی,میز,لیوان,ماشین,خانهٔ,درخت,سگ,چراغ,هواپیمای,قایق",
        "nnnnnnnnnn",
        {"n": "قرمز,نارنجی,زرد,سبز,فیروزه‌ای,آبی,بنفش,صورتی"},
    ),
    "id": Words(
        "kursi,meja,cangkir,mobil,rumah,pohon,anjing,lampu,pesawat,perahu",
        "nnnnnnnnnn",
        {"n": "merah,oranye,kuning,hijau,sian,biru,ungu,merah muda"},
    ),
    "tr": Words(
        "sandalye,masa,kupa,araba,ev,ağaç,köpek,lamba,uçak,tekne",
        "nnnnnnnnnn",
        {"n": "kırmızı,turuncu,sarı,yeşil,turkuaz,mavi,mor,pembe"},
        "{c} {n}",
    ),
    "ja": Words(
        "椅子,テーブル,マグカップ,車,家,木,犬,ランプ,飛行機,ボート",
        "nnnnnnnnnn",
        {"n": "赤い,オレンジ色の,黄色い,緑の,水色の,青い,紫の,ピンクの"},
        "{c}{n}",
    ),
    "zh": Words(
        "椅子,桌子,杯子,汽车,房子,树,狗,台灯,飞机,船",
        "nnnnnnnnnn",
        {"n": "红色的,橙色的,黄色的,绿色的,青色的,蓝色的,紫色的,粉色的"},
        "{c}{n}",
    ),
    "ko": Words(
        "의자,탁자,머그잔,자동차,집,나무,개,램프,비행기,배",
        "nnnnnnnnnn",
        {"n": "빨간,주황색,노란,초록색,청록색,파란,보라색,분홍색"},
        "{c} {n}",
    ),
}


def write_item(item: Item, language: str = "en", *, with_article: bool = True) -> str:
    """Caption of an item in a language; only English has articles here."""
    if language == "en":
        name = f"{item.color} {item.kind}"
        return add_article(name) if with_article else name
    words = WORDS[language]
    kind = list(KINDS).index(item.kind)
    colors = words.colors[words.genders[kind]].split(",")
    color = colors[list(COLORS).index(item.color)]
    return words.phrase.format(n=words.kinds.split(",")[kind], c=color)
