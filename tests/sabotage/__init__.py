"""
Breaks the code in known places, one line at a time, to see whether a test notices.

``patches.py`` holds the breaks as data, ``python -m tests.sabotage`` tries them on copies of the
checkout. A break that no test notices is a promise that nobody checks.
"""
