"""A web service with FastAPI: a photograph comes in, thumbnails of it go out, and the page shows how far it is.

The supervisor lives and drains with the application. Thumbnails are made by jobs that compute in other
processes, so requests are answered meanwhile; each reports its progress, which the page follows as a
stream of events.

    uvicorn image_service:app        # then open http://127.0.0.1:8000
    python image_service.py          # starts it, sends a photograph, looks at what comes back, stops it

Needs fastapi, uvicorn, pillow and python-multipart, and for the run without arguments aiohttp and
matplotlib, which ships the photograph: pip install fastapi uvicorn pillow python-multipart aiohttp matplotlib.

Prints:

    accepted as a job, queue "processes"
    progress grew until it succeeded: True
    thumbnails: 64 x 75, 128 x 150, 256 x 300, 384 x 450
    what is no picture: 422
"""

import asyncio
import io
import json
import re
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import uvicorn
from aiohttp import ClientSession, FormData
from fastapi import Depends, FastAPI, HTTPException, Request, UploadFile
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from PIL import Image, UnidentifiedImageError

from asyncworkers import Job, JobCancelled, QueueFull, Supervisor, current_job, job, run

WIDTHS = (64, 128, 256, 384)
LARGEST = 20_000_000
KEPT = 1_000

Thumbnails = dict[int, bytes]


@job(cpu=True, timeout=60)
def thumbnails(photograph: bytes) -> Thumbnails:
    """Shrink a photograph to each width; PNG by width."""
    made: Thumbnails = {}
    with Image.open(io.BytesIO(photograph)) as picture:
        for width in WIDTHS:
            small = picture.convert("RGB")
            small.thumbnail((width, 10 * width), Image.Resampling.LANCZOS)
            file = io.BytesIO()
            small.save(file, "PNG")
            made[width] = file.getvalue()
            current_job().report(len(made), len(WIDTHS), f"{width} pixels wide")
    return made


supervisor = Supervisor(name="images")
app = FastAPI(title="Thumbnails", lifespan=supervisor.lifespan)
jobs: dict[str, Job[Thumbnails]] = {}


def known(job_id: str) -> Job[Thumbnails]:
    """The job of this address, or 404."""
    if job_id not in jobs:
        raise HTTPException(404, "there is no such picture (any more)")
    return jobs[job_id]


Known = Annotated[Job[Thumbnails], Depends(known)]


@app.post("/pictures", status_code=202)
async def accept(picture: UploadFile) -> dict[str, str]:
    """Accept a photograph; what is made of it is found under the id."""
    if picture.size is None or picture.size > LARGEST:
        raise HTTPException(413, f"a picture may have {LARGEST} bytes")
    try:
        accepted = supervisor.submit_nowait(thumbnails, await picture.read())
    except QueueFull:
        raise HTTPException(503, "too much to do", {"Retry-After": "5"}) from None
    jobs[accepted.id] = accepted
    while len(jobs) > KEPT:
        jobs.pop(next(iter(jobs))).cancel("newer pictures came")
    return {"id": accepted.id, "queue": accepted.queue}


@app.get("/pictures/{job_id}/progress")
async def progress(job: Known, request: Request) -> StreamingResponse:
    """How far it is, as server-sent events; the last one says how it ended."""

    async def events() -> AsyncGenerator[str]:
        told = 0
        while not job.done() and not await request.is_disconnected():
            if job.progress is not None and job.progress.done != told:
                told = int(job.progress.done)
                yield event("progress", {"done": told, "total": job.progress.total})
            await asyncio.sleep(0.02)
        yield event(job.state.value, {"why": job.why})

    return StreamingResponse(events(), media_type="text/event-stream")


