"""What of a program travels to its workers, and how; the pool's process packs, a worker rebuilds.

    by name   what a worker can import: its module is there for it too
    by value  all else: what stands in the script, in a function, or in a module that only this
              process can import
    refused   what belongs to one process: connections, open files, generators, threads

cloudpickle does most of it. What it lacks is here: structs, enums with code or aliases of their
own, caches, locks, decoders, sentinels, annotations that are text, and the names of files in
tracebacks. A script's functions keep having their globals in common, and those globals are the
worker's `__main__`: what looks the script's names up there (pickle, type hints) finds them.
"""

from __future__ import annotations

import contextvars
import enum
import functools
import inspect
import io
import re
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any, Final

import msgspec
from cloudpickle import cloudpickle

from workers import rebuilding
from workers.anatomy import called_first
from workers.importing import is_importable, is_named

WORD: Final = re.compile(r"[^\W\d]\w*")
STRUCT_META: Final = type(msgspec.Struct)
STRUCT_OPTIONS: Final = (
    *("frozen", "eq", "order", "array_like", "gc", "repr_omit_defaults", "omit_defaults"),
    *("forbid_unknown_fields", "weakref", "dict", "cache_hash", "tag", "tag_field"),
)
ENUM_MADE: Final = {
    *("_generate_next_value_", "_member_names_", "_member_map_", "_member_type_"),
    *("_value2member_map_", "_unhashable_values_", "_hashable_values_", "_unhashable_values_map_"),
}
"""What `enum` makes of the members itself."""
MEMBER_MADE: Final = {"_value_", "_name_", "__objclass__", "_sort_order_"}
OPEN_FILES: Final = {
    *(io.FileIO, io.TextIOWrapper),
    *(io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair),
}
HEAP_TYPE: Final = 1 << 9
"""The flag of classes that Python code made."""
UNFINISHED_FILE: Final = "<dynamic-code>"
"""What cloudpickle writes in place of a file's name."""


class Unpackable(Exception):
    """Something that no other process can have."""


