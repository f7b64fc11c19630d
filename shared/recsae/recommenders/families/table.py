"""The model families by name. A new one is a module beside this and a line here."""

from __future__ import annotations

from recsae.errors import NotFoundError
from recsae.recommenders.families.bpr import BPR
from recsae.recommenders.families.comirec import COMIREC
from recsae.recommenders.families.din_family import DIN
from recsae.recommenders.families.family import Family
from recsae.recommenders.families.gru4rec import GRU4REC
from recsae.recommenders.families.lightgcn import LIGHTGCN
from recsae.recommenders.families.sasrec import SASREC
from recsae.recommenders.families.two_tower import TWO_TOWER

FAMILIES: tuple[Family, ...] = (SASREC, GRU4REC, COMIREC, BPR, LIGHTGCN, TWO_TOWER, DIN)
DEFAULT = SASREC.name


def family(name: str) -> Family:
    """The family of that name; NotFoundError lists those there are."""
    found = {one.name: one for one in FAMILIES}
    if name not in found:
        raise NotFoundError(f"there is no model family {name!r}; take one of {', '.join(found)}")
    return found[name]
