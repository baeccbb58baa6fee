"""The languages of the page and of class names. Whatever lists languages reads this table.

A language has its words in ``web/strings.<code>.js`` and its class names in the field ``<code>`` of ``Labels``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """A language.

    ``code``: in file names, in the cookie, in label files and in the JSON field ``label_<code>``. ``tag``: as HTML
    names it (BCP 47). ``name``: as its readers call it. ``english``: as English calls it. ``headings``: the headings
    of columns that hold its class names, in small letters, with ``_`` for blanks.
    """

    code: str
    tag: str
    name: str
    english: str
    headings: frozenset[str]


LANGUAGES = {
    language.code: language
    for language in (
        Language(
            "en",
            tag="en",
            name="English",
            english="English",
            headings=frozenset(
                (
                    *("en", "en_us", "english", "en_name", "name_en", "label_en", "english_name"),
                    *("英文", "英文名", "英文名称"),
                )
            ),
        ),
        Language(
            "zh",
            tag="zh-Hans",
            name="中文",
            english="Chinese",
            headings=frozenset(
                (
                    *("zh", "zh_cn", "cn", "chinese", "zh_name", "name_zh", "label_zh", "cn_name", "name_cn"),
                    *("chinese_name", "中文", "中文名", "中文名称", "中文标签"),
                )
            ),
        ),
    )
}
# What the page speaks where the visitor's language is not among them, and what every class has a name in.
DEFAULT = next(iter(LANGUAGES))
# The languages that a class may have a name in besides.
TRANSLATIONS = tuple(language for code, language in LANGUAGES.items() if code != DEFAULT)
