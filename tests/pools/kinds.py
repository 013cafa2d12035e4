"""The kinds of code that scripts have, each as a handler; run as a script, to be `__main__`.

Each function tells, by what it returns, whether its kind works; the same in the script and in a
worker. `kinds.py LOG` handles one event of each kind in one worker, and says what came.
"""

from __future__ import annotations

import abc
import asyncio
import collections
import contextvars
import dataclasses
import decimal
import enum
import functools
import json
import logging
import operator
import pickle
import re
import sqlite3
import sys
import threading
import time
import types
import typing
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Generic, NewType, Protocol, TypedDict, TypeVar

import attrs
import msgspec
import pydantic

from eventlog import EventLogError, blocking
from workers import handlers
from workers.blocking import Pool

KINDS: Final[dict[str, Any]] = {}
REFUSED: Final[dict[str, Any]] = {}
Handler = TypeVar("Handler", bound=Callable[..., Any])
ORDER: Final[dict[str, Any]] = {"number": 7, "price": 1.5}


def kind(handler: Handler) -> Handler:
    """Note a kind that works."""
    KINDS[handler.__name__] = handler
    return handler


def refused(handler: Handler) -> Handler:
    """Note a kind that cannot travel."""
    REFUSED[handler.__name__] = handler
    return handler


# --- msgspec ---------------------------------------------------------------------------------


class Line(msgspec.Struct):
    item: str
    count: int = 1


class Order(msgspec.Struct):
    number: int
    price: float = 0.0
    lines: list[Line] = []
    parent: Order | None = None
    unit: typing.ClassVar[str] = "EUR"

    def twice(self) -> float:
        return self.price * 2


class Invoice(Order, frozen=False, kw_only=True, tag="invoice", rename="camel"):
    paid_by: str = "card"
    labels: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels["checked"] = checked(self.paid_by)

    def twice(self) -> float:
        return super().twice() + 1


class Point(msgspec.Struct, frozen=True, order=True, array_like=True):
    x: int
    y: int = 0


class Kept(msgspec.Struct, omit_defaults=True, weakref=True, dict=True):
    a: int = 1
    b: int = msgspec.field(default=2, name="bee")


T = TypeVar("T")
P = typing.ParamSpec("P")


class Page(msgspec.Struct, Generic[T]):
    entries: list[T]


DECODER: Final = msgspec.json.Decoder(Order)
PACKED: Final = msgspec.msgpack.Decoder(list[Line])
ENCODER: Final = msgspec.json.Encoder(order="sorted")
DEFAULT_LINE: Final = Line("book", 2)


def checked(text: str) -> str:
    return f"checked {text}"


@kind
def struct(event: Any) -> Any:
    order = msgspec.convert(event | {"lines": [{"item": "pen"}], "parent": event}, Order)
    return [order.twice(), order.lines[0].count, order == Order(1), Order.unit, repr(order)]


@kind
def struct_in_a_default(event: Any, line: Line = DEFAULT_LINE) -> Any:
    return [isinstance(line, Line), line == Line("book", 2), event["number"]]


@kind
def struct_with_options(event: Any) -> Any:
    invoice = Invoice(number=event["number"], price=2.0, paid_by="cash")
    text = msgspec.json.encode(invoice).decode()
    back = msgspec.json.decode(text, type=Invoice)
    return [text, back == invoice, back.twice(), isinstance(back, Order), Invoice.__match_args__]


@kind
def struct_frozen(event: Any) -> Any:
    point = Point(event["number"])
    try:
        point.x = 3  # type: ignore[misc]
    except AttributeError:
        return [hash(point) == hash(Point(7)), point < Point(8), msgspec.to_builtins(point)]
    return "not frozen"


@kind
def struct_with_flags(_: Any) -> Any:
    kept = Kept(b=3)
    weakref.ref(kept)
    return [msgspec.to_builtins(kept), vars(kept)]


@kind
def struct_generic(event: Any) -> Any:
    return msgspec.to_builtins(msgspec.convert({"entries": [event]}, Page[Order]))


@kind
def decoders_and_encoders(event: Any) -> Any:
    data = ENCODER.encode(event)
    return [
        data.decode(),
        DECODER.decode(data).number,
        PACKED.decode(msgspec.msgpack.encode([Line("a")]))[0].item,
    ]


# --- enums -----------------------------------------------------------------------------------


