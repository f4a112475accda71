"""Pickle's own C, without the module around it.

`import pickle` imports `re` and more for what nobody here uses, and a child
would spend a good part of its start on it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pickle import PickleBuffer, Pickler, PicklingError, dumps, loads
else:
    try:
        from _pickle import PickleBuffer, Pickler, PicklingError, dumps, loads
    except ImportError:  # an interpreter that has pickle in Python only
        from pickle import PickleBuffer, Pickler, PicklingError, dumps, loads

__all__ = ["PickleBuffer", "Pickler", "PicklingError", "dumps", "loads"]
