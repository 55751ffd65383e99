"""Lists to import: lines, CSV files and bookmark exports are told apart and read to the end, whatever is in them."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuze_bench.errors import InputError
from fuze_bench.pipeline.imports import Format, ImportItem, read_items

FIREFOX = """<!DOCTYPE NETSCAPE-Bookmark-file-1>
<!-- This is an automatically generated file. -->
<META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset=UTF-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'self'; img-src data: *"></meta>
<TITLE>Bookmarks</TITLE>
<H1>Bookmarks Menu</H1>

<DL><p>
    <DT><H3 ADD_DATE="1" LAST_MODIFIED="2">Folder &amp; more</H3>
    <DD>About the folder
    <DL><p>
        <DT><A HREF="https://a.org/?x=1&amp;y=2&copy=3" ADD_DATE="1" ICON="data:image/png;base64,AA==">Töst &lt;b&gt;
            twice</A>
        <DD>Some &quot;words&quot;
on two lines
        <HR>
        <DT><A HREF="javascript:alert(1)">Bookmarklet</A>
        <DT><A HREF="place:sort=8" TAGS="x">Recent</A>
    </DL><p>
    <DT><A HREF="https://b.org/">B</A>
    <DT><H3>Another folder</H3>
    <DD>About that one
    <DL><p></DL><p>