def event(kind: str, data: dict[str, object]) -> str:
    """One event on the wire."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


@app.get("/pictures/{job_id}/{width}.png")
async def thumbnail(job: Known, width: int) -> Response:
    """One thumbnail; waits until it is made."""
    try:
        made = await job
    except UnidentifiedImageError:
        raise HTTPException(422, "this is no picture that Pillow can read") from None
    except JobCancelled as cancelled:
        raise HTTPException(503, str(cancelled)) from None
    if width not in made:
        raise HTTPException(404, f"there are widths of {WIDTHS}")
    return Response(made[width], media_type="image/png")


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """The page for people."""
    return PAGE


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Thumbnails</title>
<link rel="icon" href="data:,">
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 3rem auto; padding: 0 1rem }
  progress { width: 100% }
  #made img { margin: 0 1rem 1rem 0; vertical-align: top }
</style>
<h1>Thumbnails</h1>
<form id="send"><label>A photograph <input type="file" name="picture" accept="image/*" required></label>
<button>Send</button></form>
<p id="said" role="status"></p>
<progress id="bar" value="0" max="4" hidden></progress>
<div id="made"></div>
<script>
const said = document.querySelector("#said"), bar = document.querySelector("#bar");
const made = document.querySelector("#made");
document.querySelector("#send").onsubmit = async event => {
  event.preventDefault();
  made.replaceChildren();
  const answer = await fetch("/pictures", {method: "POST", body: new FormData(event.target)});
  if (!answer.ok) { said.textContent = `refused: ${answer.status}`; return; }
  const {id} = await answer.json();
  bar.hidden = false;
  said.textContent = "at work";
  const events = new EventSource(`/pictures/${id}/progress`);
  events.addEventListener("progress", event => { bar.value = JSON.parse(event.data).done; });
  for (const end of ["succeeded", "failed", "cancelled"]) events.addEventListener(end, event => {
    events.close();
    said.textContent = end === "succeeded" ? "done" : `${end}: ${JSON.parse(event.data).why}`;
    if (end !== "succeeded") return;
    bar.value = 4;
    for (const width of [64, 128, 256, 384]) {
      const image = new Image();
      image.src = `/pictures/${id}/${width}.png`;
      image.alt = `the photograph, ${width} pixels wide`;
      made.append(image);
    }
  });
};
</script>
</html>
"""


# ---- without arguments: use it once, as a browser would


async def main() -> None:
    """Start the service, send it a photograph, look at what comes back, stop it."""
    async with serving() as address, ClientSession(address) as session:
        photograph = await asyncio.to_thread(read_photograph)
        accepted = await send(session, photograph)
        print(f'accepted as a job, queue "{accepted["queue"]}"')
        async with session.get(f"/pictures/{accepted['id']}/progress") as events:
            text = await events.text()
        told = re.findall(r"event: (\w+)\ndata: (.*)", text)
        done = [json.loads(data)["done"] for kind, data in told if kind == "progress"]
        print(f"progress grew until it {told[-1][0]}: {done == sorted(set(done))}")
        sizes: list[str] = []
        for width in WIDTHS:
            async with session.get(f"/pictures/{accepted['id']}/{width}.png") as answer:
                with Image.open(io.BytesIO(await answer.read())) as small:
                    sizes.append("{} x {}".format(*small.size))
        print("thumbnails:", ", ".join(sizes))
        wrong = await send(session, b"these bytes are no picture")
        async with session.get(f"/pictures/{wrong['id']}/64.png") as answer:
            print("what is no picture:", answer.status)


def read_photograph() -> bytes:
    """Grace Hopper, 512 by 600 pixels: a photograph that matplotlib ships."""
    import matplotlib as mpl

    return Path(mpl.get_data_path(), "sample_data", "grace_hopper.jpg").read_bytes()


async def send(session: ClientSession, photograph: bytes) -> dict[str, str]:
    """Upload it as a form does."""
    form = FormData()
    form.add_field("picture", photograph, filename="photograph.jpg", content_type="image/jpeg")
    async with session.post("/pictures", data=form) as answer:
        answer.raise_for_status()
        accepted: dict[str, str] = await answer.json()
        return accepted


@asynccontextmanager
async def serving() -> AsyncGenerator[str]:
    """Serve the application in this loop, on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


if __name__ == "__main__":
    run(main)
