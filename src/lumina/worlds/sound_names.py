"""What kinds of sounds are called in thirteen languages besides English."""

from lumina.worlds.sounds import KINDS

# In the order of the kinds.
NAMES = {
    "es": "piano,clavecín,caja de música,marimba,campana de iglesia,órgano,acordeón,armónica,"
    "guitarra,guitarra eléctrica,bajo eléctrico,violín,coro,timbales,trompeta,tuba,saxofón,"
    "clarinete,flauta,sitar,banjo,gaita,tambor metálico,bombo,caja,platillo,pandereta,cencerro,"
    "caja china,triángulo,palmada,silbato de árbitro,disparo,teléfono,pájaros,helicóptero,"
    "aplausos,olas",
    "ja": "ピアノ,チェンバロ,オルゴール,マリンバ,教会の鐘,パイプオルガン,アコーディオン,ハーモニカ,"
    "ギター,エレキギター,ベースギター,バイオリン,合唱,ティンパニ,トランペット,チューバ,"
    "サクソフォン,クラリネット,フルート,シタール,バンジョー,バグパイプ,スティールドラム,"
    "バスドラム,スネアドラム,シンバル,タンバリン,カウベル,ウッドブロック,トライアングル,手拍子,"
    "審判の笛,銃声,電話,鳥,ヘリコプター,拍手喝采,波",
    "ko": "피아노,하프시코드,오르골,마림바,교회 종,파이프 오르간,아코디언,하모니카,기타,"
    "전기 기타,베이스 기타,바이올린,합창,팀파니,트럼펫,튜바,색소폰,클라리넷,플루트,시타르,밴조,"
    "백파이프,스틸 드럼,베이스 드럼,스네어 드럼,심벌즈,탬버린,카우벨,우드블록,트라이앵글,손뼉,"
    "심판 호루라기,총성,전화,새,헬리콥터,박수갈채,파도",
    "pt": "piano,cravo,caixa de música,marimba,sino de igreja,órgão,acordeão,gaita de boca,violão,"
    "guitarra elétrica,contrabaixo elétrico,violino,coro,tímpanos,trompete,tuba,saxofone,"
    "clarinete,flauta,sitar,banjo,gaita de foles,tambor de aço,bumbo,caixa,prato,pandeiro,"
    "chocalho de vaca,bloco de madeira,triângulo,palma,apito de árbitro,tiro,telefone,pássaros,"
    "helicóptero,aplausos,ondas",
    "it": "pianoforte,clavicembalo,carillon,marimba,campana di chiesa,organo,fisarmonica,"
    "armonica a bocca,chitarra,chitarra elettrica,basso elettrico,violino,coro,timpani,tromba,"
    "tuba,sassofono,clarinetto,flauto,sitar,banjo,cornamusa,tamburo d'acciaio,grancassa,"
    "rullante,piatto,tamburello,campanaccio,blocco di legno,triangolo,battito di mani,"
    "fischietto dell'arbitro,sparo,telefono,uccelli,elicottero,applausi,onde",
    "fr": "piano,clavecin,boîte à musique,marimba,cloche d'église,orgue,accordéon,harmonica,"
    "guitare,guitare électrique,guitare basse,violon,chœur,timbales,trompette,tuba,saxophone,"
    "clarinette,flûte,sitar,banjo,cornemuse,tambour d'acier,grosse caisse,caisse claire,cymbale,"
    "tambourin,cloche à vache,bloc de bois,triangle,claquement de mains,sifflet d'arbitre,"
    "coup de feu,téléphone,oiseaux,hélicoptère,applaudissements,vagues",
    "de": "Klavier,Cembalo,Spieluhr,Marimba,Kirchenglocke,Orgel,Akkordeon,Mundharmonika,Gitarre,"
    "E-Gitarre,Bassgitarre,Geige,Chor,Pauken,Trompete,Tuba,Saxophon,Klarinette,Flöte,Sitar,"
    "Banjo,Dudelsack,Steeldrum,große Trommel,kleine Trommel,Becken,Tamburin,Kuhglocke,"
    "Holzblock,Triangel,Händeklatschen,Trillerpfeife,Schuss,Telefon,Vögel,Hubschrauber,Applaus,"
    "Wellen",
    "fa": "پیانو,هارپسیکورد,جعبه موسیقی,ماریمبا,ناقوس کلیسا,ارگ,آکاردئون,سازدهنی,گیتار,"
    "گیتار الکتریک,گیتار بیس,ویولن,گروه کر,تیمپانی,ترومپت,توبا,ساکسیفون,کلارینت,فلوت,سیتار,"
    "بانجو,نی‌انبان,استیل درام,طبل بزرگ,طبل کوچک,سنج,دایره زنگی,زنگوله گاو,بلوک چوبی,مثلث,"
    "دست زدن,سوت داور,شلیک گلوله,تلفن,پرندگان,هلیکوپتر,تشویق,موج",
    "id": "piano,harpsichord,kotak musik,marimba,lonceng gereja,organ pipa,akordeon,harmonika,"
    "gitar,gitar listrik,gitar bas,biola,paduan suara,timpani,terompet,tuba,saksofon,klarinet,"
    "seruling,sitar,banjo,bagpipe,drum baja,drum bas,drum senar,simbal,tamborin,lonceng sapi,"
    "balok kayu,triangel,tepuk tangan,peluit wasit,tembakan,telepon,burung,helikopter,"
    "tepukan penonton,ombak",
    "zh": "钢琴,大键琴,八音盒,马林巴琴,教堂钟声,管风琴,手风琴,口琴,吉他,电吉他,贝斯,小提琴,合唱团,"
    "定音鼓,小号,大号,萨克斯,单簧管,长笛,西塔琴,班卓琴,风笛,钢鼓,大鼓,小军鼓,钹,铃鼓,牛铃,木鱼,"
    "三角铁,拍手,裁判哨声,枪声,电话,鸟叫,直升机,掌声,海浪",
    "ru": "пианино,клавесин,музыкальная шкатулка,маримба,церковный колокол,орган,аккордеон,"
    "губная гармошка,гитара,электрогитара,бас-гитара,скрипка,хор,литавры,труба,туба,саксофон,"
    "кларнет,флейта,ситар,банджо,волынка,стальной барабан,большой барабан,малый барабан,тарелка,"
    "бубен,коровий колокольчик,деревянный брусок,треугольник,хлопок в ладоши,свисток судьи,"
    "выстрел,телефон,птицы,вертолёт,аплодисменты,волны",
    "tr": "piyano,klavsen,müzik kutusu,marimba,kilise çanı,org,akordeon,mızıka,gitar,"
    "elektro gitar,bas gitar,keman,koro,timpani,trompet,tuba,saksafon,klarnet,flüt,sitar,banjo,"
    "gayda,çelik davul,bas davul,trampet,zil,tef,inek çanı,tahta blok,üçgen,el çırpma,"
    "hakem düdüğü,silah sesi,telefon,kuşlar,helikopter,alkış,dalgalar",
    "ar": "بيانو,هاربسيكورد,صندوق موسيقى,ماريمبا,جرس كنيسة,أرغن,أكورديون,هارمونيكا,جيتار,"
    "جيتار كهربائي,جيتار باس,كمان,جوقة,تيمباني,ترومبيت,توبا,ساكسفون,كلارينيت,ناي,سيتار,بانجو,"
    "مزمار القربة,طبل فولاذي,طبل كبير,طبل صغير,صنج,دف,جرس بقرة,قطعة خشبية,مثلث,تصفيقة,"
    "صافرة حكم,طلق ناري,هاتف,طيور,مروحية,تصفيق,أمواج",
}


def name_sound(kind: str, language: str) -> str:
    """What a kind is called in a language other than English, without an article."""
    return NAMES[language].split(",")[list(KINDS).index(kind)]
