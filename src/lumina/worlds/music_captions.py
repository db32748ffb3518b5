"""How captions tell pieces of music in languages besides English: form, instrument, key, tempo."""

from lumina.worlds.music import FORMS, INSTRUMENTS, MODES, Tune, write_tune

# In the order of the forms, of the instruments, of the pitches from C, and of the modes.
SAID: dict[str, tuple[str, str, str, str]] = {
    "es": (
        "escala ascendente,escala descendente,melodía,acordes",
        "piano,caja de música,marimba,órgano,guitarra,violín,trompeta,clarinete",
        "do,do sostenido,re,mi bemol,mi,fa,fa sostenido,sol,la bemol,la,si bemol,si",
        "mayor,menor",
    ),
    "ja": (
        "上がる音階,下がる音階,メロディー,和音",
        "ピアノ,オルゴール,マリンバ,パイプオルガン,ギター,バイオリン,トランペット,クラリネット",
        "ハ,嬰ハ,ニ,変ホ,ホ,ヘ,嬰ヘ,ト,変イ,イ,変ロ,ロ",
        "長調,短調",
    ),
    "ko": (
        "올라가는 음계,내려가는 음계,멜로디,화음",
        "피아노,오르골,마림바,파이프 오르간,기타,바이올린,트럼펫,클라리넷",
        "다,올림다,라,내림마,마,바,올림바,사,내림가,가,내림나,나",
        "장조,단조",
    ),
    "pt": (
        "escala ascendente,escala descendente,melodia,acordes",
        "piano,caixa de música,marimba,órgão,violão,violino,trompete,clarinete",
        "dó,dó sustenido,ré,mi bemol,mi,fá,fá sustenido,sol,lá bemol,lá,si bemol,si",
        "maior,menor",
    ),
    "it": (
        "scala ascendente,scala discendente,melodia,accordi",
        "pianoforte,carillon,marimba,organo,chitarra,violino,tromba,clarinetto",
        "do,do diesis,re,mi bemolle,mi,fa,fa diesis,sol,la bemolle,la,si bemolle,si",
        "maggiore,minore",
    ),
    "fr": (
        "gamme montante,gamme descendante,mélodie,accords",
        "piano,boîte à musique,marimba,orgue,guitare,violon,trompette,clarinette",
        "do,do dièse,ré,mi bémol,mi,fa,fa dièse,sol,la bémol,la,si bémol,si",
        "majeur,mineur",
    ),
    "de": (
        "aufsteigende Tonleiter,absteigende Tonleiter,Melodie,Akkorde",
        "Klavier,Spieluhr,Marimba,Orgel,Gitarre,Geige,Trompete,Klarinette",
        "C,Cis,D,Es,E,F,Fis,G,As,A,B,H",
        "Dur,Moll",
    ),
    "fa": (
        "گام بالارونده,گام پایین‌رونده,ملودی,آکوردها",
        "پیانو,جعبه موسیقی,ماریمبا,ارگ,گیتار,ویولن,ترومپت,کلارینت",
        "دو,دو دیز,ر,می بمل,می,فا,فا دیز,سل,لا بمل,لا,سی بمل,سی",
        "ماژور,مینور",
    ),
    "id": (
        "tangga nada naik,tangga nada turun,melodi,akor",
        "piano,kotak musik,marimba,organ pipa,gitar,biola,terompet,klarinet",
        "C,C kres,D,E mol,E,F,F kres,G,A mol,A,B mol,B",
        "mayor,minor",
    ),
    "zh": (
        "上行音阶,下行音阶,旋律,和弦",
        "钢琴,八音盒,马林巴琴,管风琴,吉他,小提琴,小号,单簧管",
        "C,升C,D,降E,E,F,升F,G,降A,A,降B,B",
        "大调,小调",
    ),
    "ru": (
        "восходящая гамма,нисходящая гамма,мелодия,аккорды",
        "пианино,музыкальная шкатулка,маримба,орган,гитара,скрипка,труба,кларнет",
        "до,до-диез,ре,ми-бемоль,ми,фа,фа-диез,соль,ля-бемоль,ля,си-бемоль,си",
        "мажор,минор",
    ),
    "tr": (
        "çıkıcı gam,inici gam,melodi,akorlar",
        "piyano,müzik kutusu,marimba,org,gitar,keman,trompet,klarnet",
        "do,do diyez,re,mi bemol,mi,fa,fa diyez,sol,la bemol,la,si bemol,si",
        "majör,minör",
    ),
    "ar": (
        "سلم صاعد,سلم هابط,لحن,تآلفات",
        "بيانو,صندوق موسيقى,ماريمبا,أرغن,جيتار,كمان,بوق,كلارينيت",
        "دو,دو دييز,ري,مي بيمول,مي,فا,فا دييز,صول,لا بيمول,لا,سي بيمول,سي",
        "ماجور,مينور",
    ),
}

_TEMPO = {
    "es": "{n} pulsaciones por minuto",
    "ja": "毎分{n}拍",
    "ko": "분당 {n}박",
    "pt": "{n} batidas por minuto",
    "it": "{n} battiti al minuto",
    "fr": "{n} battements par minute",
    "de": "{n} Schläge pro Minute",
    "fa": "{n} ضرب در دقیقه",
    "id": "{n} ketukan per menit",
    "zh": "每分钟{n}拍",
    "ru": "{n} ударов в минуту",
    "tr": "dakikada {n} vuruş",
    "ar": "{n} نبضة في الدقيقة",
}

TOGETHER = ("ja", "ko", "zh")
"""Languages that write pitch and mode as one word."""


def tell_tune(tune: Tune, language: str) -> str:
    """Caption of a piece in a language."""
    if language == "en":
        return write_tune(tune)
    forms, instruments, pitches, modes = (part.split(",") for part in SAID[language])
    pitch, mode = pitches[tune.key], modes[list(MODES).index(tune.mode)]
    parts = (
        forms[FORMS.index(tune.form)],
        instruments[list(INSTRUMENTS).index(tune.instrument)],
        f"{pitch}{'' if language in TOGETHER else ' '}{mode}",
        _TEMPO[language].format(n=tune.tempo),
    )
    return ", ".join(parts)
