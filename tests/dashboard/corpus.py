"""Texts that attack a page, a log or a terminal, and a source that puts one in every field there is."""

from typing import Any

from asyncworkers.dashboard.data import Action, Wanted

MARKS = "window.pwned=1"

PAYLOADS = [
    f"<script>{MARKS}</script>",
    f"<img src=x onerror={MARKS}>",
    f"<svg onload={MARKS}>",
    f"<svg><script>{MARKS}</script></svg>",
    f"<body onload={MARKS}>",
    f"<iframe srcdoc='<script>parent.{MARKS}</script>'></iframe>",
    f'<iframe src="javascript:parent.{MARKS}">',
    f"<details open ontoggle={MARKS}>x</details>",
    f"<video><source onerror={MARKS}></video>",
    f"<audio src=x onerror={MARKS}>",
    f"<input autofocus onfocus={MARKS}>",
    f"<select autofocus onfocus={MARKS}>",
    f"<textarea autofocus onfocus={MARKS}>",
    f"<marquee onstart={MARKS}>x</marquee>",
    f"<object data='javascript:{MARKS}'>",
    f"<embed src='javascript:{MARKS}'>",
    f"<math><mtext><script>{MARKS}</script></mtext></math>",
    f"<a href='javascript:{MARKS}'>click</a>",
    f"<form action='javascript:{MARKS}'><button>go</button></form>",
    "<base href='//evil.example/'>",
    "<meta http-equiv=refresh content='0;url=//evil.example/'>",
    "<link rel=stylesheet href='//evil.example/x.css'>",
    "<style>*{background:url(//evil.example/)}</style>",
    f"</script><script>{MARKS}</script>",
    f"</title><script>{MARKS}</script>",
    f"</textarea><script>{MARKS}</script>",
    f"</style><img src=x onerror={MARKS}>",
    f"<!--><img src=x onerror={MARKS}>-->",
    f"<![CDATA[<script>{MARKS}</script>]]>",
    f'"><script>{MARKS}</script>',
    f"'><script>{MARKS}</script>",
    f'" onmouseover="{MARKS}" x="',
    f"' onfocus='{MARKS}' autofocus x='",
    f"`-{MARKS}-`",
    f"${{{MARKS}}}",
    f"{{{{constructor.constructor('{MARKS}')()}}}}",
    f"javascript:{MARKS}//",
    f"data:text/html,<script>{MARKS}</script>",
    f"&lt;script&gt;{MARKS}&lt;/script&gt;",
    f"&#60;img src=x onerror={MARKS}&#62;",
    f"\\x3cscript\\x3e{MARKS}\\x3c/script\\x3e",
    f"%3Cscript%3E{MARKS}%3C/script%3E",
    f"<scr\x00ipt>{MARKS}</scr\x00ipt>",
    f"<img/src=x/onerror={MARKS}>",
    f"<IMG SRC=x OnErRoR={MARKS}>",
    f"<x onclick={MARKS} style=position:fixed;inset:0>x</x>",
    f"\u202e<script>{MARKS}</script>\u2066\u200b\ufeff",
    f"\u2028{MARKS}\u2029\r\n\r\ndata: {MARKS}\n\n",
    "\x1b]0;pwned\x07\x1b[2J\x9b31m\x85",
    "=cmd|'/C calc'!A0\t@SUM(1+1)\r+1-1",
]


def brief(text: str, number: int) -> dict[str, Any]:
    """A job whose every text is this one; but for its id, which tells it apart."""
    return {
        "id": f"{text}#{number}",
        "name": text,
        "queue": text,
        "state": "failed",
        "stored": True,
        "attempt": 1,
        "priority": 0,
        "tags": [text],
        "submitted": 1.0,
        "due": 1.0,
        "started": 1.0,
        "ended": 2.0,
        "cancelling": False,
        "progress": {"done": 1, "total": 2, "message": text},
        "error": text,
    }


class HostileSource:
    """Says of everything there is what an attacker would like to have said."""

    def __init__(self) -> None:
        self.actions: list[Action] = []

    def is_open(self) -> bool:
        """Always."""
        return True

    async def overview(self) -> dict[str, Any]:
        """A queue, a worker, a child, a stall and a failure for each of the texts."""
        numbered = list(enumerate(PAYLOADS))
        return {
            "at": 1.0,
            "name": PAYLOADS[0],
            "state": PAYLOADS[1],
            "queues": [
                {
                    "name": text,
                    "kind": text,
                    "stored": True,
                    "paused": True,
                    "workers": 1,
                    "running": 1,
                    "waiting": 1,
                    "scheduled": 0,
                    "oldest": 1.0,
                    "dead": 1,
                    "lent": 0,
                    "unknown": {text: 1},
                    "rate": 1.0,
                    "history": [1.0, 2.0],
                    "wait": None,
                    "run": None,
                }
                for _, text in numbered
            ],
            "workers": [
                {
                    "queue": text,
                    "worker": number,
                    "job_id": text,
                    "job_name": text,
                    "attempt": 1,
                    "seconds": 1.0,
                    "waits_for": [text],
                    "pid": 1,
                    "progress": {"done": 1, "total": 2, "message": text},
                }
                for number, text in numbered
            ],
            "more_workers": True,
            "children": [
                {
                    "queue": text,
                    "worker": number,
                    "pid": 1,
                    "ready": True,
                    "memory": 1,
                    "jobs": 1,
                    "job_name": text,
                    "job_id": text,
                    "sent": 0,
                }
                for number, text in numbered
            ],
            "stalls": [
                {
                    "at": float(number),
                    "seconds": 1.0,
                    "job_id": text,
                    "job_name": text,
                    "file": text,
                    "line": 1,
                    "function": text,
                    "held_gil": True,
                }
                for number, text in numbered
            ],
            "failures": [brief(text, number) for number, text in numbered],
        }

    async def jobs(self, wanted: Wanted) -> dict[str, Any]:
        """A job for each."""
        listed = [brief(text, number) for number, text in enumerate(PAYLOADS)]
        return {"jobs": listed, "after": None, "note": PAYLOADS[1]}

    async def job(self, ident: str) -> dict[str, Any] | None:
        """The job of the number that the id ends with."""
        number = int(ident.rpartition("#")[2])
        text = PAYLOADS[number]
        return {
            **brief(text, number),
            "state": "failed",
            "why": text,
            "args": {text: text, "nested": {text: [text]}},
            "result": {"value": {text: text}},
            "failure": {"type": text, "message": text, "notes": [text], "traceback": text},
            "attempts": [
                {
                    "attempt": text,
                    "worker": text,
                    "started": 1.0,
                    "seconds": 1.0,
                    "outcome": text,
                    "decision": text,
                    "error": text,
                }
            ],
            "attempts_note": text,
            "log": {
                "lines": [
                    {
                        "number": 1,
                        "at": 1.0,
                        "level": text,
                        "logger": text,
                        "logged": text,
                        "traceback": text,
                        "attempt": text,
                    }
                ],
                "dropped": text,
            },
            "log_note": text,
            "failures": text,
            "losses": text,
            "once": True,
            "expires": None,
            "kept_until": None,
            "codec": text,
        }

    async def act(self, action: Action) -> str:
        """Note that it was asked for."""
        self.actions.append(action)
        return PAYLOADS[1]