class Packer(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """A pickler for handlers; see the module."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._script = vars(sys.modules["__main__"])
        self._names = ScriptNames(__name__="__main__")
        self.globals_ref[id(self._script)] = self._names

    def reducer_override(self, obj: Any) -> Any:
        """How the object is rebuilt; `NotImplemented`: as pickle and cloudpickle do it."""
        kind = type(obj)
        if issubclass(kind, type):
            return self._reduced_class(obj)
        if kind is types.FunctionType:
            return self._reduced_function(obj)
        reduce = REDUCERS.get(kind)
        if reduce is not None and not is_named(obj):
            return reduce(obj)
        if kind in OPEN_FILES:
            return _reduced_file(obj)
        if home := _home_of_sentinel(obj):
            return getattr, home
        return super().reducer_override(obj)

    def _reduced_function(self, function: types.FunctionType) -> Any:
        if is_named(function):
            return NotImplemented
        return self._dynamic_function_reduce(function)

    def _reduced_class(self, cls: type) -> Any:
        if cls in cloudpickle._BUILTIN_TYPE_NAMES or is_named(cls):
            return super().reducer_override(cls)
        if isinstance(cls, enum.EnumMeta):
            make, args, state = _reduced_enum(cls)
        elif isinstance(cls, STRUCT_META):
            make, args, state = _reduced_struct(cls)
        else:
            make, args, (state, _) = cloudpickle._dynamic_class_reduce(cls)[:3]
        state.pop("__msgspec_cache__", None)
        everything = (state, self._names, self._names_of(cls))
        return make, args, everything, None, None, rebuilding.fill_class

    def _names_of(self, cls: type) -> dict[str, Any]:
        """What the worker's `__main__` has to hold for the class: itself, and its annotations."""
        if cls.__module__ != "__main__":
            return {}
        words = {cls.__name__} if self._script.get(cls.__name__) is cls else set()
        for annotation in _annotations_of(cls).values():
            words.update(_words_of(annotation))
        return {word: self._script[word] for word in words if word in self._script}


class ScriptNames(dict[str, Any]):
    """Stands for the globals of the script; rebuilt as those of the worker's `__main__`."""


def _annotations_of(cls: type) -> dict[str, Any]:
    try:
        return inspect.get_annotations(cls)
    except Exception:  # noqa: BLE001 - Python 3.14 evaluates what the user wrote
        return {}


def _words_of(annotation: Any) -> set[str]:
    """The names in those parts of the annotation that are text still."""
    text = getattr(annotation, "__forward_arg__", annotation)
    if isinstance(text, str):
        return set(WORD.findall(text))
    return {word for part in typing.get_args(annotation) for word in _words_of(part)}


# --- classes that need their metaclass's help ------------------------------------------------


def _reduced_enum(cls: Any) -> tuple[Any, ...]:
    """The members by value, aliases among them; then what the class and each member have."""
    state, _ = cloudpickle._class_getstate(cls)
    members = {name: member._value_ for name, member in cls.__members__.items()}
    for name in ENUM_MADE | set(members):
        state.pop(name, None)
    is_by_new = cls._new_member_.__module__ not in (None, "builtins", "enum")
    basics = {}
    if is_by_new:  # its own `__new__` made the members, of what is not known any more
        arguments = getattr(cls._member_type_, "__getnewargs__", lambda _: ())
        basics = {name: arguments(member) for name, member in cls.__members__.items()}
    state["__members_have__"] = {
        name: {key: value for key, value in vars(member).items() if key not in MEMBER_MADE}
        for name, member in cls.__members__.items()
    }
    boundary = {"boundary": cls._boundary_} if issubclass(cls, enum.Flag) else {}
    named = (cls.__name__, cls.__qualname__, cls.__module__)
    arguments = (type(cls), named, cls.__bases__, members, basics, boundary)
    return rebuilding.make_enum, arguments, state


def _reduced_struct(cls: Any) -> tuple[Any, ...]:
    """The fields with their defaults and options; then what the class has besides."""
    state, _ = cloudpickle._class_getstate(cls)
    fields = cls.__struct_fields__
    for name in [name for name in state if name in fields or name.startswith("__struct_")]:
        state.pop(name)
    for name in ("__match_args__", "__slots__"):
        state.pop(name, None)
    own = [name for name in _annotations_of(cls) if name in fields]
    values = cls.__struct_defaults__
    defaults = dict(zip(fields[len(fields) - len(values) :], values, strict=True))
    encoded = dict(zip(fields, cls.__struct_encode_fields__, strict=True))
    options = {name: getattr(cls.__struct_config__, name) for name in STRUCT_OPTIONS}
    options["kw_only"] = any(name not in cls.__match_args__ for name in own)
    options["rename"] = {name: encoded[name] for name in own}
    given = {name: defaults[name] for name in own if name in defaults}
    given = {name: one for name, one in given.items() if one is not msgspec.NODEFAULT}
    factories = {name: one.factory for name, one in given.items() if type(one) is FACTORY}
    plain = {name: one for name, one in given.items() if name not in factories}
    named = (cls.__name__, cls.__qualname__, cls.__module__)
    has_post_init = hasattr(cls, "__post_init__")
    bases = cloudpickle._get_bases(cls)
    arguments = (type(cls), named, bases, (own, plain, factories), options, has_post_init)
    return rebuilding.make_struct, arguments, state


class _Probe(msgspec.Struct):
    field: list[int] = []


FACTORY: Final = type(_Probe.__struct_defaults__[0])


# --- objects ---------------------------------------------------------------------------------


def _reduced_cache(cached: Any) -> Any:
    parameters = cached.cache_parameters()
    arguments = (parameters["maxsize"], parameters["typed"])
    state = {**vars(cached), "__wrapped__": cached.__wrapped__}
    return rebuilding.make_cache, arguments, state, None, None, rebuilding.fill_cache


def _reduced_variable(variable: contextvars.ContextVar[Any]) -> Any:
    try:
        default = {"default": contextvars.Context().run(variable.get)}
    except LookupError:
        default = {}
    return rebuilding.make_variable, (variable.name, default)


def _reduced_decoder(decoder: Any) -> Any:
    names = ("type", "strict", "dec_hook", "ext_hook", "float_hook")
    return _rebuilt_with(decoder, names)


def _reduced_encoder(encoder: Any) -> Any:
    return _rebuilt_with(encoder, ("enc_hook", "decimal_format", "uuid_format", "order"))


def _rebuilt_with(obj: Any, names: tuple[str, ...]) -> Any:
    options = {name: getattr(obj, name) for name in names if hasattr(obj, name)}
    return rebuilding.make_with, (type(obj), options)


def _reduced_module(module: types.ModuleType) -> Any:
    if module.__name__ == "__main__":
        raise Unpackable("the script's own module cannot be sent as a whole")
    if is_importable(module.__name__):
        return cloudpickle.subimport, (module.__name__,)
    state = {name: value for name, value in vars(module).items() if name != "__builtins__"}
    return cloudpickle.dynamic_subimport, (module.__name__, state)


def _reduced_code(code: types.CodeType) -> Any:
    make, arguments = cloudpickle._code_reduce(code)
    named = (code.co_filename if one == UNFINISHED_FILE else one for one in arguments)
    return make, tuple(named)


def _reduced_file(file: Any) -> Any:
    for name in ("stdin", "stdout", "stderr"):
        if file is getattr(sys, name):
            return getattr, (sys, name)
    raise Unpackable(f"an open file cannot be sent: {getattr(file, 'name', file)!r}")


def _reduced_new_type(new: Any) -> Any:
    return rebuilding.make_new_type, (
        new.__name__,
        new.__qualname__,
        new.__module__,
        new.__supertype__,
    )


def _reduced_parameters(parameters: Any) -> Any:
    return rebuilding.make_typing, (type(parameters), parameters.__name__, parameters.__module__)


REDUCERS: Final[dict[type, Callable[[Any], Any]]] = {
    ScriptNames: lambda _: (rebuilding.script_names, ()),
    types.ModuleType: _reduced_module,
    types.CodeType: _reduced_code,
    type(functools.lru_cache(len)): _reduced_cache,
    type(threading.Lock()): lambda _: (threading.Lock, ()),
    type(threading.RLock()): lambda _: (threading.RLock, ()),
    threading.local: lambda _: (threading.local, ()),
    contextvars.ContextVar: _reduced_variable,
    weakref.WeakKeyDictionary: lambda weak: (type(weak), (dict(weak),)),
    weakref.WeakValueDictionary: lambda weak: (type(weak), (dict(weak),)),
    typing.NewType: _reduced_new_type,
    typing.ParamSpec: _reduced_parameters,
    typing.TypeVarTuple: _reduced_parameters,
    msgspec.json.Decoder: _reduced_decoder,
    msgspec.msgpack.Decoder: _reduced_decoder,
    msgspec.json.Encoder: _reduced_encoder,
    msgspec.msgpack.Encoder: _reduced_encoder,
}


def _home_of_sentinel(obj: Any) -> tuple[types.ModuleType, str] | None:
    """Module and name of an object that has no state and is known by its identity."""
    kind: Any = type(obj)
    if kind.__new__ is not object.__new__ or not (kind is object or kind.__flags__ & HEAP_TYPE):
        return None
    if kind.__getstate__ is not object.__getstate__ or object.__getstate__(obj) is not None:
        return None
    for module in list(sys.modules) if kind is object else [kind.__module__]:
        found = sys.modules.get(module)
        if isinstance(found, types.ModuleType) and is_importable(module):
            for name, value in list(vars(found).items()):
                if value is obj:
                    return found, name
    return None


def dumped(value: Any, code: object) -> bytes:
    """One pickle after the other; the last one is the value."""
    file = io.BytesIO()
    packer = Packer(file)
    for function in called_first(code):
        packer.dump(function)
    packer.dump(value)
    return file.getvalue()
