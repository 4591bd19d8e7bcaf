"""Where a password comes from, read as Java reads it; no message ever has one."""

import pathlib
from collections.abc import Callable

import pytest
from tests.unit.keystore import support

from directdownload.keystore import errors, passwords

SECRET = "s3cret-passphrase"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"keystore.passphrase={SECRET}\n", SECRET),
        (f"#a comment\r\n! another\r\n\r\nhost=10.0.0.1\r\nkeystore.passphrase={SECRET}\r\nport=8250\r\n", SECRET),
        (f"  keystore.passphrase : {SECRET}", SECRET),
        (f"keystore.passphrase {SECRET}\r", SECRET),
        (f"keystore\\.passphrase\t=\t{SECRET}", SECRET),
        ("keystore.passphrase=first\nkeystore.passphrase=last\n", "last"),
        ("keystore.passphrase=one\\\n   two\\\r\n\tthree\n", "onetwothree"),
        ("keystore.passphrase=a\\=b\\:c\\#d\\!e\\\\f\\tg\\q", "a=b:c#d!e\\f\tgq"),
        ("keystore.passphrase=trailing blank ", "trailing blank "),
        ("keystore.passphrase=gr\\u00fc\\u00DFe\\uD83D\\uDD11", "grüße\N{KEY}"),
        ("keystore.passphrase=a=b==", "a=b=="),
        ("#keystore.passphrase=old\\\nkeystore.passphrase=new", "new"),
    ],
)
def test_agent_properties_are_read_as_java_reads_them(tmp_path: pathlib.Path, text: str, expected: str) -> None:
    path = tmp_path / "agent.properties"
    path.write_bytes(text.encode("ascii"))
    assert passwords.from_agent_properties(str(path)) == expected


def test_agent_properties_are_latin_1(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "agent.properties"
    path.write_bytes("keystore.passphrase=grüße\n".encode("latin-1"))
    assert passwords.from_agent_properties(str(path)) == "grüße"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "has no value for keystore.passphrase"),
        (b"keystore.passphrase=\n", "has no value for keystore.passphrase"),
        (
            f"#keystore.passphrase={SECRET}\nKeystore.Passphrase={SECRET}".encode(),
            "expected a line keystore.passphrase=",
        ),
        (f"keystore.passphrase={SECRET}\\u12x4".encode(), "is not a properties file"),
        (SECRET.encode() * 100_000, "expected at most 1048576 bytes"),
    ],
)
def test_a_password_that_is_not_in_agent_properties_is_told(tmp_path: pathlib.Path, data: bytes, words: str) -> None:
    path = tmp_path / "agent.properties"
    path.write_bytes(data)
    with pytest.raises(errors.PasswordMissingError, match=words) as caught:
        passwords.from_agent_properties(str(path))
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b" two\n\n", " two\n"),
        ("ü".encode(), "ü"),
    ],
)
def test_a_password_file_loses_one_newline_only(tmp_path: pathlib.Path, data: bytes, expected: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(data)
    assert passwords.from_file(str(path)) == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff" + SECRET.encode(), "in UTF-8"), (bytes(2**20 + 1), "at most")],
)
def test_a_file_without_a_password_is_told(tmp_path: pathlib.Path, data: bytes, words: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(data)
    with pytest.raises(errors.PasswordMissingError, match=words) as caught:
        passwords.from_file(str(path))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("read", [passwords.from_file, passwords.from_agent_properties])
@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "loop"])
def test_what_is_no_file_is_told_and_never_waited_for(
    tmp_path: pathlib.Path, kind: str, read: Callable[[str], str]
) -> None:
    path = tmp_path / "secret"
    support.no_file(path, kind)
    with pytest.raises(errors.PasswordMissingError, match=f"{path} .*expected the keystore's password in it"):
        read(str(path))


def test_a_link_is_followed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("secret")
    (tmp_path / "link").symlink_to("file")
    assert passwords.from_file(str(tmp_path / "link")) == "secret"
