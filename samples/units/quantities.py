"""Units by quantity: how much of the quantity's base unit each of them is."""

LENGTH = {"mm": 0.001, "cm": 0.01, "m": 1.0, "km": 1000.0, "in": 0.0254, "ft": 0.3048, "mi": 1609.344}
MASS = {"g": 0.001, "kg": 1.0, "t": 1000.0, "oz": 0.028349523125, "lb": 0.45359237}
TEMPERATURE = {"C", "F", "K"}

QUANTITIES = sorted([*LENGTH, *MASS, *TEMPERATURE])


def to_kelvin(value, unit):
    if unit == "C":
        return value + 273.15
    if unit == "F":
        return (value + 459.67) * 5 / 9
    return value


def from_kelvin(value, unit):
    if unit == "C":
        return value - 273.15
    if unit == "F":
        return value * 9 / 5 - 459.67
    return value


def convert(value, source, target):
    if source in TEMPERATURE and target in TEMPERATURE:
        return from_kelvin(to_kelvin(value, source), target)
    for quantity in (LENGTH, MASS):
        if source in quantity and target in quantity:
            return value * quantity[source] / quantity[target]
    raise LookupError(f"cannot convert {source} to {target}")
