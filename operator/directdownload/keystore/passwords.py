"""Reads the password of a keystore from the host. Called by the agent and by `directdownload keystore`.

No message contains a password, or a line that may hold one.
"""

import javaproperties

from directdownload.keystore import errors, files

#: The name of the property in CloudStack's agent.
PROPERTY = "keystore.passphrase"
_LIMIT_BYTES = 1024**2


def from_agent_properties(path: str) -> str:
    """The value of `keystore.passphrase`, as java.util.Properties reads it. Raises PasswordMissingError."""
    data = _read(path)
    try:
        properties: dict[str, str] = javaproperties.loads(data)
    except ValueError:
        raise errors.PasswordMissingError(
            f"{path} is not a properties file: expected four hexadecimal digits after each \\u; correct it"
        ) from None
    return _present(properties.get(PROPERTY, ""), f"{path} has no value for {PROPERTY}; expected a line {PROPERTY}=…")


def from_file(path: str) -> str:
    """The whole file, in UTF-8, without one newline at its end. Raises PasswordMissingError."""
    try:
        text = _read(path).decode()
    except UnicodeDecodeError:
        raise errors.PasswordMissingError(f"{path} does not hold a password: expected text in UTF-8") from None
    return _present(text.removesuffix("\n").removesuffix("\r"), f"{path} is empty; expected the keystore's password")


def _read(path: str) -> bytes:
    try:
        content = files.read(files.real(path), _LIMIT_BYTES)
    except errors.UnreadableError as error:
        raise errors.PasswordMissingError(f"{error}; expected the keystore's password in it") from error
    if content is None:
        raise errors.PasswordMissingError(f"{path} does not exist; expected the keystore's password in it")
    return content.data


def _present(password: str, message: str) -> str:
    if not password:
        raise errors.PasswordMissingError(message)
    return password
