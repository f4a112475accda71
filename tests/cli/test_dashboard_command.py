"""`asyncworkers dashboard`: a page for a store, for whoever knows the token of the start."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest


def start(url, *arguments, **environment):
    """Start the command as a user would; gives the process and the address it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncworkers", "dashboard", url, "--port", "0", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    found = re.search(r"(http://\S+)#token=(\S+)", line)
    assert found is not None, line + process.stderr.read()
    return process, found[1], found[2]


def ask(where, token, path, body=None):
    """Ask as a program does; gives status and answer."""
    request = urllib.request.Request(
        where + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def end(process, number=signal.SIGINT):
    """Send a signal; gives the exit code."""
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert "Traceback" not in err, err
    return process.returncode


def test_it_shows_a_store_to_whoever_has_the_token(url):
    """On this machine, with a token of its own for each start; a signal ends it, a stream held open too."""
    process, where, token = start(url)
    try:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", where)
        status, picture = ask(where, token, "api/overview")
        assert status == 200
        assert [one["name"] for one in picture["queues"]] == ["mail", "web"]
        assert picture["name"] == "jobs.db"
        status, page = ask(where, token, "api/jobs?state=failed")
        assert [one["id"] for one in page["jobs"]] == ["dead"]
        assert ask(where, "x" * 32, "api/overview")[0] == 401
        status, error = ask(where, token, "api/act", {"action": "cancel", "target": "waits"})
        assert (status, error["error"]["type"]) == (403, "Forbidden")
        stream = urllib.request.urlopen(
            urllib.request.Request(
                where + "api/live", headers={"Authorization": f"Bearer {token}"}
            ),
            timeout=30,
        )
        with stream:
            assert stream.readline().startswith(b"retry")
            assert end(process) == 0
    finally:
        process.kill()
        process.communicate()


def test_actions_are_asked_for(url):
    """With --actions jobs can be cancelled and retried."""
    process, where, token = start(url, "--actions")
    try:
        status, said = ask(where, token, "api/act", {"action": "retry", "target": "dead"})
        assert (status, said["message"]) == (200, "Job dead is back in line.")
        status, said = ask(where, token, "api/act", {"action": "cancel", "target": "waits"})
        assert (status, said["message"]) == (200, "Job waits is cancelled.")
        assert end(process, signal.SIGTERM) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_token_of_ones_own(url):
    """ASYNCWORKERS_DASHBOARD_TOKEN, and only that, opens the dashboard to other machines."""
    secret = "0123456789abcdef0123456789abcdef"
    process, where, token = start(url, "--host", "0.0.0.0", ASYNCWORKERS_DASHBOARD_TOKEN=secret)
    try:
        assert token == secret
        assert ask(where.replace("0.0.0.0", "127.0.0.1"), token, "api/overview")[0] == 200
        assert end(process) == 0
    finally:
        process.kill()
        process.communicate()


def test_fault_V05_the_dashboard_of_a_store_is_for_this_machine(run, url, monkeypatch):
    """To listen for others without a token that was chosen is refused, and there is no option for it."""
    monkeypatch.delenv("ASYNCWORKERS_DASHBOARD_TOKEN", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        told = run("dashboard", url, "--host", host)
        assert told.code == 2
        assert "auth must be given to listen on" in told.err
        assert "ASYNCWORKERS_DASHBOARD_TOKEN" in told.err
    monkeypatch.setenv("ASYNCWORKERS_DASHBOARD_TOKEN", "short")
    told = run("dashboard", url, "--host", "0.0.0.0")
    assert (told.code, "32 to 512" in told.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Which store?"),
        (["memory:"], "jobs in memory are their process' own"),
        (["mysql://x"], "must be sqlite:///"),
        (["sqlite:///nowhere.db"], "there is no file"),
        (["URL", "--port", "70000"], "70000 is not in the range"),
        (["URL", "--allow-host", "a b"], "hosts must hold names"),
    ],
)
def test_wrong_usage_of_dashboard(run, url, arguments, complaint, monkeypatch, tmp_path):
    """What is wrong is said before anything is served."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASYNCWORKERS_STORE", raising=False)
    told = run("dashboard", *[url if one == "URL" else one for one in arguments])
    assert told.code in (1, 2)
    assert complaint in " ".join(told.err.split())


def test_a_port_that_is_taken(run, url):
    """Is said, with the address."""
    process, where, _ = start(url)
    try:
        port = where.rpartition(":")[2].rstrip("/")
        told = run("dashboard", url, "--port", port)
        assert told.code == 1
        assert f"cannot listen on 127.0.0.1:{port}" in told.err
    finally:
        process.kill()
        process.communicate()
