"""What every face of a supervisor over HTTP has in common: who may ask, and how is answered.

- `guard` decides who may ask, `token` is the usual way to know them;
- `body` reads what comes in, `answers` says what goes out, `events` sends what happens; `first` waits.

It knows no supervisor. What of it is for users is found in `asyncworkers.http`. The library it is
built on is an extra, `asyncworkers[web]`.
"""
