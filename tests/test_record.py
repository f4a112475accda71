"""Records: frozen values that behave like any value, whatever they are made of."""

import copy
import inspect
import pickle

import pytest

from asyncworkers import Cancelled, Queue, Retry, Succeeded, events
from asyncworkers._record import Record, fields


class Place(Record):
    """A place."""

    x: float
    y: float = 0.0


class Named(Place):
    """A place with a name."""

    name: str = "here"


class Elsewhere(Place):
    """A place with a better default and no field of its own."""

    y: float = 9.0


HERE = Named(1.0, 2.0, "there")


def test_fields_are_read_by_name_and_matched_by_place():
    """A record has its fields, the inherited ones first."""
    assert fields(Named) == ("x", "y", "name")
    assert fields(Elsewhere) == ("x", "y")
    assert Elsewhere(1.0) == Elsewhere(1.0, 9.0)
    assert (HERE.x, HERE.y, HERE.name) == (1.0, 2.0, "there")
    match HERE:
        case Named(x, y, name):
            assert (x, y, name) == (1.0, 2.0, "there")
    match HERE:
        case Place(2.0):
            pytest.fail("matched another value")
        case Place(y=two):
            assert two == 2.0
    assert HERE.as_dict() == {"x": 1.0, "y": 2.0, "name": "there"}
    assert repr(HERE) == "Named(x=1.0, y=2.0, name='there')"


def test_values_are_given_by_place_or_by_name():
    """Any mixture that a function would take makes the same record; defaults fill the rest."""
    assert Named(1.0, name="there", y=2.0) == Named(name="there", y=2.0, x=1.0) == HERE
    assert Named(5.0) == Named(5.0, 0.0, "here")
    assert str(inspect.signature(Named)) == "(x, y=0.0, name='here')"


@pytest.mark.parametrize(
    ("values", "named", "wrong"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, 3, 4), {}, "too many positional arguments"),
        ((1,), {"x": 1}, "multiple values for argument 'x'"),
        ((1,), {"z": 1}, "unexpected keyword argument 'z'"),
    ],
)
def test_a_wrong_call_is_refused(values, named, wrong):
    """Values that are missing, too many, given twice or unknown raise TypeError and say so."""
    with pytest.raises(TypeError, match=wrong):
        Named(*values, **named)


def test_equal_is_what_is_alike_and_of_one_class():
    """Records are equal, and hash alike, if class and values are; a tuple is never equal to one."""
    assert Named(1.0, 2.0, "there") == HERE
    assert hash(Named(1.0, 2.0, "there")) == hash(HERE)
    assert Named(1.0, 2.0, "here") != HERE
    assert Place(1.0, 2.0) != Elsewhere(1.0, 2.0)
    assert HERE != (1.0, 2.0, "there")
    assert len({Place(1.0), Place(1.0), Place(2.0)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Succeeded([]))


@pytest.mark.parametrize("field", ["x", "name", "other", "_values"])
def test_nothing_can_be_changed(field):
    """Fields can be neither set nor deleted, nor can new attributes be added."""
    place = Named(1.0, 2.0, "there")
    with pytest.raises(AttributeError, match=f"Named is frozen: '{field}'"):
        setattr(place, field, 3)
    with pytest.raises(AttributeError, match=f"Named is frozen: '{field}'"):
        delattr(place, field)
    assert place == HERE
    assert not hasattr(place, "__dict__")


RECORDS = [
    Cancelled("enough"),
    Queue("q", 3, unwind=2),
    Retry(3, on=OSError, delay=2),
    events.JobSettled(1.0, "a-1", "fetch", "default", ("shop",), 1, "succeeded"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_copies_are_equal(record):
    """A record survives pickling, copying and replacing nothing, with a constructor of its own too."""
    twins = [
        copy.copy(record),
        copy.deepcopy(record),
        record.replace(),
        *(pickle.loads(pickle.dumps(record, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)),
    ]
    assert all(twin == record and type(twin) is type(record) for twin in twins)
    assert eval(repr(Cancelled("enough"))) == Cancelled("enough")


def test_replaced_fields_are_checked_like_given_ones():
    """`replace` makes another record, through the constructor."""
    assert HERE.replace(name="here") == Named(1.0, 2.0)
    assert Retry(3, on=OSError).replace(attempts=5) == Retry(5, on=OSError)
    with pytest.raises(ValueError, match="attempts"):
        Retry(3, on=OSError).replace(attempts=0)
    with pytest.raises(TypeError, match="colour"):
        HERE.replace(colour="red")
