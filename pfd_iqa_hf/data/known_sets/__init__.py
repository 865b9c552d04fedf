"""Published sets of pictures with human scores, read from the folders their authors distribute.

Official and community copies are understood, whatever the case of their names. Every set yields the
same table: a picture's path and its mean opinion score on 0 to 100, higher is better, whatever the
set's own scale is.
"""

from __future__ import annotations

import re

from pfd_iqa_hf.data.known_sets.biq2021 import BIQ2021, load_biq2021
from pfd_iqa_hf.data.known_sets.csiq import CSIQ
from pfd_iqa_hf.data.known_sets.kadid10k import KADID10K
from pfd_iqa_hf.data.known_sets.koniq10k import KONIQ10K
from pfd_iqa_hf.data.known_sets.live import LIVE
from pfd_iqa_hf.data.known_sets.livec import LIVEC, load_livec
from pfd_iqa_hf.data.known_sets.livefb import LIVEFB
from pfd_iqa_hf.data.known_sets.set_folder import KnownSet, SetFolder
from pfd_iqa_hf.data.known_sets.spaq import SPAQ
from pfd_iqa_hf.data.known_sets.tid2013 import TID2013
from pfd_iqa_hf.data.splits import content_hash, validation_split
from pfd_iqa_hf.data.table import Rating

__all__ = [
    "KNOWN_SETS",
    "KnownSet",
    "Rating",
    "SetFolder",
    "content_hash",
    "known_set",
    "load_biq2021",
    "load_livec",
    "validation_split",
]

KNOWN_SETS: tuple[KnownSet, ...] = (
    LIVE,
    CSIQ,
    TID2013,
    KADID10K,
    LIVEC,
    KONIQ10K,
    LIVEFB,
    SPAQ,
    BIQ2021,
)
"""The eight sets of the paper, and BIQ2021."""

_OTHER_NAMES = {
    "clive": "livec",
    "livechallenge": "livec",
    "liveitw": "livec",
    "flive": "livefb",
    "koniq": "koniq10k",
    "kadid": "kadid10k",
}


def known_set(name: str) -> KnownSet | None:
    """The known set of that name; case, blanks, hyphens and underscores do not matter.

    Example:
        >>> known_set("KonIQ-10k") is known_set("koniq10k")
        True
    """
    plain = re.sub(r"[\s_-]", "", name.casefold())
    plain = _OTHER_NAMES.get(plain, plain)
    for item in KNOWN_SETS:
        if re.sub(r"[\s_-]", "", item.name.casefold()) == plain:
            return item
    return None
