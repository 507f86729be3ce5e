"""Tables of pictures: who goes where, and what is said about tables that do not fit."""

import pyarrow
import pytest
from pyarrow import parquet

from finetune.datasets import ImageFolder, ImageTable
from finetune.datasets.image_table import class_names
from finetune.errors import DataError
from tests.datasets.pictures import SIDE, pairs, two_classes

SPLITS = ("train", "validation", "test", "calibration")


@pytest.fixture
def place(tmp_path):
    return two_classes(tmp_path / "photos", cats=10, dogs=20).parent


def rows(place):
    return [(str(file.relative_to(place)), file.parent.name) for file in sorted(place.rglob("*.png"))]


def write(place, lines, name="all.csv"):
    (place / name).write_text("\n".join(lines) + "\n")
    return place / name


def load(table, **keys):
    return ImageTable(path=str(table), **keys).load(SIDE, 0)


def problems(table, **keys):
    with pytest.raises(DataError) as refused:
        load(table, **keys)
    return list(refused.value.problems)


def all_pairs(splits):
    return {name: pairs(getattr(splits, name)) for name in SPLITS}


def test_a_table_of_what_folders_say_gives_what_the_folders_give(place):
    # apart from their order, which the ids decide
    table = write(place, ["path,label", *(",".join(row) for row in rows(place))])
    listed, found = load(table), ImageFolder(path=str(place / "photos")).load(SIDE, 0)
    assert listed.class_names == found.class_names == ("cat", "dog")
    everything = sorted(pair for name in SPLITS[:3] for pair in pairs(getattr(listed, name)))
    assert everything == sorted(pair for name in SPLITS[:3] for pair in pairs(getattr(found, name)))
    assert listed.train.count == found.train.count


def test_csv_tsv_and_parquet_are_the_same_table(place):
    some = rows(place)
    files = [
        write(place, ["path,label", *(",".join(row) for row in some)]),
        write(place, ["path\tlabel", *("\t".join(row) for row in some)], "all.tsv"),
        place / "all.parquet",
    ]
    columns = dict(zip(("path", "label"), zip(*some, strict=True), strict=True))
    parquet.write_table(pyarrow.table(columns), files[2])
    one, *others = [all_pairs(load(file)) for file in files]
    assert others == [one, one]


def test_a_column_may_say_which_split_an_image_is_in(place):
    names = ("train", "validation", "test", "calibration", "train")
    some = [(*row, names[number % 5]) for number, row in enumerate(rows(place))]
    table = write(place, ["file,kind,part", *(",".join(row) for row in some)])
    splits = load(table, path_column="file", label_column="kind", split_column="part")
    assert [getattr(splits, name).count for name in SPLITS] == [12, 6, 6, 6]


def test_paths_are_relative_to_the_table_or_to_what_root_says(place):
    elsewhere = place / "tables"
    elsewhere.mkdir()
    table = write(elsewhere, ["path,label", *(",".join(row) for row in rows(place))])
    assert "and 25 more" in problems(table)[0]
    assert load(table, root=str(place)).train.count == 24


def test_numbers_are_classes_in_their_order_and_text_stays_text(place):
    numbered = [f"{path},{2 if label == 'cat' else 10}" for path, label in rows(place)]
    assert load(write(place, ["path,label", *numbered])).class_names == ("2", "10")
    named = [f"{path},{'007' if label == 'cat' else '7'}" for path, label in rows(place)]
    assert load(write(place, ["path,label", *named])).class_names == ("007", "7")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["--5", "4"], ("--5", "4")),
        (["1.5", "10", "9"], ("1.5", "10", "9")),
    ],
)
def test_labels_are_sorted_as_numbers_where_all_are(labels, expected):
    assert class_names(iter(labels)) == expected


def test_columns_that_are_not_there_are_named_all_at_once(place):
    table = write(place, ["file,kind", "a.png,cat"])
    assert problems(table, split_column="part") == [
        f"data.path_column: {table} has no column 'path', but file, kind",
        f"data.label_column: {table} has no column 'label', but file, kind",
        f"data.split_column: {table} has no column 'part', but file, kind",
    ]


def test_every_problem_of_the_rows_is_told_at_once(place):
    lines = ["path,label,split", "gone.png,cat,train", "photos/cat/0.png,,train", "photos/cat/0.png,cat,val"]
    table = write(place, lines)
    assert problems(table, split_column="split") == [
        f"data.path: {table} lists files that are not there (relative to {place}; set root): gone.png",
        f"data.path: {table} lists files twice: photos/cat/0.png",
        f"data.path: {table} has rows without label: row 3",
        f"data.split_column: {table} has splits that are none of train, validation, test, calibration: 'val'",
        f"data.split_column: {table} has no validation data",
        f"data.split_column: {table} has no test data",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("all.xls", b"", "expected a .csv, .tsv or .parquet table"),
        ("all.parquet", b"no table", "cannot be read as a table: "),
        ("all.csv", b"path,label\na,b,c\n", "cannot be read as a table: "),
        ("all.csv", b"", "cannot be read as a table: "),
        ("all.csv", b"path,label\n", "has no row"),
        ("all.csv", b"path,label\n\xff\xfe,cat\n", "cannot be read as a table: "),
    ],
)
def test_what_is_no_table_is_one_line(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    (line,) = problems(tmp_path / name)
    assert said in line
    assert "\n" not in line


def test_a_table_that_is_not_there_is_one_line(tmp_path):
    assert problems(tmp_path / "all.csv") == [f"data.path: there is no file {tmp_path / 'all.csv'}"]


def test_one_class_is_too_few(place):
    table = write(place, ["path,label", "photos/cat/0.png,cat", "photos/cat/1.png,cat"])
    assert problems(table) == [f"data.path: {table} has one class only, cat; at least two are needed"]


def test_a_cell_may_have_several_classes_or_none(place):
    some = rows(place)
    cells = ["cat", "dog;cat", "", " dog ; bird"]
    lines = [f"{path},{cells[number % 4]}" for number, (path, _) in enumerate(some)]
    splits = load(write(place, ["path,label", *lines]), label_separator=";")
    assert splits.multi_label
    assert splits.class_names == ("bird", "cat", "dog")
    found = sorted(
        tuple(label.numpy().tolist()) for name in SPLITS[:3] for _, label in getattr(splits, name).examples
    )
    expected = [(0, 1, 0), (0, 1, 1), (0, 0, 0), (1, 0, 1)]
    assert found == sorted(expected[number % 4] for number in range(len(some)))
    # every class is in every split, although a bird is on every fourth picture only
    assert all(
        sum(label.numpy() for _, label in getattr(splits, name).examples).min() > 0 for name in SPLITS[:3]
    )


def test_without_a_separator_a_cell_is_one_class_and_needs_one(place):
    some = [path for path, _ in rows(place)]
    lines = [f"{path},{'a;b' if number else ''}" for number, path in enumerate(some)]
    table = write(place, ["path,label", *lines])
    assert any("rows without label" in problem for problem in problems(table))
    assert problems(table, label_separator=",") == [
        f"data.path: {table} has one class only, a;b; at least two are needed"
    ]


def test_a_class_that_is_too_rare_to_be_divided_is_named(place):
    some = [path for path, _ in rows(place)]
    lines = [f"{path},{'a;b' if number < 2 else 'a'}" for number, path in enumerate(some)]
    table = write(place, ["path,label", *lines])
    assert problems(table, label_separator=";") == [
        "data.fractions: class b has 2 images, too few for train, validation, test"
    ]
