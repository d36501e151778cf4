"""CSV tables in the dialects of people and tools."""

from pathlib import Path

import pytest

from classifier.data.readers.csv_rows import HEAD_BYTES, read_csv_rows
from classifier.errors import DataError

ROWS = [("a/1.png", "cat"), ("a/2.png", "dog")]


def read(path: Path, wanted: tuple[str, ...] = ("path", "label", "split")) -> list[tuple[str, str]]:
    return [(row["path"], row["label"].strip()) for _, row in read_csv_rows(path, wanted)]


def lines(pattern: str, header: str | None = "path,label") -> str:
    body = [pattern.format(path=path, label=label, n=n) for n, (path, label) in enumerate(ROWS)]
    return "\n".join([*([header] if header else []), *body]) + "\n"


DIALECTS = {
    "commas": lines("{path},{label}"),
    "semicolons": lines("{path};{label}", "path;label"),
    "tabs": lines("{path}\t{label}", "path\tlabel"),
    "bars": lines("{path}|{label}", "path|label"),
    "blanks after commas": lines('"{path}", "{label}"', "path, label"),
    "blanks around names": lines("{path},{label}", "path , label "),
    "Excel": lines("{path};{label}", "sep=;\npath;label"),
    "double quotes": lines('"{path}","{label}"', '"path","label"'),
    "single quotes": lines("'{path}','{label}'", "'path','label'"),
    "capitals": lines("{path},{label}", "Path,LABEL"),
    "an index": lines("{n},{path},{label}", ",path,label"),
    "empty cells at the end": lines("{path},{label},,", "path,label") + ",,,\n",
    "blank lines first": "\n\n" + lines("{path},{label}"),
    "no names": lines("{path},{label}", None),
    "no names, label first": lines("{label};{path}", None),
    "no names, splits": lines("{path},{label},train", None),
    "Windows": lines("{path},{label}").replace("\n", "\r\n"),
    "an old Mac": lines("{path},{label}").replace("\n", "\r"),
    "no last line end": lines("{path},{label}").rstrip("\n"),
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_dialects(name: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_bytes(DIALECTS[name].encode(encoding))
    assert read(tmp_path / "set.csv") == ROWS


def test_values_with_delimiters_quotes_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text('path,label,split\n"a, b.png","say ""cat""\nor dog",\n', newline="")
    assert [row for _, row in read_csv_rows(path, ("path", "label", "split"))] == [
        {"path": "a, b.png", "label": 'say "cat"\nor dog', "split": ""}
    ]


def test_a_long_table_with_a_letter_across_the_end_of_what_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    for shift in range(3):
        rows = [("x" * shift + "\u20ac" * 20 + f"{n}.png", "cat") for n in range(HEAD_BYTES // 60)]
        path.write_text("path,label\n" + "".join(f"{name},{label}\n" for name, label in rows), encoding="utf-8")
        assert read(path) == rows


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"line 1: there is no column path \(only none\)"),
        ("path;class\n", r"there is no column label \(only path, class\)"),
        ("a.png,b.png\n", "there is no column path"),
        ("a.png,1,2\n", "there is no column path"),
        ("path,label\na.png,cat,dog\n", "line 2 has 3 values, but the first line 2"),
        ("path,label\na.png\n", "line 2 has 1 values"),
        ('path,label\n"a.png,cat\n', "is not a CSV table"),
        ("path,label\na.png," + "x" * 200_000, "is not a CSV table"),
    ],
)
def test_errors(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(DataError, match=reason):
        read(tmp_path / "set.csv")


def test_other_encodings(tmp_path: Path) -> None:
    text = lines("{path},p\u00e4r")
    for content in (text.encode("latin-1"), text.encode("utf-16-le"), lines("a").encode() * 9000 + b"\xe4"):
        (tmp_path / "set.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"set\.csv (is not UTF-8 text|line 2)"):
            read(tmp_path / "set.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "gone.csv")
