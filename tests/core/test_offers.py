"""Offers as they cross the wire."""

import math

import msgspec
import pytest

from edgerm_core.ids import AgentId, OfferId
from edgerm_core.offers import Offer
from edgerm_core.resources import Resources

OFFER = Offer(OfferId(1), AgentId("a"), "gw", Resources.parse("cpus:1"), expires_s=60.0)


def test_an_offer_comes_back_as_it_was() -> None:
    assert msgspec.convert(msgspec.to_builtins(OFFER), Offer) == OFFER


@pytest.mark.parametrize(("position", "value"), [(0, 0), (0, -1), (7, -1.0), (7, math.nan), (7, math.inf)])
def test_an_offer_that_makes_no_sense_is_refused(position: int, value: object) -> None:
    raw = list(msgspec.to_builtins(OFFER))
    raw[position] = value
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(raw, Offer)
