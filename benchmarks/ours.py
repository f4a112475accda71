"""The rows of asyncworkers, through its public API only."""