class State(enum.Enum):
    NEW = "new"
    PAID = "paid"
    SETTLED = "paid"  # noqa: PIE796 - an alias

    def shout(self) -> str:
        return self.name + "!"

    @classmethod
    def _missing_(cls, value: object) -> State | None:
        return cls.NEW if value == "" else None

    @property
    def is_paid(self) -> bool:
        return self is State.PAID


class Colour(enum.StrEnum):
    RED = enum.auto()
    BLUE = enum.auto()


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Right(enum.Flag, boundary=enum.KEEP):
    READ = enum.auto()
    WRITE = enum.auto()
    BOTH = READ | WRITE


class Mode(enum.IntFlag):
    A = 1
    B = 2


class Planet(enum.Enum):
    EARTH = (5.97, 6.37)
    MARS = (0.64, 3.39)

    def __init__(self, mass: float, radius: float) -> None:
        self.mass = mass
        self.radius = radius

    def gravity(self) -> float:
        return round(self.mass / self.radius**2, 3)


class Coin(int, enum.Enum):
    label: str

    def __new__(cls, value: int, label: str) -> Coin:
        coin = int.__new__(cls, value)
        coin._value_ = value
        coin.label = label
        return coin

    PENNY = (1, "one")
    DIME = (10, "ten")


Functional = enum.Enum("Functional", "ONE TWO")
BY_STATE: Final = {State.NEW: 1, State.PAID: 2}


@kind
def enum_plain(_: Any) -> Any:
    return [
        State("paid") is State.PAID,
        State.SETTLED is State.PAID,  # type: ignore[comparison-overlap]
        State["SETTLED"].name,
        State("") is State.NEW,
        State.PAID.is_paid,
        State.NEW.shout(),
        [str(one) for one in State],
        repr(State.NEW),
    ]


@kind
def enum_in_a_default(event: Any, want: State = State.PAID) -> Any:
    return [want is State.PAID, event["number"]]


@kind
def enum_as_a_key(_: Any) -> Any:
    return [BY_STATE[State.PAID], BY_STATE.get(State("new"))]


@kind
def enum_in_match(_: Any) -> Any:
    match State("paid"):
        case State.NEW:
            return "new"
        case State.PAID:
            return "paid"


@kind
def enum_of_text(_: Any) -> Any:
    return [Colour.RED == "red", Colour("blue") is Colour.BLUE, f"{Colour.RED}"]  # type: ignore[comparison-overlap]


@kind
def enum_of_numbers(_: Any) -> Any:
    return [Level(2) is Level.HIGH, Level.HIGH + 1, Level.LOW < Level.HIGH]


@kind
def enum_of_flags(_: Any) -> Any:
    both = Right.READ | Right.WRITE
    return [both is Right.BOTH, Right["BOTH"].value, [str(one) for one in both], Right(9).value]


@kind
def enum_of_number_flags(_: Any) -> Any:
    return [(Mode.A | Mode.B) == 3, Mode(3) & Mode.B is Mode.B, [one.name for one in Mode]]


@kind
def enum_with_init(_: Any) -> Any:
    return [Planet.EARTH.gravity(), Planet((0.64, 3.39)) is Planet.MARS, Planet.MARS.mass]  # type: ignore[call-arg, arg-type]


@kind
def enum_with_new(_: Any) -> Any:
    return [Coin.DIME + 1, Coin(10) is Coin.DIME, Coin.PENNY.label]  # type: ignore[call-arg]


@kind
def enum_functional(_: Any) -> Any:
    return [Functional["TWO"] is Functional(2), [one.name for one in Functional]]


# --- dataclasses, attrs, pydantic, tuples ----------------------------------------------------


@dataclasses.dataclass
class Item:
    name: str
    size: int = 1
    tags: list[str] = dataclasses.field(default_factory=list)
    _: dataclasses.KW_ONLY
    colour: Colour = Colour.RED

    def __post_init__(self) -> None:
        self.tags.append(checked(self.name))


@dataclasses.dataclass
class Box:
    items: list[Item]
    inner: Box | None = None


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Place:
    x: int
    y: int = 0

    def moved(self) -> Place:
        return dataclasses.replace(self, x=self.x + 1)


@dataclasses.dataclass
class Scaled:
    value: int
    factor: dataclasses.InitVar[int] = 2

    def __post_init__(self, factor: int) -> None:
        self.value *= factor


