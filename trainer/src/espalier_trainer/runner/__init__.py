"""The runner: starts the ranks of one attempt, speaks for them, and ends with a code that says what happened.

It imports no torch: the memory and the cores belong to the ranks.
"""
