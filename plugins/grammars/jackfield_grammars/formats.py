"""The formats of JSON Schema as regexes for whole strings.

Every string that matches is valid; the rare ones that are valid too (leap seconds, 29 February,
quoted mail addresses) do not all match. Other formats are annotations: draft 2020-12 defines none.
"""

from __future__ import annotations

_DATE = (
    r"[12][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"
    r"|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_TIME = (
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9]|-[a-zA-Z0-9]){0,20}"
_HOSTNAME = rf"{_LABEL}(\.{_LABEL}){{0,4}}"
_ATOM = r"[a-zA-Z0-9_%+-]+"
_EMAIL = rf"{_ATOM}(\.{_ATOM})*@{_HOSTNAME}"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HEX = r"[0-9a-fA-F]"
_CHARACTER = rf"([a-zA-Z0-9._~!$&()*+,;=:@-]|%{_HEX}{{2}})"
_PATH = rf"(/{_CHARACTER}*)*"
_REST = rf"{_PATH}(\?({_CHARACTER}|[/?])*)?(#({_CHARACTER}|[/?])*)?"
_URI = rf"([a-z][a-z0-9+.-]*://{_HOSTNAME}(:[0-9]{{1,5}})?{_REST}|(mailto|tel|urn):{_CHARACTER}+)"
_CLOCK = r"(T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))"
_DAYS = r"([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)"
_POINTER = r"(/([a-zA-Z0-9_. -]|~[01])*)*"

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": rf"{_DATE}T{_TIME}",
    "duration": rf"P({_DAYS}{_CLOCK}?|{_CLOCK}|[0-9]+W)",
    "email": _EMAIL,
    "idn-email": _EMAIL,
    "hostname": _HOSTNAME,
    "idn-hostname": _HOSTNAME,
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "ipv6": rf"({_HEX}{{1,4}}:){{7}}{_HEX}{{1,4}}",
    "uuid": rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    "uri": _URI,
    "iri": _URI,
    "uri-reference": rf"({_URI}|/{_CHARACTER}+{_REST})",
    "iri-reference": rf"({_URI}|/{_CHARACTER}+{_REST})",
    "uri-template": _URI,
    "json-pointer": _POINTER,
    "relative-json-pointer": rf"(0|[1-9][0-9]*)(#|{_POINTER})",
    "regex": r"[a-zA-Z0-9_ ]*",
}
