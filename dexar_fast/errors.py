"""Every error this package raises on purpose. Each message says what to do about it."""


class DexarError(Exception):
    """Base class: catch it to catch them all."""


class InputError(DexarError, ValueError):
    """A prompt, an answer, token ids or an option that cannot be explained."""


class ImageError(InputError):
    """An image that is missing or cannot be read."""


class ModelError(DexarError):
    """A model that cannot be loaded, or whose decoder cannot be explained."""


class LibraryError(DexarError):
    """A library below this package warns where warnings are errors, or misses another library; the message names it."""


class InternalError(DexarError, RuntimeError):
    """A fault of dexar_fast itself; the message asks for a report."""


class NumericalError(DexarError, ArithmeticError):
    """NaN or infinity where a finite number was needed; the message names the layer."""


class OutOfMemoryError(DexarError, MemoryError):
    """Not even one token at a time fits; the message says how much was asked for."""


class CacheError(DexarError):
    """The pool of cached keys was misused or is full; nothing in it changed. The subclasses are in dexar_fast._C."""


class BackendError(DexarError):
    """A backend was asked for by name and cannot run here."""


class ExtensionError(BackendError, ImportError):
    """What was asked for needs the C++ extension, which was not built or does not load."""


class FileError(DexarError, OSError):
    """A file that cannot be read as an explanation, or cannot be written."""


def reason(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def cause(error: OSError | ValueError) -> str:
    """What the system says of a file, without the file's name: it may be that of a temporary one."""
    return getattr(error, "strerror", None) or str(error)
