"""What a child process runs first: `python boot.py ORDERS ANSWERS MEMORY LIFELINE ARENA`.

These are descriptors. It gives this directory the name of a package of its own, and imports `serve`
from there: importing `asyncworkers.bridge.child` would import the whole of asyncworkers first.
"""

import sys

if __name__ == "__main__":
    import os

    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]
    package = type(sys)("asyncworkers_child")
    package.__path__ = [here]
    sys.modules["asyncworkers_child"] = package
    __import__("asyncworkers_child.serve")
    sys.modules["asyncworkers_child.serve"].main(*map(int, sys.argv[1:6]))