@kind
def dataclass_plain(_: Any) -> Any:
    item = Item("a", colour=Colour.BLUE)
    names = [field.name for field in dataclasses.fields(Item)]
    return [dataclasses.asdict(item), item == Item("a", colour=Colour.BLUE), names, repr(item)]


@kind
def dataclass_converted(_: Any) -> Any:
    box = msgspec.convert({"items": [{"name": "a"}], "inner": {"items": []}}, Box)
    return [dataclasses.asdict(box), isinstance(box.items[0], Item)]


@kind
def dataclass_frozen_with_slots(event: Any) -> Any:
    place = Place(event["number"])
    return [hash(place) == hash(Place(7)), place < Place(8), place.moved().x, hasattr(place, "z")]


@kind
def dataclass_init_var(_: Any) -> Any:
    return [Scaled(3).value, Scaled(3, 3).value]


@kind
def dataclass_hints(_: Any) -> Any:
    return [typing.get_type_hints(Box)["items"] == list[Item]]


@attrs.define
class Thing:
    name: str
    size: int = attrs.field(default=1, validator=attrs.validators.instance_of(int))
    tags: list[str] = attrs.field(factory=list)

    def twice(self) -> int:
        return self.size * 2


@attrs.frozen(kw_only=True)
class Fixed(Thing):
    weight: float = 0.5

    def twice(self) -> int:
        return super().twice() + 1


@kind
def attrs_class(_: Any) -> Any:
    thing = Fixed(name="a", size=2)
    try:
        Thing("b", "wrong")  # type: ignore[arg-type]
    except TypeError:
        return [attrs.asdict(thing), thing.twice(), thing == Fixed(name="a", size=2)]
    return "not validated"


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(default=1, ge=0)
    friend: Person | None = None
    state: State = State.NEW

    @pydantic.field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        return checked(name)


class Answer(pydantic.BaseModel, Generic[T]):
    value: T
    model_config = pydantic.ConfigDict(extra="forbid")


PEOPLE: Final = pydantic.TypeAdapter(list[Person])


@kind
def pydantic_model(_: Any) -> Any:
    person = Person.model_validate({"name": "a", "age": "3", "friend": {"name": "b"}})
    try:
        Person(name="c", age=-1)
    except pydantic.ValidationError as error:
        return [person.model_dump(mode="json"), person == person.model_copy(), error.error_count()]
    return "not validated"


@kind
def pydantic_generic(_: Any) -> Any:
    return [Answer[int](value=3).model_dump(), Answer[Person].model_json_schema()["title"]]


@kind
def pydantic_adapter(_: Any) -> Any:
    return [one.name for one in PEOPLE.validate_python([{"name": "a"}])]


class Pair(typing.NamedTuple):
    left: int
    right: int = 2

    def total(self) -> int:
        return self.left + self.right


Plain = collections.namedtuple("Plain", "a b")


class Row(TypedDict):
    number: int
    price: float


class Part(TypedDict, total=False):
    lines: list[Line]


@kind
def named_tuples(_: Any) -> Any:
    return [Pair(1).total(), Pair(1)._asdict(), list(Plain(1, 2)), isinstance(Pair(1), Pair)]


@kind
def typed_dict(event: Any) -> Any:
    part = msgspec.convert({"lines": [{"item": "a"}]}, Part)
    return [msgspec.convert(event, Row), Row(number=1, price=2.0), part["lines"][0].item]


# --- typing ----------------------------------------------------------------------------------

UserId = NewType("UserId", int)


class Doubles(Protocol):
    def twice(self) -> float: ...


@typing.runtime_checkable
class Sells(Protocol):
    def sell(self) -> int: ...


class Stack(Generic[T]):
    def __init__(self, *items: T) -> None:
        self.items = list(items)


class IntStack(Stack[int]):
    def total(self) -> int:
        return sum(self.items)


class Seller:
    def sell(self) -> int:
        return 3


