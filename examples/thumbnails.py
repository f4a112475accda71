"""Thumbnails: pictures are drawn and shrunk in processes, and come and go as numpy arrays.

A job with `cpu=True` runs in a process of its own. The functions are those of this very file,
which is not run again there, so nothing needs to be hidden from the processes.

Prints:

    dunes: 1200 x 800 became 60 x 40, brightness from 64 to 190
    hills: 1200 x 800 became 60 x 40, brightness from 32 to 222
    waves: 1200 x 800 became 60 x 40, brightness from 2 to 252
    computed in other processes: True
"""

import os

import numpy as np
from numpy.typing import NDArray

from asyncworkers import Supervisor, job, run

Picture = NDArray[np.uint8]

CONTRAST = {"dunes": 64, "hills": 96, "waves": 127}


@job(cpu=True)
def draw(name: str) -> Picture:
    """Draw a picture of 1200 by 800 pixels in three colors, 2.9 MB."""
    y, x = np.mgrid[0:800, 0:1200]
    height = np.sin(x / 90) * np.cos(y / 70)
    gray = (128 + CONTRAST[name] * height).astype(np.uint8)
    return np.stack([gray] * 3, axis=2)


@job(cpu=True)
def shrink(picture: Picture, factor: int) -> tuple[int, Picture]:
    """Average squares of so many pixels; say also which process did it."""
    height, width, colors = picture.shape
    squares = picture.reshape(height // factor, factor, width // factor, factor, colors)
    return os.getpid(), squares.mean(axis=(1, 3)).astype(np.uint8)


def size(picture: Picture) -> str:
    """Width and height, as a photographer says it."""
    height, width, _ = picture.shape
    return f"{width} x {height}"


async def main() -> None:
    """Draw all pictures, and shrink each as soon as it is there."""
    processes: set[int] = set()
    async with Supervisor(processes=2) as supervisor:
        drawings = {name: await supervisor.submit(draw, name) for name in CONTRAST}
        for name, drawing in drawings.items():
            picture = await drawing
            process, thumbnail = await supervisor.call(shrink, picture, 20)
            processes.add(process)
            brightness = f"brightness from {thumbnail.min()} to {thumbnail.max()}"
            print(f"{name}: {size(picture)} became {size(thumbnail)}, {brightness}")
    print(f"computed in other processes: {os.getpid() not in processes}")


if __name__ == "__main__":
    run(main)
