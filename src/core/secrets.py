"""Secrets in URLs: named before they are kept, filled in from the environment, never shown."""

import os
import re
from urllib.parse import quote, unquote

from src.core.errors import InputError

# Parameters whose value lets in who has it, in any spelling: X-Amz-Signature, accessToken, pwd.
_NAME = re.compile(
    r"(token|secret|passw(or)?d|passphrase|signature|credentials?|hmac|session([-_]?id)?"
    r"|key([-_]?id)?"
    r"|(^|[^a-z])(code|pass|pwd|pw|sig|sign|sas|auth|authorization|jwt|bearer|ticket))(\[\])?$",
    re.IGNORECASE,
)
_PARAMETER = re.compile(r"[?&;#]([^=&;#?]+)=([^&;#\s'\"]*)")
_VARIABLE = re.compile(r"\$([A-Z_][A-Z0-9_]*)")
_SHORT = 4  # characters, below which a value of the environment is no secret

_filled: dict[str, str] = {}  # the variables that were filled in, by their values


def secret_in(place: str) -> str:
    """Name the part of a URL, or of a chain of them, that is a secret; "" if there is none.

    What `filled` fills in is none.
    """
    for url in place.split("::"):
        if "://" not in url:
            continue
        authority = re.search(r"://([^/?\s]*)@", url)
        user, _, password = (authority[1] if authority else "").partition(":")
        if _VARIABLE.sub("", password):
            return "a password"
        if _VARIABLE.sub("", user) and url.lower().startswith("http") and not password:
            return "a user name alone, as tokens are given,"
        for name, value in _PARAMETER.findall(url):
            if _NAME.search(unquote(name)) and _VARIABLE.sub("", value):
                return f"the parameter {name}"
    return ""


def refuse_secret(place: str, setting: str) -> None:
    """Stop before a secret in a URL is kept where git and DVC's remotes would have it.

    Raises:
        InputError: there is one.
    """
    if part := secret_in(place):
        raise InputError(
            f"{setting} has a secret in {without_secrets(place)}, {part}, which params.yaml and "
            "dvc.lock would keep for everyone: write $NAME in its place, and set the variable NAME "
            "in the environment of those who may read it."
        )


def filled(place: str, setting: str) -> str:
    """Return a URL with each $NAME replaced by that variable of the environment.

    Raises:
        InputError: there is no such variable.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise InputError(
                f"{setting} names the variable {found[1]}, in {without_secrets(place)}, and the "
                "environment has none of this name: set it."
            )
        secret = os.environ[found[1]]
        if len(secret) >= _SHORT:
            _filled[secret] = _filled[quote(secret, safe="")] = found[0]
        return secret

    return _VARIABLE.sub(value, place) if "://" in place else place


def without_secrets(text: str) -> str:
    """Remove what may be a secret from URLs: what is before @, parameters, what was filled in."""
    for secret, variable in _filled.items():
        text = text.replace(secret, variable)
    text = re.sub(r"(?<=://)[^/\s'\"]*@", "", text)
    text = re.sub(r"(://[^\s'\"?#;]*)[?#;][^\s'\"]*", r"\1", text)
    # As HTTP libraries quote it in their messages, without the host.
    return re.sub(r"(url: /[^\s'\"?#;]*)[?#;][^\s'\"]*", r"\1", text)