def logged(function: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    return inner


@kind
def generics(_: Any) -> Any:
    return [IntStack(1, 2).total(), str(Stack[int]), isinstance(IntStack(1), Stack), T.__name__]


@kind
def new_type(event: Any) -> Any:
    return [UserId(event["number"]), UserId.__name__, msgspec.convert(3, UserId)]


@kind
def protocols(_: Any) -> Any:
    doubles: Doubles = Order(1, 2.0)
    return [isinstance(Seller(), Sells), isinstance(3, Sells), doubles.twice()]


@kind
def param_spec(_: Any) -> Any:
    return [P.__name__, logged(checked)("a")]  # type: ignore[attr-defined]


# --- classes ---------------------------------------------------------------------------------

BIRDS: Final[dict[str, type]] = {}


class Bird(abc.ABC):
    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        BIRDS[checked(cls.__name__)] = cls

    @abc.abstractmethod
    def sing(self) -> str: ...


class Crow(Bird):
    __slots__ = ("loud",)

    def __init__(self) -> None:
        super().__init__()
        self.loud = True

    def sing(self) -> str:
        return "kra"


class Upper(type):
    def __new__(cls, name: str, bases: tuple[type, ...], names: dict[str, Any]) -> Upper:
        return super().__new__(cls, name, bases, names | {"SHOUT": name.upper()})

    def __call__(cls, *args: Any) -> Any:
        return super().__call__(*args)


class Shouting(metaclass=Upper):
    pass


class Checked:
    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_{name}"

    def __get__(self, instance: Any, owner: type) -> Any:
        return getattr(instance, self.name, "none")

    def __set__(self, instance: Any, value: str) -> None:
        setattr(instance, self.name, checked(value))


class Account:
    owner = Checked()
    made = 0

    def __init__(self, balance: int) -> None:
        self.balance = balance
        Account.made += 1

    @classmethod
    def of(cls, event: Any) -> Account:
        return cls(event["number"])

    @classmethod
    def told_class(cls, event: Any) -> list[Any]:
        return [cls.__name__, cls.of(event).balance]

    @staticmethod
    def told_static(event: Any) -> list[Any]:
        return [Account.unit(), event["number"]]

    @staticmethod
    def unit() -> str:
        return "EUR"

    @property
    def twice(self) -> int:
        return self.balance * 2

    @functools.cached_property
    def slow(self) -> int:
        return self.balance + 1

    @functools.lru_cache(maxsize=4)  # noqa: B019 - what scripts have
    def cached(self, extra: int) -> int:
        return self.balance + extra

    def add(self, extra: int, event: Any) -> int:
        return self.balance + extra + int(event["number"])

    add_two = functools.partialmethod(add, 2)

    @functools.singledispatchmethod
    def told(self, value: object) -> str:
        return "?"

    @told.register
    def _(self, value: int) -> str:
        return f"int {value}"

    class Inner:
        level = 2


@functools.total_ordering
class Version:
    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.number == other.number

    def __lt__(self, other: Version) -> bool:
        return self.number < other.number

    def __hash__(self) -> int:
        return hash(checked(str(self.number)))


BY_VERSION: Final = {Version(1): "one"}


class OwnError(Exception):
    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"code {code}: {reason}")
        self.code = code


@kind
def abstract_classes(_: Any) -> Any:
    try:
        Bird()  # type: ignore[abstract]
    except TypeError:
        return [
            Crow().sing(),
            Crow().loud,
            isinstance(Crow(), Bird),
            {"checked Crow": Crow} == BIRDS,
        ]
    return "not abstract"


@kind
def metaclasses(_: Any) -> Any:
    return [Shouting.SHOUT, type(Shouting) is Upper]  # type: ignore[attr-defined]


@kind
def descriptors(_: Any) -> Any:
    account = Account(1)
    account.owner = "me"
    return [account.owner, type(account).__dict__["owner"].name]


@kind
def members_of_all_kinds(event: Any) -> Any:
    account = Account.of(event)
    return [
        *(account.twice, account.slow, account.cached(3), account.unit(), Account.Inner.level),
        *(account.add_two(event), account.told(3), account.told("x")),
    ]


@kind
def orderings(_: Any) -> Any:
    return [Version(1) <= Version(2), BY_VERSION[Version(1)], max(Version(3), Version(2)).number]


@kind
def own_errors(_: Any) -> Any:
    try:
        raise OwnError(3, reason="none")
    except OwnError as error:
        return [error.code, str(error)]


@kind
def names_in_this_script(_: Any) -> Any:
    """What looks things up by their names finds them: pickle, type hints, reflection."""
    place = pickle.loads(pickle.dumps(Place(3)))
    module = sys.modules[Place.__module__]
    return [place == Place(3), module.__dict__["Place"] is Place, Place.__module__, __name__]


