"""Resources: exact quantities that are offered, requested, granted and given back.

Two nouns, never mixed:

`Resources` are concrete: 1.5 CPUs, the ports 31000 to 31009, two slots of the device `cam0`. Totals,
free amounts and allocations are `Resources`; adding and taking back always returns to the start.

`ResourceRequest` is what a task asks for: amounts ("two ports", "one camera"), and where it must be
so, concrete pieces ("port 8080"). `grant` turns a request into `Resources` out of what is free.

Scalars are integers of 1/1000 (Mesos does the same), rounded to nearest when read; `mem` and `disk`
are in MiB. The text form is Mesos's: `cpus:1.5;mem:512;ports:[31000-32000];zones:{a,b}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Final, Self

import msgspec

from edgerm_core.attributes import Attributes, Constraint, satisfies
from edgerm_core.errors import ResourceError
from edgerm_core.values import Count

Ranges = tuple[tuple[Count, Count], ...]
"""Sorted, disjoint, not adjacent, both ends included."""

UNIT: Final = 1000
"""Parts of one: the fixed point of every scalar."""

MAX_MILLI: Final = 10**15
"""Largest scalar, in 1/1000: a trillion. Keeps every sum within 64 bits for other languages."""

MAX_SLOTS: Final = 1_000_000
"""Tasks that can share one device."""

_NAME = re.compile(r"[a-z][a-z0-9_.]{0,31}")

ResourceName = Annotated[str, msgspec.Meta(pattern=rf"\A{_NAME.pattern}\Z")]
_MIB_UNITS: Final = {
    "": Decimal(1),
    "kib": Decimal(1) / 1024,
    "mib": Decimal(1),
    "gib": Decimal(1024),
    "tib": Decimal(1024 * 1024),
    "kb": Decimal(1000) / (1 << 20),
    "mb": Decimal(1000_000) / (1 << 20),
    "gb": Decimal(1000_000_000) / (1 << 20),
}
BYTE_SCALARS: Final = frozenset({"mem", "disk"})
"""Scalars measured in MiB, whose text may carry a unit: `mem:64MiB`, `disk:2GiB`."""

BYTES_PER_MIB: Final = 1 << 20


def parse_scalar(name: str, text: str | int | float) -> int:
    """Return the amount in 1/1000.

    Raises:
        ResourceError: if it is no number, negative, too large, or positive but rounds to zero
            (asking for 0.0001 CPU and getting none would be a silent lie).
    """
    raw = str(text).strip()
    match = re.fullmatch(r"([0-9.eE+-]+)\s*([A-Za-z]*)", raw)
    factor = _MIB_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None or (match[2] and name not in BYTE_SCALARS):
        expected = "a number, or one with a unit such as 64MiB" if name in BYTE_SCALARS else "a number"
        raise ResourceError(f"{name}: {raw[:40]!r} is not an amount: expected {expected}")
    try:
        number = Decimal(match[1])
        value = number * factor * UNIT
        milli = int(value.to_integral_value(rounding=ROUND_HALF_EVEN)) if abs(value) <= MAX_MILLI else -1
    except (ArithmeticError, ValueError):  # Among them decimal's own Overflow, for 1e999999999.
        raise ResourceError(f"{name}: {raw[:40]!r} is not a number") from None
    if milli < 0:
        raise ResourceError(f"{name}: {raw[:40]} is out of range: expected 0 to {MAX_MILLI // UNIT}")
    if milli == 0 and number > 0:
        raise ResourceError(f"{name}: {raw[:40]} is below 0.001, the smallest amount there is")
    return milli


def format_milli(milli: int) -> str:
    """Return `1500` as `1.5`."""
    whole, part = divmod(abs(milli), UNIT)
    text = f"{whole}.{part:03d}".rstrip("0").rstrip(".") if part else str(whole)
    return f"-{text}" if milli < 0 else text


def normal_ranges(pieces: Iterable[tuple[int, int]]) -> Ranges:
    """Return the pieces sorted and merged; adjacent pieces become one.

    Raises:
        ResourceError: if a piece ends before it begins or is negative.
    """
    merged: list[tuple[int, int]] = []
    for low, high in sorted(pieces):
        if low < 0 or high < low:
            raise ResourceError(f"range [{low}-{high}] is empty or negative")
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def subtract_ranges(have: Ranges, take: Ranges) -> Ranges:
    """Return what of `have` is not in `take`."""
    left: list[tuple[int, int]] = []
    for low, high in have:
        for cut_low, cut_high in take:
            if cut_high < low or cut_low > high:
                continue
            if cut_low > low:
                left.append((low, cut_low - 1))
            low = cut_high + 1
            if low > high:
                break
        if low <= high:
            left.append((low, high))
    return tuple(left)


def ranges_contain(have: Ranges, want: Ranges) -> bool:
    """Return whether every value of `want` is in `have`."""
    return not subtract_ranges(want, have)


def count_ranges(ranges: Ranges) -> int:
    """Return how many values the ranges hold."""
    return sum(high - low + 1 for low, high in ranges)


def _first_values(ranges: Ranges, count: int) -> Ranges:
    taken: list[tuple[int, int]] = []
    for low, high in ranges:
        if count <= 0:
            break
        end = min(high, low + count - 1)
        taken.append((low, end))
        count -= end - low + 1
    return tuple(taken)


class Resources(msgspec.Struct, frozen=True, array_like=True):
    """Concrete amounts of one machine, or granted to one task.

    Attributes:
        scalars: name to 1/1000 units; zero amounts are left out.
        ranges: name to sorted disjoint ranges, both ends included.
        sets: name to elements.
        devices: device id to slots; an exclusive device has one slot, one shared by n has n.
    """

    scalars: dict[ResourceName, int] = {}
    ranges: dict[ResourceName, Ranges] = {}
    sets: dict[ResourceName, frozenset[str]] = {}
    devices: dict[str, int] = {}

    def __post_init__(self) -> None:
        for name, milli in self.scalars.items():
            if not 0 < milli <= MAX_MILLI:
                raise ResourceError(f"{name}: {format_milli(milli)} is out of range")
        for device, slots in self.devices.items():
            if not 0 < slots <= MAX_SLOTS:
                raise ResourceError(f"device {device}: {slots} slots make no sense")
        for name, ranges in self.ranges.items():
            if not ranges or normal_ranges(ranges) != ranges:
                raise ResourceError(f"{name}: ranges must be sorted, disjoint and not empty")
        for name, elements in self.sets.items():
            if not elements:
                raise ResourceError(f"{name}: a set must not be empty")

    @classmethod
    def parse(cls, text: str | Mapping[str, object]) -> Self:
        """Read `cpus:1.5;mem:512MiB;ports:[31000-32000];zones:{a,b}`, or a table of the same parts.

        A scalar may be given several times and adds up; a zero amount is absent.

        Raises:
            ResourceError: naming the part that cannot be read and what was expected.
        """
        scalars: dict[str, int] = {}
        ranges: dict[str, Ranges] = {}
        sets: dict[str, frozenset[str]] = {}
        for name, value in _parts(text):
            if value.startswith("["):
                ranges[name] = normal_ranges((*ranges.get(name, ()), *_parse_ranges(name, value)))
            elif value.startswith("{"):
                sets[name] = sets.get(name, frozenset()) | _parse_set(name, value)
            else:
                milli = parse_scalar(name, value)
                if milli:
                    scalars[name] = scalars.get(name, 0) + milli
        return cls(scalars, {k: v for k, v in ranges.items() if v}, {k: v for k, v in sets.items() if v})

    def __str__(self) -> str:
        parts = [f"{k}:{format_milli(v)}" for k, v in self.scalars.items()]
        parts += [f"{k}:[{','.join(f'{low}-{high}' for low, high in v)}]" for k, v in self.ranges.items()]
        parts += [f"{k}:{{{','.join(sorted(v))}}}" for k, v in self.sets.items()]
        parts += [f"device/{k}:{v}" for k, v in self.devices.items()]
        return ";".join(sorted(parts))

    def __bool__(self) -> bool:
        return bool(self.scalars or self.ranges or self.sets or self.devices)

    def __add__(self, other: Resources) -> Resources:
        if not (other.ranges or other.sets or other.devices or self.ranges or self.sets or self.devices):
            return _trusted(add_scalars(self.scalars, other.scalars))
        return _trusted(
            add_scalars(self.scalars, other.scalars),
            {
                k: normal_ranges((*self.ranges.get(k, ()), *other.ranges.get(k, ())))
                for k in self.ranges | other.ranges
            },
            {
                k: self.sets.get(k, frozenset()) | other.sets.get(k, frozenset())
                for k in self.sets | other.sets
            },
            add_scalars(self.devices, other.devices),
        )

    def __sub__(self, other: Resources) -> Resources:
        """Return what is left.

        Raises:
            ResourceError: if `other` is not contained: a negative rest would be a lost amount.
        """
        if not self.contains(other):
            raise ResourceError(f"cannot take [{other}] out of [{self}]")
        return self.minus_at_most(other)

    def minus_at_most(self, other: Resources) -> Resources:
        """Return what is left when as much of `other` as there is has been taken (never below zero)."""
        ranges = {k: subtract_ranges(v, other.ranges.get(k, ())) for k, v in self.ranges.items()}
        sets = {k: v - other.sets.get(k, frozenset()) for k, v in self.sets.items()}
        return _trusted(
            subtract_scalars(self.scalars, other.scalars),
            {k: v for k, v in ranges.items() if v},
            {k: v for k, v in sets.items() if v},
            subtract_scalars(self.devices, other.devices),
        )

    def contains(self, other: Resources) -> bool:
        """Return whether all of `other` is here."""
        return (
            scalars_fit(other.scalars, self.scalars)
            and all(ranges_contain(self.ranges.get(k, ()), v) for k, v in other.ranges.items())
            and all(v <= self.sets.get(k, frozenset()) for k, v in other.sets.items())
            and scalars_fit(other.devices, self.devices)
        )

    def quantities(self) -> dict[str, int]:
        """Return amounts by name in 1/1000: scalars as they are, ranges and sets by their elements.

        This is what fair sharing counts. Devices are counted by type, which the caller knows.
        """
        amounts = dict(self.scalars)
        for name, ranges in self.ranges.items():
            amounts[name] = amounts.get(name, 0) + count_ranges(ranges) * UNIT
        for name, elements in self.sets.items():
            amounts[name] = amounts.get(name, 0) + len(elements) * UNIT
        return amounts


def _trusted(
    scalars: dict[str, int],
    ranges: dict[str, Ranges] | None = None,
    sets: dict[str, frozenset[str]] | None = None,
    devices: dict[str, int] | None = None,
) -> Resources:
    return Resources(scalars, ranges or {}, sets or {}, devices or {})


EMPTY: Final = Resources()


def add_scalars(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    """Return the sums by name."""
    out = dict(a)
    for name, milli in b.items():
        out[name] = out.get(name, 0) + milli
    return out


def subtract_scalars(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    """Return the differences above zero by name; what would be zero or less is left out."""
    out = dict(a)
    for name, milli in b.items():
        left = out.get(name, 0) - milli
        if left > 0:
            out[name] = left
        else:
            out.pop(name, None)
    return out


def scalars_fit(need: Mapping[str, int], free: Mapping[str, int]) -> bool:
    """Return whether each amount of `need` is there."""
    return all(free.get(name, 0) >= milli for name, milli in need.items())


def _parts(text: str | Mapping[str, object]) -> list[tuple[str, str]]:
    if isinstance(text, Mapping):
        pairs = [(str(name), _table_value(value)) for name, value in text.items()]
    else:
        pairs = []
        for part in text.split(";"):
            if not part.strip():
                continue
            name, colon, value = part.partition(":")
            if not colon:
                raise ResourceError(f"{part.strip()[:40]!r} is not a resource: expected name:amount")
            pairs.append((name.strip(), value.strip()))
    for name, _ in pairs:
        if not _NAME.fullmatch(name):
            raise ResourceError(
                f"{name[:40]!r} is not a resource name: "
                f"expected up to 32 lower-case letters, digits, '_', '.'"
            )
    return pairs


def _table_value(value: object) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        items = [str(item) for item in value]
        if items and all(re.fullmatch(r"[0-9]+(-[0-9]+)?", item) for item in items):
            return f"[{','.join(items)}]"
        return f"{{{','.join(items)}}}"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ResourceError(f"{value!r} is not an amount: expected a number, a text or a list")
    return str(value).strip()


def _parse_ranges(name: str, value: str) -> list[tuple[int, int]]:
    pieces: list[tuple[int, int]] = []
    if not value.endswith("]"):
        raise ResourceError(f"{name}: {value[:40]!r} lacks the closing ']'")
    for piece in filter(None, (p.strip() for p in value[1:-1].split(","))):
        match = re.fullmatch(r"([0-9]{1,15})(?:\s*-\s*([0-9]{1,15}))?", piece)
        if not match:
            raise ResourceError(f"{name}: {piece[:40]!r} is not a range: expected 31000-32000")
        pieces.append((int(match[1]), int(match[2] or match[1])))
    return pieces


def _parse_set(name: str, value: str) -> frozenset[str]:
    if not value.endswith("}"):
        raise ResourceError(f"{name}: {value[:40]!r} lacks the closing '}}'")
    return frozenset(filter(None, (item.strip() for item in value[1:-1].split(","))))


class DeviceRequest(msgspec.Struct, frozen=True, array_like=True):
    """Wants `count` slots, each on another device of `type` whose attributes satisfy `constraints`."""

    type: str
    count: int = 1
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        if not self.type or not 1 <= self.count <= 1000:
            raise ResourceError(f"device {self.type!r}: expected a type and a count of 1 to 1000")


class Device(msgspec.Struct, frozen=True, array_like=True):
    """A named instance an agent can hand out.

    Attributes:
        id: unique on its agent, such as `cam0`.
        type: what a request names, such as `camera` or `bme280`.
        slots: 1 for exclusive use, n when n tasks may hold it at once.
        attributes: facts for constraints.
        channels: what can be read or written, with units, such as `{"temperature": "degC"}`.
        healthy: an unhealthy device is not granted.
    """

    id: str
    type: str
    slots: int = 1
    attributes: Attributes = {}
    channels: dict[str, str] = {}
    healthy: bool = True

    def __post_init__(self) -> None:
        if not (0 < len(self.id) <= 64 and 0 < len(self.type) <= 64 and 1 <= self.slots <= MAX_SLOTS):
            raise ResourceError(
                f"device {self.id[:64]!r} of type {self.type[:64]!r} with {self.slots} slots: expected id "
                f"and type of 1 to 64 characters, and 1 to {MAX_SLOTS} slots"
            )


class ResourceRequest(msgspec.Struct, frozen=True, array_like=True):
    """What a task asks for.

    Attributes:
        quantities: name to 1/1000 units. On an agent where the name is a range or a set, whole
            units count elements: `ports:2` is any two ports.
        ranges: concrete values it must have, such as `ports:[8080]`.
        sets: concrete elements it must have.
        devices: device instances by type.
    """

    quantities: dict[ResourceName, int] = {}
    ranges: dict[ResourceName, Ranges] = {}
    sets: dict[ResourceName, frozenset[str]] = {}
    devices: tuple[DeviceRequest, ...] = ()

    def __post_init__(self) -> None:
        # The concrete part obeys the rules of Resources, quantities included.
        Resources(self.quantities, self.ranges, self.sets)

    @classmethod
    def parse(cls, text: str | Mapping[str, object], devices: Iterable[DeviceRequest] = ()) -> Self:
        """Read the same text as `Resources.parse`.

        Raises:
            ResourceError: naming the part that cannot be read.
        """
        parsed = Resources.parse(text)
        return cls(parsed.scalars, parsed.ranges, parsed.sets, tuple(devices))

    def __str__(self) -> str:
        parts = [str(Resources(self.quantities, self.ranges, self.sets))] if self else []
        parts += [f"device:{d.count}x{d.type}" for d in self.devices]
        return ";".join(filter(None, parts))

    def __bool__(self) -> bool:
        return bool(self.quantities or self.ranges or self.sets or self.devices)

    @property
    def scalars_only(self) -> bool:
        """Whether plain amounts are all it asks for (the common case, and the fast one)."""
        return not (self.ranges or self.sets or self.devices)

    def fair_quantities(self) -> dict[str, int]:
        """Return what fair sharing charges: amounts by name, devices as `device/<type>`."""
        amounts = Resources(self.quantities, self.ranges, self.sets).quantities()
        for device in self.devices:
            key = f"device/{device.type}"
            amounts[key] = amounts.get(key, 0) + device.count * UNIT
        return amounts


class Shortage(msgspec.Struct, frozen=True):
    """One reason why a request cannot be granted: `name` has `available`, `wanted` was asked for."""

    name: str
    wanted: str
    available: str

    def __str__(self) -> str:
        return f"{self.name}: wants {self.wanted}, has {self.available}"


def grant(
    request: ResourceRequest, free: Resources, devices: Mapping[str, Device]
) -> Resources | list[Shortage]:
    """Return the concrete resources for `request` out of `free`, or everything that is short.

    Deterministic: the lowest values of a range, the alphabetically first elements of a set and the
    healthy devices with the smallest id are taken.

    Parameters:
        free: what the agent has left, device slots included.
        devices: the agent's devices by id.
    """
    if request.scalars_only and scalars_fit(request.quantities, free.scalars):
        return _trusted(request.quantities)
    short: list[Shortage] = []
    scalars: dict[str, int] = {}
    ranges = dict(request.ranges)
    sets = dict(request.sets)
    for name, wanted in request.ranges.items():
        if not ranges_contain(free.ranges.get(name, ()), wanted):
            short.append(_range_shortage(name, wanted, free.ranges.get(name, ())))
    for name, elements in request.sets.items():
        if not elements <= free.sets.get(name, frozenset()):
            have = ",".join(sorted(free.sets.get(name, frozenset()))) or "none"
            short.append(Shortage(name, ",".join(sorted(elements)), have))
    for name, milli in request.quantities.items():
        if name in free.ranges or name in free.sets:
            count, rest = divmod(milli, UNIT)
            if rest:
                short.append(Shortage(name, format_milli(milli), "only whole ones"))
            elif name in free.ranges:
                left = subtract_ranges(free.ranges[name], ranges.get(name, ()))
                if count_ranges(left) < count:
                    short.append(Shortage(name, str(count), str(count_ranges(left))))
                else:
                    picked = _first_values(left, count)
                    ranges[name] = normal_ranges((*ranges.get(name, ()), *picked))
            else:
                choice = sorted(free.sets[name] - sets.get(name, frozenset()))
                if len(choice) < count:
                    short.append(Shortage(name, str(count), str(len(choice))))
                else:
                    sets[name] = sets.get(name, frozenset()) | frozenset(choice[:count])
        elif free.scalars.get(name, 0) < milli:
            have = format_milli(free.scalars.get(name, 0))
            short.append(Shortage(name, format_milli(milli), have))
        else:
            scalars[name] = milli
    taken: dict[str, int] = {}
    for wanted_device in request.devices:
        picked_ids = _pick_devices(wanted_device, free.devices, taken, devices)
        if len(picked_ids) < wanted_device.count:
            name = f"device/{wanted_device.type}"
            short.append(Shortage(name, str(wanted_device.count), str(len(picked_ids))))
        for device_id in picked_ids:
            taken[device_id] = taken.get(device_id, 0) + 1
    return short or _trusted(scalars, ranges, sets, taken)


def _range_shortage(name: str, wanted: Ranges, have: Ranges) -> Shortage:
    missing = subtract_ranges(wanted, have)
    text = ",".join(f"{low}-{high}" if high > low else str(low) for low, high in missing)
    return Shortage(name, text, "those taken or not there")


def _pick_devices(
    wanted: DeviceRequest,
    free_slots: Mapping[str, int],
    taken: Mapping[str, int],
    devices: Mapping[str, Device],
) -> list[str]:
    picked: list[str] = []
    for device_id in sorted(free_slots):
        device = devices.get(device_id)
        if device is None or device.type != wanted.type or not device.healthy:
            continue
        if free_slots[device_id] - taken.get(device_id, 0) < 1:
            continue
        if not all(satisfies(constraint, device.attributes) for constraint in wanted.constraints):
            continue
        picked.append(device_id)
        if len(picked) == wanted.count:
            break
    return picked
