"""The child's side of the process bridge, and what both sides must agree on: frames and shared memory.

A child process imports these modules under another package name (`boot` says how), so that it need
not import asyncworkers, and with it asyncio, before the user's code does. So they import nothing
but light modules of the standard library, and each other relatively.
"""
