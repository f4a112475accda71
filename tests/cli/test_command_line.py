"""The command line as a whole: help, completion, and what it says without its library."""

import importlib.util
import os
import subprocess
import sys

import click
import pytest

from asyncworkers.cli.root import root


def commands(command=root, path=()):
    """Yield every command with the words that name it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_every_command_has_help(run, path):
    """A sentence that says what it does, and one for each option; exit code 0."""
    for flag in ("-h", "--help"):
        told = run(*path, flag)
        assert told.code == 0
        assert told.lines[0].startswith(" ".join(["Usage: asyncworkers", *path]))
    command = dict(commands())[path]
    assert command.help
    silent = [one.name for one in command.params if isinstance(one, click.Option) and not one.help]
    assert silent == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_there_for_each_shell(shell):
    """What the reference says to put where the shell starts prints the shell's own words."""
    if shell == "bash" and subprocess.run(["bash", "-c", "true"], check=False).returncode:
        pytest.skip("there is no bash")
    told = complete(f"{shell}_source")
    assert f"_ASYNCWORKERS_COMPLETE={shell}_complete" in told
    assert "asyncworkers" in told


def complete(instruction, **environment):
    """Ask the command for completions, as a shell does."""
    return subprocess.run(
        [sys.executable, "-m", "asyncworkers"],
        env={**os.environ, "_ASYNCWORKERS_COMPLETE": instruction, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_commands_and_values_are_completed():
    """Subcommands, options and the states a job can be in."""
    told = complete("bash_complete", COMP_WORDS="asyncworkers jobs ", COMP_CWORD="2")
    assert {"plain,list", "plain,cancel", "plain,purge"} <= set(told.split())
    told = complete("bash_complete", COMP_WORDS="asyncworkers jobs retry --state ", COMP_CWORD="4")
    assert told.split() == ["plain,failed", "plain,cancelled"]


def test_without_its_library_it_says_what_to_install(run, monkeypatch):
    """In one line, with exit code 1."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = run("jobs", "list")
    assert (told.code, told.out) == (1, "")
    assert told.err == (
        "asyncworkers: the command line needs a library: pip install 'asyncworkers[cli]'\n"
    )


def test_the_library_is_imported_only_by_commands():
    """Neither the package nor the room of the command line imports it."""
    code = "import asyncworkers.cli, sys; sys.exit('click' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_commands_leave_drawing_alone_in_a_pipe(url):
    """The library that draws is imported for a terminal only: scripts need not wait for it."""
    code = (
        "import sys\nfrom asyncworkers.cli import main\n"
        f"code = main(['queues', '--store', {url!r}])\n"
        "sys.exit(code or 'rich' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, b"")
