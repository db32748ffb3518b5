"""What kinds of solids are called in fourteen languages."""

from lumina.worlds.solid_kinds import KINDS

# In the order of the kinds.
NAMES = {
    "en": ",".join(KINDS),
    "es": "silla,mesa,cama,lámpara,taza,botella,avión,coche,anillo,cono,estrella,escaleras",
    "ja": "椅子,テーブル,ベッド,ランプ,マグカップ,ボトル,飛行機,車,リング,円錐,星,階段",
    "ko": "의자,탁자,침대,램프,머그잔,병,비행기,자동차,고리,원뿔,별,계단",
    "pt": "cadeira,mesa,cama,luminária,caneca,garrafa,avião,carro,anel,cone,estrela,escada",
    "it": "sedia,tavolo,letto,lampada,tazza,bottiglia,aereo,automobile,anello,cono,stella,scala",
    "fr": "chaise,table,lit,lampe,tasse,bouteille,avion,voiture,anneau,cône,étoile,escalier",
    "de": "Stuhl,Tisch,Bett,Lampe,Tasse,Flasche,Flugzeug,Auto,Ring,Kegel,Stern,Treppe",
    "fa": "صندلی,میز,تخت,چراغ,لیوان,بطری,هواپیما,خودرو,حلقه,مخروط,ستاره,پله",
    "id": "kursi,meja,tempat tidur,lampu,cangkir,botol,pesawat,mobil,cincin,kerucut,bintang,tangga",
    "zh": "椅子,桌子,床,台灯,马克杯,瓶子,飞机,汽车,圆环,圆锥,星星,楼梯",
    "ru": "стул,стол,кровать,лампа,кружка,бутылка,самолёт,машина,кольцо,конус,звезда,лестница",
    "tr": "sandalye,masa,yatak,lamba,kupa,şişe,uçak,araba,halka,koni,yıldız,merdiven",
    "ar": "كرسي,طاولة,سرير,مصباح,كوب,زجاجة,طائرة,سيارة,حلقة,مخروط,نجمة,درج",
}


def name_of(kind: str, language: str) -> str:
    """What a kind is called in a language, without an article."""
    return NAMES[language].split(",")[list(KINDS).index(kind)]