KINDS["bound_method"] = functools.partial(Account(3).add, 4)
KINDS["bound_method_with_slots"] = Version(3).__eq__
KINDS["class_method"] = Account.told_class
KINDS["static_method"] = Account.told_static
KINDS["class_itself"] = Pair


class Caller:
    def __init__(self, rate: int) -> None:
        self.rate = rate

    def __call__(self, event: Any) -> Any:
        return [event["number"] * self.rate, isinstance(self, Caller)]


KINDS["callable_object"] = Caller(3)


# --- functions -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=10)
def fibonacci(number: int) -> int:
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


@functools.cache
def settings() -> dict[str, int]:
    return {"factor": 3}


@functools.singledispatch
def told(value: object) -> str:
    return "?"


@told.register
def _(value: int) -> str:
    return f"int {value}"


@told.register(Order)
def _(value: Order) -> str:
    return f"order {value.number}" + told(value.number)


def is_even(number: int) -> bool:
    return True if number == 0 else is_odd(number - 1)


def is_odd(number: int) -> bool:
    return False if number == 0 else is_even(number - 1)


def counter() -> Callable[[Any], int]:
    count = 0

    def count_up(_: Any) -> int:
        nonlocal count
        count += 1
        return count

    return count_up


def recursive_closure() -> Callable[[Any], int]:
    def factorial(number: int) -> int:
        return 1 if number < 2 else number * factorial(number - 1)

    return lambda event: factorial(event["number"])


@contextmanager
def doubled(number: int) -> Iterator[int]:
    yield number * 2


