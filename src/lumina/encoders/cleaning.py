"""Cleaning of prompts, as the published Lumina checkpoints expect it."""

import html
import re
from collections.abc import Callable
from urllib.parse import unquote_plus

import ftfy


def clean_caption(text: str) -> str:
    """Lower-case a prompt and take out what web captions carry besides their words.

    The steps and their order are those that diffusers runs before encoding, so that a prompt
    reaches the text encoder unchanged from there. One is left out: diffusers deletes Chinese
    and Japanese characters, which the text encoder reads well.

    Args:
        text: A prompt in any language.

    Returns:
        The prompt on one line. It is empty when nothing but web debris was given.

    Source:
        DeepFloyd IF's caption cleaning, which diffusers' pipelines apply twice.
    """
    return _clean_once(_clean_once(text))


def _clean_once(text: str) -> str:
    for step in _STEPS:
        text = step(text)
    return text


def _replace(pattern: str, replacement: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)
    return lambda text: compiled.sub(replacement, text)


def _drop(pattern: str) -> Callable[[str], str]:
    return _replace(pattern, "")


def _strip_markup(text: str) -> str:
    # The parser warns about plain text that looks like a file name or an address.
    if "<" not in text and "&" not in text:
        return text
    from bs4 import BeautifulSoup

    return BeautifulSoup(text, features="html.parser").text


def _split_joined_words(text: str) -> str:
    if text.count("-") + text.count("_") <= 3:
        return text
    return text.replace("-", " ").replace("_", " ")


_DOMAIN = r"[a-z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
_DASHES = (
    "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    "\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)
_FILE_TYPES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"

_STEPS: tuple[Callable[[str], str], ...] = (
    # Text copied out of an address: "red%20apple", "red+apple".
    unquote_plus,
    str.strip,
    # The checkpoints saw lower case only.
    str.lower,
    # A placeholder of the training captions that looks like a tag.
    _replace("<person>", "person"),
    # Addresses, with or without a scheme.
    _drop(rf"\bhttps?:(?:/{{1,3}}|[a-z0-9%])|\b{_DOMAIN}"),
    _drop(rf"\bwww:(?:/{{1,3}}|[a-z0-9%])|\b{_DOMAIN}"),
    _strip_markup,
    # Names of accounts: "@somebody".
    _drop(r"@\w+"),
    # Every kind of dash is one dash, and every kind of quotation mark one of two.
    _replace(f"[{_DASHES}]+", "-"),
    _replace("[`´«»“”¨]", '"'),
    _replace("[‘’]", "'"),
    # What is left of marks and ampersands that were escaped twice.
    _drop("&quot;?"),
    _drop("&amp"),
    # Network addresses.
    _replace(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
    # The time an article was posted, at the end.
    _drop(r"\d:\d\d\s+$"),
    # Line breaks that were written out.
    _replace(r"\\n", " "),
    # Numbers of posts and articles. Four digits may be a year and stay.
    _drop(r"#\d{1,3}\b"),
    _drop(r"#\d{5,}\b"),
    _drop(r"\b\d{6,}\b"),
    # Names of files.
    _drop(rf"\S+\.(?:{_FILE_TYPES})"),
    # Runs of marks used as decoration.
    _replace("[\"']{2,}", '"'),
    _replace(r"\.{2,}", " "),
    # Signs that say nothing about a picture.
    _replace(r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+", " "),
    # A full stop that the steps above left alone between spaces.
    _replace(r"\s+\.\s+", " "),
    # Titles made of a file name: "this-is-my-cute-cat".
    _split_joined_words,
    # Text decoded with the wrong table, and entities that this brings to light.
    ftfy.fix_text,
    html.unescape,
    html.unescape,
    # Codes of products and pictures: "jc6640", "jc6640vc", "6640vc231".
    _drop(r"\b[a-zA-Z]{1,3}\d{3,15}\b"),
    _drop(r"\b[a-zA-Z]+\d+[a-zA-Z]+\b"),
    _drop(r"\b\d+[a-zA-Z]+\d+\b"),
    # What shops and galleries say around a picture.
    _drop(r"(?:worldwide\s+)?(?:free\s+)?shipping"),
    _drop(r"(?:free\s)?download(?:\sfree)?"),
    _drop(r"\bclick\b\s(?:for|on)\s\w+"),
    _drop(rf"\b(?:{_FILE_TYPES})(?:\simages?)?"),
    _drop(r"\bpage\s+\d+\b"),
    # Longer codes: "j2d1a2a".
    _replace(r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    # Sizes of pictures, with a Latin or Cyrillic x or a times sign: "1024x768".
    _drop(r"\b\d+\.?\d*[xх×]\d+\.?\d*\b"),
    # One space after a mark, none before a colon, and no run of spaces.
    _replace(r"\b\s+:\s+", ": "),
    _replace(r"(\D[,./])\b", r"\1 "),
    _replace(r"\s+", " "),
    # Marks around the whole text, and what they leave at its ends.
    _replace("^[\"'](.+)[\"']$", r"\1"),
    _drop(r"^['_,\-:;]"),
    _drop(r"['_,\-:+]$"),
    # Nothing but the ending of a file name. In ASCII only: where words are not spaced, a whole
    # sentence could be one.
    _drop(r"^\.[!-~]+$"),
    str.strip,
)
