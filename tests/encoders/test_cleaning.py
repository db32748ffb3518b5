import diffusers
import pytest

from lumina.encoders.cleaning import clean_caption


def cleaned_by_diffusers(text):
    pipeline = diffusers.LuminaPipeline.__new__(diffusers.LuminaPipeline)
    return pipeline._text_preprocessing(text, clean_caption=True)[0]


@pytest.mark.parametrize(
    "text",
    [
        "A photo of a cat",
        "  Upper body of a young woman in a Victorian-era outfit, brass goggles & leather straps. ",
        "red+apple%20pie",
        "a <b>bold</b> &lt;cat&gt; of a <person>",
        "see https://example.com/cat-1 or www:x and shop.co.uk/cats",
        "@somebody drew #12 and #2024 and #123456 in 1234567",
        "“quoted” ‘words’ — and – dashes",
        "&amp;quot;twice&amp;quot; escaped &amp;amp; more",
        "from 192.168.0.1 at 4:30 ",
        "first\\nsecond\nthird",
        "cat_01.png, dog.webp and pdf images of an epson",
        "*** (masterpiece:1.2) [best] {quality} | sharp / 8k ... ***",
        "this-is-my-cute-cat",
        "a well-known black-and-white cat",
        "schÃ¶n",
        "jc6640 jc6640vc 6640vc231 j2d1a2a R2D2 AK47",
        "a shipping container, worldwide free shipping, free download",
        "click here, click on cats, page 12",
        "1024x768 or 2х3 or 16×9 pixels",
        "name : value,next.sentence",
        '"all of it is quoted"',
        "'-cat-'",
        ".jpg",
        "café, naïve, Straße, piñata",
        "кошка на дереве",
        "قطة على شجرة",
        "고양이 한 마리",
        "แมวบนต้นไม้",
        "पेड़ पर बिल्ली",
        "🍎 and 👩‍🚀",
        "",
    ],
)
def test_prompts_are_cleaned_as_in_diffusers(text):
    assert clean_caption(text) == cleaned_by_diffusers(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("一只猫在树上", "一只猫在树上"),
        ("A cat, 猫 and ネコ", "a cat, 猫 and ネコ"),
        ("㐀㐁 ㇰ ㇱ", "㐀㐁 ㇰ ㇱ"),
        ("(可爱的)猫 1024x768", "可爱的 猫"),
    ],
)
def test_chinese_and_japanese_are_kept(text, expected):
    assert clean_caption(text) == expected
    assert cleaned_by_diffusers(text) != expected


def test_a_sentence_without_spaces_is_kept_after_a_full_stop():
    assert clean_caption(".苹果在树上") == ".苹果在树上"


def test_cleaning_again_changes_nothing_in_an_ordinary_prompt():
    once = clean_caption("A Photo of a CAT (masterpiece:1.2), 4K & sharp")
    assert clean_caption(once) == once