</DL>
"""
SAFARI = """<!DOCTYPE NETSCAPE-Bookmark-file-1>
\t<HTML>
\t<META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset=UTF-8">
\t<Title>Bookmarks</Title>
\t<H1>Bookmarks</H1>
\t<DT><H3 FOLDED>Favourites</H3>
\t<DL><p>
\t\t<DT><A HREF="https://www.apple.com/">Apple</A>
\t</DL><p>
\t<DL><p>
\t\t<DT><A HREF="https://c.org/">C</A>
\t</DL><p>
</HTML>
"""
POCKET = """<!DOCTYPE html>
<html>
\t<!--So long and thanks for all the fish-->
\t<head><meta charset="UTF-8"><title>Pocket Export</title></head>
\t<body>
\t\t<h1>Unread</h1>
\t\t<ul>
\t\t\t<li><a href="https://d.org/" time_added="1" tags="a,b">D</a></li>
\t\t</ul>
\t</body>
</html>
"""


def items(text: str | bytes, format: Format | None = None) -> list[ImportItem]:
    return list(read_items(text.encode() if isinstance(text, str) else text, format))


def test_lines_with_comments() -> None:
    text = "# my list\nhttps://a.org/#top  # the first\r\n\r\n  not a url \nftp://b.org/\n"
    assert items(text) == [
        ImportItem("https://a.org/#top", line=2),
        ImportItem("not a url", line=4),
        ImportItem("ftp://b.org/", line=5),
    ]
    assert items("") == items(" \n\n") == items("# nothing\n") == []


def test_the_export_of_a_browser() -> None:
    assert items(FIREFOX) == [
        ImportItem("https://a.org/?x=1&y=2&copy=3", "Töst <b> twice", 'Some "words"\non two lines', line=12),
        ImportItem("javascript:alert(1)", "Bookmarklet", line=17),
        ImportItem("place:sort=8", "Recent", line=18),
        ImportItem("https://b.org/", "B", line=20),
    ]
    assert [item.url for item in items(SAFARI)] == ["https://www.apple.com/", "https://c.org/"]
    assert items(POCKET) == [ImportItem("https://d.org/", "D", line=8)]
    assert items("<!DOCTYPE NETSCAPE-Bookmark-file-1>\n<DL></DL>") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (  # Pocket
            "title,url,time_added,tags,status\nA,https://a.org/,1,x|y,unread\n",
            [ImportItem("https://a.org/", "A", line=2)],
        ),
        (  # Instapaper
            'URL,Title,Selection,Folder,Timestamp\nhttps://a.org/,A,"said, so",Unread,1\n',
            [ImportItem("https://a.org/", "A", "said, so", 2)],
        ),
        (  # Raindrop
            "id,title,note,excerpt,url,folder,tags,created,cover,highlights,favorite\n"
            "1,A,,from the page,https://a.org/,F,,2026-01-01T00:00:00Z,https://a.org/c.png,,false\n"
            "2,B,mine,from the page,https://b.org/,F,,2026-01-01T00:00:00Z,,,true\n",
            [
                ImportItem("https://a.org/", "A", "from the page", 2),
                ImportItem("https://b.org/", "B", "mine", 3),
            ],
        ),
        (
            'Name;Address\r\n"a ""b""\r\nc";https://a.org/;more\r\n\r\nno address;\r\nshort\r\n',
            [
                ImportItem("https://a.org/", 'a "b"\r\nc', line=2),
                ImportItem("", "no address", line=5, problem="the line has no address"),
                ImportItem("", "short", line=6, problem="the line has no address"),
            ],
        ),
        ("\n LINK \t notes\nhttps://a.org/\tn\n", [ImportItem("https://a.org/", None, "n", 3)]),
        ("url\nhttps://a.org/\n", [ImportItem("https://a.org/", line=2)]),
    ],
)
def test_csv_files(text: str, expected: list[ImportItem]) -> None:
    assert items(text) == items(text, Format.CSV) == expected


def test_a_csv_line_that_is_broken_leaves_the_others_alone() -> None:
    first, broken, last, open_end = items('url,title\na:1,"x"\na:2,"y"z\na:3,"u"\na:4,"v\nb\nc\n')
    assert (first.url, first.title) == ("a:1", "x")
    assert (broken.line, broken.url) == (3, "")
    assert "cannot be read as CSV" in (broken.problem or "")
    assert (last.url, last.title) == ("a:3", "u")
    assert open_end.line == 5
    assert open_end.problem == "a quotation mark is never closed: the 2 lines behind this one were not read"


def test_a_field_may_hold_a_whole_article() -> None:
    article = "word " * 100_000
    assert items(f'url,note\nhttps://a.org/,"{article}"\n')[0].description == article.strip()


@pytest.mark.parametrize(
    ("encoding", "title"),
    [("utf-8", "ü 漢"), ("utf-8-sig", "ü 漢"), ("utf-16", "ü 漢"), ("cp1252", "ü “q”"), ("latin-1", "ü")],
)
@pytest.mark.parametrize("text", ["url,title\nhttps://a.org/,{}\n", "<DT><A HREF='https://a.org/'>{}</A>"])
def test_encodings(text: str, encoding: str, title: str) -> None:
    [item] = items(text.format(title).encode(encoding))
    assert (item.url, item.title) == ("https://a.org/", title)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not text"),
        (b"PK\x03\x04\x14\0\0\0", "not text"),
        ("https://a.org/".encode("utf-16")[2:], "not text"),
        (b"<html><body><p>Hello</p><li><a href='https://a.org/'>a</a></body></html>", "looks like HTML"),
        (b"<?xml version='1.0'?><opml></opml>", "looks like HTML or XML"),
        (b'{"bookmarks": []}', "its first entry is '{\"bookmarks\": []}'"),
        (b"name,age\nAnna,3\n", "its first entry is 'name,age'"),
    ],
)
def test_what_is_no_list_is_said_so_in_one_line(data: bytes, says: str) -> None:
    with pytest.raises(InputError) as caught:
        items(data)
    assert says in str(caught.value)
    assert "is neither a list of addresses" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_format_that_is_named_is_held_to() -> None:
    assert items("name,age\n", Format.LINES) == [ImportItem("name,age", line=1)]
    with pytest.raises(InputError, match="names no column url, address, link, href"):
        items("name,age\n", Format.CSV)
    with pytest.raises(InputError, match="holds no bookmarks"):
        items("https://a.org/\n", Format.HTML)
    for each in Format:
        with pytest.raises(InputError, match="is not text"):
            items(b"PK\x03\x04\x14\0\0\0\nurl\n", each)


def test_folders_in_folders() -> None:
    def nested(depth: int) -> str:
        folders = "<DT><H3>f</H3>\n<DL><p>\n" * depth
        return f"<!DOCTYPE NETSCAPE-Bookmark-file-1>\n{folders}<DT><A HREF='https://a.org/'>a</A>"

    assert [item.url for item in items(nested(300))] == ["https://a.org/"]
    with pytest.raises(InputError, match="line 1003: the folders lie more than 500 deep"):
        items(nested(2_000))


def test_a_large_export_is_read_in_little_memory() -> None:
    """Icons make most of it; what is held beside the file is one line and the entries."""
    icon = "A" * 4_000
    row = f'<DT><A HREF="https://a.org/%d" ICON="data:image/png;base64,{icon}">t</A>\n'
    data = ("<!DOCTYPE NETSCAPE-Bookmark-file-1>\n" + "".join(row % n for n in range(2_000))).encode()
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_items(data)) == 2_000
        assert tracemalloc.get_traced_memory()[1] < len(data) / 4
    finally:
        tracemalloc.stop()


PIECES = st.sampled_from(
    [
        *("url", ",", ";", "\t", '"', "\n", "\r", "\0", " ", "#", "\x85", "\u2028", "\U0001f600"),
        *("<", ">", "&", "&#0;", "<!--", "<DT>", "<DL>", "</DL>", "<A HREF=", "</A>", "<DD>"),
        *("<!DOCTYPE NETSCAPE-Bookmark-file-1>", "https://a.org/"),
    ]
)


@given(
    data=st.one_of(
        st.binary(), st.lists(PIECES).map(lambda pieces: "".join(pieces).encode()), st.text().map(str.encode)
    ),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"]),
    format=st.sampled_from([None, *Format]),
)
def test_nothing_breaks_it(data: bytes, mark: bytes, format: Format | None) -> None:
    try:
        found = items(mark + data, format)
    except InputError:
        return
    lines = [item.line or 0 for item in found]
    assert lines == sorted(lines)
