"""Files of class names: each form is read as what it is, and none of them silently as something else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from classifier.labels import Labels
from model_build.label_text import MAX_BYTES, LabelsError
from model_build.labels import from_extras, parse_labels, read_labels

if TYPE_CHECKING:
    from pathlib import Path

INSECTS = ("ant", "bee", "cicada")
SYNSETS = ("tench, Tinca tinca", "goldfish", "great white shark, man-eater")


def read(folder: Path, name: str, content: str | bytes, classes: int | None = None) -> tuple[Labels, list[str]]:
    """The labels, and what is told of them."""
    path, told = folder / name, list[str]()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labels(path, classes, notice=told.append), told


def refused(folder: Path, name: str, content: str | bytes, classes: int | None = None) -> str:
    with pytest.raises(LabelsError) as raised:
        read(folder, name, content, classes)
    start = f"labels file {str(folder / name)!r}: "
    assert str(raised.value).startswith(start)
    return str(raised.value).removeprefix(start)


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        # lines
        ("l.txt", "ant\nbee\ncicada\n", "one a line"),
        ("l", "\ufeffant\r\n  bee \r\n\r\ncicada", "one a line (1 empty ones left out)"),
        ("l.names", "ant\rbee\rcicada", "one a line"),
        ("l.txt", '"ant",\n"bee",\n"cicada"', "one a line"),
        ("l.txt", "ant,\nbee,\ncicada", "one a line"),
        ("l.txt", "'ant'\n'bee'\n'cicada'", "one a line"),
        ("l.txt", "0 ant\n1 bee\n2 cicada", "by the index in each line"),
        ("l.txt", "2: cicada\n0: ant\n1: bee", "by the index in each line"),
        ("l.txt", "ant: 0\ncicada: 2\nbee: 1", "by the index in each line"),
        ("l.txt", "0 - ant\n1 - bee\n2 - cicada", "by the index in each line"),
        ("l.txt", "00. ant\n01. bee\n02. cicada", "by the index in each line"),
        ("l.txt", "n02219486 ant\nn02206856 bee\nn02257284 cicada", "one a line (WordNet's ids left out)"),
        # tables
        ("l.csv", "0,ant\n1,bee\n2,cicada", "from column 2, by the index in 1"),
        ("l.txt", "0,ant\n1,bee\n2,cicada", "from column 2, by the index in 1"),
        ("l.txt", "cicada\t2\nant\t0\nbee\t1", "from column 1, by the index in 2"),
        ("l.csv", "name\nant\nbee\ncicada", "one a line below the heading 'name'"),
        ("l.csv", "id,name\n2,cicada\n0,ant\n1,bee\n,\n", "from column 'name', by the index column 'id'"),
        ("l.csv", "ID;Name\n2;cicada\n0;ant\n1;bee", "from column 'Name', by the index column 'ID'"),
        ("l.csv", "sep=;\r\nid;name\r\n0;ant\r\n1;bee\r\n2;cicada", "from column 'name', by the index column 'id'"),
        ("l.csv", ",name\n0,ant\n1,bee\n2,cicada", "from column 'name', by the index column ''"),
        ("l.tsv", "\tname\n0\tant\n1\tbee\n2\tcicada", "from column 'name', by the index column ''"),
        ("l.csv", ",id,name\n0,2,cicada\n1,0,ant\n2,1,bee", "from column 'name', by the index column 'id'"),
        ("l.csv", "label,class\n2,cicada\n0,ant\n1,bee", "from column 'class', by the index column 'label'"),
        ("l.csv", "Nummer,Tier\n2,cicada\n0,ant\n1,bee", "from column 2, by the index in 1"),
        ("l.csv", "name,colour\nant,red\nbee,gold\ncicada,red", "from column 'name', in the order of the lines"),
        # YAML
        ("l.yaml", "- ant\n- bee # of honey\n- cicada", "in the order of a list"),
        ("l.txt", "- ant\n- bee\n- cicada", "in the order of a list"),
        ("l.yml", "nc: 3\nnames: [ant, bee, cicada]", "in the order of a list under 'names'"),
        ("l.yml", "names:\n  1: bee\n  0: ant\n  2: cicada", "by an object of indexes and their names under 'names'"),
        ("l.txt", "names:\n- ant\n- bee\n- cicada", "in the order of a list under 'names'"),
        # JSON, and what Python prints
        ("l.json", '["ant", "bee", "cicada"]', "in the order of a list"),
        ("l.txt", '["ant", "bee", "cicada"]', "in the order of a list"),
        ("l.JSON", '\ufeff{"en": ["ant", "bee", "cicada"], "zh": null}', "in the order of the list 'en'"),
        ("l.txt", "['ant', 'bee', 'cicada']", "in the order of a list"),
        ("l.txt", "{0: 'ant',\n 2: 'cicada',\n 1: 'bee'}", "by an object of indexes and their names"),
        ("class_indices.json", '{"cicada": 2, "ant": 0, "bee": 1}', "by an object of names and their indexes"),
        ("index_to_name.json", '{"1": "bee", "0": "ant", "2": "cicada"}', "by an object of indexes and their names"),
        (
            "imagenet_class_index.json",
            '{"0": ["n02219486", "ant"], "2": ["n02257284", "cicada"], "1": ["n02206856", "bee"]}',
            "by an object of indexes and their names",
        ),
        (
            "config.json",
            '{"model_type": "resnet", "id2label": {"0": "ant", "2": "cicada", "1": "bee"}, '
            '"label2id": {"ant": 0, "bee": 1, "cicada": 2}}',
            "by an object of indexes and their names under 'id2label'",
        ),
        (
            "l.json",
            '{"categories": [{"id": 2, "name": "cicada"}, {"id": 0, "name": "ant"}, {"id": 1, "name": "bee"}]}',
            "from column 'name', by the index column 'id' under 'categories'",
        ),
        (
            "l.jsonl",
            '{"id": 2, "name": "cicada"}\n{"id": 0, "name": "ant"}\n{"id": 1, "name": "bee"}\n',
            "from column 'name', by the index column 'id'",
        ),
        ("l.txt", '["ant", 0]\n["bee", 1]\n["cicada", 2]', "from column 1, by the index in 2"),
        # told by the count alone
        ("l.txt", "ant, bee, cicada", "in one line, between commas"),
        ("l.txt", "# insects\nant\nbee\ncicada", "one a line without the comments"),
        ("l.txt", "label\nant\nbee\ncicada", "one a line below the heading 'label'"),
    ],
)
def test_forms(tmp_path: Path, name: str, content: str, how: str) -> None:
    assert read(tmp_path, name, content, 3) == (Labels(INSECTS), [f"{name}: 3 names, {how}"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", "index,en,zh\n1,bee,蜜蜂\n0,ant,蚂蚁"),
        ("l.csv", "zh,label,class_id\n蜜蜂,bee,1\n蚂蚁,ant,0"),
        ("l.tsv", "english\t中文名\nant\t蚂蚁\nbee\t蜜蜂"),
        ("l.json", '{"en": ["ant", "bee"], "zh": ["蚂蚁", "蜜蜂"]}'),
        ("l.jsonl", '{"en": "ant", "zh": "蚂蚁"}\n{"en": "bee", "zh": "蜜蜂"}'),
    ],
)
def test_both_languages(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path, name, content)[0] == Labels(("ant", "bee"), ("蚂蚁", "蜜蜂"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_unicode_with_its_mark(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    assert read(tmp_path, "l.txt", (mark + "猫\nBär\n").encode(encoding))[0].en == ("猫", "Bär")


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("l.txt", "\n".join("0123456789"), tuple("0123456789")),  # MNIST
        ("l.txt", "0\n1\n10\n2", ("0", "1", "10", "2")),  # folders of numbers, as they are sorted
        ("l.json", '{"0": 0, "1": 1, "10": 2, "2": 3}', ("0", "1", "10", "2")),  # and Keras' indexes of them
        ("l.csv", "class_id,label\n0,0\n1,1\n2,2", ("0", "1", "2")),
        ("l.csv", "0,0\n1,1\n2,2", ("0", "1", "2")),
        ("l.txt", "7 up\n3d printer\npepsi", ("7 up", "3d printer", "pepsi")),
        ("l.txt", "001.Albatross\n002.Auklet", ("001.Albatross", "002.Auklet")),
        ("l.txt", "0-9 years\n10-19 years", ("0-9 years", "10-19 years")),
        ("l.txt", "class 0\nclass 1", ("class 0", "class 1")),
        ("l.txt", "n01440764\nn01443537", ("n01440764", "n01443537")),
        ("l.csv", "0,n01440764\n1,n01443537", ("n01440764", "n01443537")),
        ("l.txt", "\n".join(SYNSETS), SYNSETS),
        ("l.txt", "\n".join(f"{index}: {name}" for index, name in enumerate(SYNSETS)), SYNSETS),
        ("l.csv", "\n".join(f'"{name}"' for name in SYNSETS), SYNSETS),
        ("l.csv", "id,name\n" + "\n".join(f'{index}, "{name}"' for index, name in enumerate(SYNSETS)), SYNSETS),
        ("l.txt", "crane, bird\ncrane, machine", ("crane, bird", "crane, machine")),
        ("l.txt", "title\ntext\ntable", ("title", "text", "table")),  # the layout of a page: no heading
        ("l.yaml", "- no\n- yes\n- null\n- 1.0", ("no", "yes", "null", "1.0")),
        ("l.json", '{"en": 0, "zh": 1}', ("en", "zh")),
        ("l.json", '{"names": 1, "classes": 0}', ("classes", "names")),
        ("l.json", '["0 ant", "2 bee"]', ("0 ant", "2 bee")),
    ],
)
def test_names_that_look_like_something_else(tmp_path: Path, name: str, content: str, names: tuple[str, ...]) -> None:
    assert read(tmp_path, name, content, len(names))[0].en == names


OF_TWO = "2 names have the indexes 0 to 1, each once"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        # indexes
        ("l.csv", "id,name\n1,ant\n2,bee", "column 'id': index 0 is missing, 2 is out of range (they begin at 1);"),
        ("l.csv", "id,name\n0,ant\n0,bee", f"column 'id': index 0 occurs twice; {OF_TWO}"),
        ("l.csv", "id,name\n0.0,ant\n1.0,bee", f"column 'id': '0.0' is no index; {OF_TWO}"),
        ("l.csv", "0,ant\n2,bee", "column 1 should be the index, but index 1 is missing, 2 is out of range"),
        ("l.txt", "0 ant\n2 bee", "every line holds a number, but index 1 is missing, 2 is out of range"),
        ("l.txt", "2 door\n4 door", "to have the lines as they are, give a JSON list"),
        ("l.txt", "0 ant\n1 bee\ncicada", "2 lines begin with a number, but 'cicada' does not"),
        ("l.txt", "0 stars\n1 star\n2 stars\n3 stars", "the numbers in the lines may be indexes or parts of the names"),
        ("l.json", '{"0": "ant", "2": "bee"}', f"index 1 is missing, 2 is out of range; {OF_TWO}"),
        ("l.json", '{"ant": 1, "bee": 1}', f"index 1 occurs twice; {OF_TWO}"),
        ("l.json", '{"ant": 0, "ant": 1}', "the key 'ant' occurs twice"),
        ("l.yaml", "ant: 0\nant: 1", "the key 'ant' occurs twice"),
        ("l.json", '{"0": "1", "1": "0"}', "holds numbers for names and for indexes"),
        ("l.json", '{"id2label": {"0": "a", "1": "b"}, "label2id": {"b": 0, "a": 1}}', "'id2label' and 'label2id'"),
        # columns
        ("l.csv", "crane, bird\nfox, red", "has 2 columns ('crane, bird'), and none is called as names are"),
        ("l.csv", "crane, bird\nfox", "has 2 columns in line 1 and 1 in line 2 ('fox'); put quotes around a name"),
        ("l.txt", "0,crane, bird\n1,fox", "'0,crane, bird' has 3 columns; put quotes around a name that holds ','"),
        ("l.txt", "ant\t蚂蚁\nbee\t蜜蜂", "has 2 columns ('ant\\t蚂蚁'), and none is called as names are"),
        ("l.csv", "0,ant,x\n1,bee,y", "columns 2 and 3 may hold the names; a first line such as 'index,name' says"),
        ("l.csv", "1,0,ant\n0,1,bee", "columns 1 and 2 hold the numbers 0 to 1 in different orders"),
        ("l.csv", "id,index,name\n1,0,ant\n0,1,bee", "columns 'id', 'index' are different indexes; leave one"),
        ("l.csv", "name,label_name\na,b\nc,d", "columns 'name', 'label_name' may each hold the names"),
        ("l.csv", "index,colour,size\n0,red,l\n1,blue,m", "columns 'colour', 'size' may each hold the names"),
        ("l.csv", "name,edible\nant,1\nbee,0", "column 'edible' may be the index; call it 'index' if it is"),
        ("l.csv", 'id,name\n0,"ant\n1,bee', "is no CSV: unexpected end of data"),
        # JSON and YAML
        ("l.json", "{", "is no JSON: Expecting property name"),
        ("l.txt", '["ant", "bee"', "is no JSON: Expecting ',' delimiter"),
        ("l.json", '"ant"', "expected a list of names"),
        ("l.json", "[1, 2]", "holds 1 among the names; expected a list of names"),
        ("l.json", '{"zh": ["a"]}', "expected a list of names"),
        ("l.json", '{"labels": []}', "expected a list of names"),
        ("l.json", '["ant", "", "bee"]', "the name of class 1 is blank"),
        ("l.json", '{"en": ["a", "b"], "zh": ["甲"]}', "'zh' has 1 names, 'en' has 2"),
        ("l.json", '{"en": ["a", "b"], "zh": "甲乙"}', "'zh' must be a list of strings"),
        ("l.json", "[" * 100_000, "is nested too deeply"),
        ("l.yaml", "- &a [ant]\n- *a", "uses an alias (*) of YAML"),
        ("l.yaml", "names: [ant", "is no YAML: "),
        ("l.yaml", "ant\nbee", "expected a list of names"),
        # characters
        ("l.txt", "ant\nbe\x07e", "holds the character U+0007 in line 2"),
        ("l.txt", "ant\x0bbee", "holds the character U+000B in line 1"),
        ("l.txt", "ant\nbee\u2028wasp", "holds the character U+2028 in line 2"),
        ("l.json", '["ant", "be\\u0000e"]', "the name of class 1, 'be\\x00e', holds the character U+0000"),
        ("l.json", '["ant", "\\ud800"]', "holds the character U+D800"),
        ("l.csv", 'id,name\n0,"ant\nbig"\n1,bee', "the name of class 0, 'ant\\nbig', holds the character U+000A"),
        ("l.txt", "ant\n" + "x" * 1001, "the name of class 1 has 1001 characters, of 1000 allowed"),
        # nothing
        ("l.txt", "", "is empty; a name for each class is expected"),
        ("l.csv", "\ufeff \r\n\r\n", "is empty; a name for each class is expected"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_means_two_things_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    assert message in refused(tmp_path, name, content)


def test_an_empty_line_in_the_place_of_a_name(tmp_path: Path) -> None:
    assert refused(tmp_path, "l.txt", "ant\n\nbee\n", 3) == "line 2 is empty, so that one of the 3 classes has no name"
    assert read(tmp_path, "l.txt", "ant\n\nbee\n\n", 2)[0].en == ("ant", "bee")


def test_a_heading_in_a_csv_is_never_a_name(tmp_path: Path) -> None:
    """A file that lacks a name must not be filled up with its heading."""
    assert read(tmp_path, "l.csv", "label\nant\nbee", 3)[0].en == ("ant", "bee")


@pytest.mark.parametrize(
    ("text", "encoding", "likely"),
    [
        ("cat\n狗狗\n猫", "gbk", "is not UTF-8 (byte 0xb9 in line 2); it looks like GBK, as in '狗狗'"),
        ("tea\ncafé\n", "cp1252", "is not UTF-8 (byte 0xe9 in line 2); it looks like CP1252, as in 'café'"),
        ("cat\ndog\n", "utf-16-le", "looks like UTF-16 without a byte order mark"),
        ("cat\ndog\n", "utf-16-be", "looks like UTF-16 without a byte order mark"),
    ],
)
def test_other_encodings_are_named_with_the_command_that_converts(
    tmp_path: Path, text: str, encoding: str, likely: str
) -> None:
    iconv = {"gbk": "GBK", "cp1252": "CP1252", "utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE"}[encoding]
    path, target = tmp_path / "my labels.txt", tmp_path / "my labels-utf8.txt"
    assert refused(tmp_path, path.name, text.encode(encoding)) == (
        f"{likely}; convert it with: iconv -f {iconv} -t UTF-8 '{path}' > '{target}'"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("кошка\nсобака".encode("cp1251"), "nor likely GBK or CP1252; save it as UTF-8"),
        ("ねこ\nいぬ".encode("shift_jis"), "nor likely GBK or CP1252; save it as UTF-8"),
        (b"\xff\xfea", "begins as UTF-16-LE does, but is damaged"),
        (b"PK\x03\x04", "is a zip or an Excel workbook; save the names as CSV in UTF-8"),
        (b"\x80\x04\x95", "is a pickle, which is never loaded because that could run any code"),
        (b"\n<!DOCTYPE html>\n<html>", "is a page of HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1", "is a pointer of git-lfs"),
        (b"item {\n  id: 1\n  name: 'ant'\n}", "is a label map in protobuf's text form"),
        (b"a" * (MAX_BYTES + 1), "is larger than 16 MiB"),
    ],
)
def test_what_is_no_list_of_names(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refused(tmp_path, "l.txt", content)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"nowhere\.txt': can't be read: No such file or directory"):
        read_labels(tmp_path / "nowhere.txt")


def test_names_that_occur_twice_are_told(tmp_path: Path) -> None:
    assert read(tmp_path, "l.txt", "crane\nant\ncrane")[1][1:] == ["l.txt: 'crane' is the name of the classes 0, 2"]
    many = read(tmp_path, "l.txt", "\n".join("abcdefgabcdefg"))[1]
    assert len(many) == 7
    assert many[-1] == "l.txt: 2 more names occur twice"


@pytest.mark.parametrize(
    ("known", "names", "moved"),
    [
        (INSECTS, ("bee", "ant", "cicada"), "'ant' is class 0, but stands in the place of class 1"),
        (("red_fox", "ant"), ("Ant", "Red fox"), "'red fox' is class 0, but stands in the place of class 1"),
        (INSECTS, ("wasp", "ant", "bee"), "'ant' is class 0, but stands in the place of class 1"),
        (INSECTS, INSECTS, None),
        (INSECTS, ("ants", "bees", "cicadas"), None),
        (("crane", "crane", "ant"), ("crane", "digger", "ant"), None),
        (("missile", "projectile, missile", "ant", "bee"), ("rocket", "missile", "ant", "bee"), None),
        ((), INSECTS, None),
    ],
)
def test_names_that_the_classes_have_in_another_order(
    tmp_path: Path, known: tuple[str, ...], names: tuple[str, ...], moved: str | None
) -> None:
    path = tmp_path / "l.txt"
    path.write_text("\n".join(names))
    if moved is None:
        assert read_labels(path, known=known).en == names
        return
    with pytest.raises(LabelsError, match=f"holds the names in another order: {moved}"):
        read_labels(path, known=known)


def test_json_text() -> None:
    assert parse_labels('{"en": ["ant", "bee"], "zh": ["蚂蚁", "蜜蜂"]}') == Labels(("ant", "bee"), ("蚂蚁", "蜜蜂"))
    with pytest.raises(LabelsError, match="Expecting value"):
        parse_labels("ant")


@pytest.mark.parametrize(
    "extras",
    [
        {"epoch": 3, "class_to_idx": {"bee": 1, "ant": 0, "cicada": 2}},
        {"idx_to_class": {0: "ant", 1: "bee", 2: "cicada"}, "class_to_idx": {"ant": 0, "bee": 1, "cicada": 2}},
        {"classes": list(INSECTS), "labels": [0, 2, 1], "names": ["conv1", "bn1"]},
        {"class_names": INSECTS, "classes": 3},
        {"hyper_parameters": {"lr": 0.1, "class_names": INSECTS, "classes": ["train", "val"]}},
        {"meta": {"CLASSES": INSECTS}},
        {"config": {"id2label": {0: "ant", 1: "bee", 2: "cicada"}}},
        {"labels": json.dumps({"en": INSECTS}), "input_size": "32"},
        {"id2label": '{"0": "ant", "1": "bee", "2": "cicada"}', "format": "pt"},
    ],
)
def test_names_inside_a_checkpoint(extras: dict[str, Any]) -> None:
    assert from_extras(extras, 3) == Labels(INSECTS)


@pytest.mark.parametrize("extras", [{}, {"classes": [0, 1, 2]}, {"classes": 3, "names": None}, {"labels": ["a", "b"]}])
def test_a_checkpoint_without_names(extras: dict[str, Any]) -> None:
    assert from_extras(extras, 3) is None


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ({"classes": ["ant", "bee"]}, "its 'classes' can't be used: 2 names, but the checkpoint has 3 classes"),
        ({"class_to_idx": {"ant": 1, "bee": 2, "cicada": 3}}, "its 'class_to_idx' can't be used: index 0 is missing"),
        ({"labels": "["}, "its 'labels' can't be used: Expecting value"),
        ({"labels": '["a", "b\\u0007", "c"]'}, "its 'labels' can't be used: the name of class 1, 'b\\x07', holds"),
        (
            {"classes": ["cicada", "bee", "ant"], "class_to_idx": {"ant": 0, "bee": 1, "cicada": 2}},
            "its 'classes' and 'class_to_idx' hold different names; say which with --labels",
        ),
    ],
)  # fmt: skip
def test_names_inside_a_checkpoint_that_can_not_be_right(extras: dict[str, Any], message: str) -> None:
    with pytest.raises(LabelsError) as raised:
        from_extras(extras, 3)
    assert str(raised.value).startswith(message)