async def later(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


def keyword_only(event: Any, /, *, factor: int = 2, **options: int) -> Any:
    return [event["number"] * factor, options]


@kind
def cached_functions(_: Any) -> Any:
    fibonacci.cache_clear()
    return [fibonacci(9), fibonacci.cache_info()[:3], settings() is settings(), settings()]


@kind
def single_dispatch(_: Any) -> Any:
    return [told(3), told(Order(2)), told("x"), told.dispatch(int) is told.registry[int]]


@kind
def mutual_recursion(event: Any) -> Any:
    return [is_even(event["number"]), is_odd(3)]


@kind
@logged
def decorated(event: Any) -> Any:
    return [event["number"], decorated.__wrapped__.__name__]  # type: ignore[attr-defined]


@kind
def generators_and_contexts(event: Any) -> Any:
    with doubled(event["number"]) as number:
        return [number, asyncio.run(later(3))]


KINDS["lambda"] = lambda event: [checked("lambda"), event["number"]]
KINDS["closure"] = counter()
KINDS["recursive_closure"] = recursive_closure()
KINDS["partial"] = functools.partial(keyword_only, factor=3, other=1)
KINDS["operator"] = operator.itemgetter("number")


@kind
def long_chain(event: Any) -> Any:
    return step_0(event["number"])  # type: ignore[name-defined]  # noqa: F821 - made below


@kind
def hundred_helpers(event: Any) -> Any:
    return helper_0(event["number"])  # type: ignore[name-defined]  # noqa: F821 - made below


for _number in range(300):
    exec(
        f"def step_{_number}(n):\n    return step_{_number + 1}(n + 1)"
        if _number < 299
        else f"def step_{_number}(n):\n    return n"
    )
for _number in range(100):
    _calls = "".join(f", helper_{_other}" for _other in range(100))
    exec(f"def helper_{_number}(n):\n    return n + len(({_calls[1:]}))")


# --- state of the module ---------------------------------------------------------------------

COUNTS: Final[collections.Counter[str]] = collections.Counter()
GROUPS: Final[dict[str, str]] = collections.defaultdict(lambda: checked("none"))
PATTERN: Final = re.compile(r"(\d+)")
LOCK: Final = threading.Lock()
REENTRANT: Final = threading.RLock()
READY: Final = threading.Event()
LOCAL: Final = threading.local()
VARIABLE: Final = contextvars.ContextVar("VARIABLE", default=3)
LOGGER: Final = logging.getLogger(__name__)
NOTHING: Final = object()
HERE: Final = Path(__file__).name
PRICE: Final = decimal.Decimal("1.50")
FIELDS: Final = types.MappingProxyType({"a": 1})
ALIVE: Final[weakref.WeakValueDictionary[str, Version]] = weakref.WeakValueDictionary()
SEEN: Final[weakref.WeakSet[Version]] = weakref.WeakSet()
TOTAL = 0


def add_to_total(number: int, missing: object = NOTHING) -> bool:
    global TOTAL  # noqa: PLW0603 - what scripts have
    TOTAL += number
    return missing is NOTHING


@kind
def state_of_the_module(event: Any) -> Any:
    before = TOTAL
    is_same = add_to_total(event["number"])
    COUNTS["a"] += 1
    return [TOTAL - before, is_same, COUNTS["a"] > 0, GROUPS["x"], PATTERN.findall("a12")]


@kind
def locks(_: Any) -> Any:
    with LOCK, REENTRANT, REENTRANT:
        LOCAL.value = 1
        return [READY.is_set(), LOCAL.value, LOCK.locked()]


@kind
def values_of_the_library(_: Any) -> Any:
    LOGGER.debug("nothing")
    ALIVE["a"] = version = Version(1)
    SEEN.add(version)
    return [VARIABLE.get(), HERE, str(PRICE), dict(FIELDS), len(ALIVE), len(SEEN), LOGGER.name]


@kind
def file_of_this_script(_: Any) -> Any:
    return Path(__file__).name


# --- what is refused -------------------------------------------------------------------------

CONNECTION: Final = sqlite3.connect(":memory:")
NUMBERS: Final = (number for number in range(3))
FRAME: Final = sys._getframe()
OPEN_FILE: Final = open(__file__)  # noqa: SIM115 - what scripts have
MAIN: Final = sys.modules["__main__"]
HOLDER: Final = {"inner": [CONNECTION]}


def uses_a_connection() -> Any:
    return CONNECTION.execute("select 1").fetchone()


@refused
def connection_in_a_function(_: Any) -> Any:
    return uses_a_connection()


@refused
def connection_in_a_container(_: Any) -> Any:
    return HOLDER


@refused
def generator(_: Any) -> Any:
    return next(NUMBERS)


@refused
def frame(_: Any) -> Any:
    return FRAME.f_lineno


@refused
def open_file(_: Any) -> Any:
    return OPEN_FILE.read()


@refused
def script_as_a_module(_: Any) -> Any:
    return MAIN


class Client:
    def __init__(self) -> None:
        self.connection = CONNECTION

    def handle(self, _: Any) -> Any:
        return self.connection


REFUSED["connection_of_a_bound_method"] = Client().handle


class Odd:
    """Can be packed, and not unpacked."""

    def __reduce__(self) -> Any:
        return (dict, (1, 2, 3))


ODD: Final = Odd()


@refused
def unreadable(_: Any) -> Any:
    return ODD


# --- the script ------------------------------------------------------------------------------


class HandleAll:
    """Each kind is packed by itself and unpacked in the worker, as if it were the pool's own."""

    def __init__(self, packed: dict[str, bytes]) -> None:
        self.packed = packed

    def __call__(self, event: str) -> Any:
        script = vars(sys.modules["__main__"])
        handler = handlers.unpacked(self.packed[event], script).handler
        return {event: repr(handler(ORDER))}


def main(path: str) -> None:
    found: dict[str, Any] = {"refused": {}, "wanted": {}, "seconds": {}}
    packed: dict[str, bytes] = {}
    shout = State.shout
    with blocking.open(path) as log:
        for name, handler in (KINDS | REFUSED).items():
            began_s = time.monotonic()
            try:
                packed[name] = handlers.packed(handlers.Code(handler))
            except EventLogError as error:
                found["refused"][name] = f"{type(error).__name__}: {error}"
            found["seconds"][name] = time.monotonic() - began_s
        found["is_untouched"] = State.shout is shout
        found["wanted"] = {name: repr(KINDS[name](ORDER)) for name in packed if name in KINDS}
        log.append_many([*packed])
        options: dict[str, Any] = {"processes": 1, "max_deliveries": 1, "output": f"{path}-output"}
        with Pool(log, group="kinds", handler=HandleAll(packed), **options) as pool:
            pool.drained()
            found["letters"] = {one.event: one.error for one in pool.dead_letters()}
    with blocking.open(f"{path}-output") as output:
        found["came"] = {
            name: text for envelope in output.read(1) for name, text in envelope.event.items()
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
