"""
What this machine makes of postroom, beside its peers, in one run: ``make bench``.

Nothing here is in the wheel. Children (the provider, the peers) run as ``python -m bench.…`` in
environments that do not have postroom: this package and ``talk`` need nothing but Python.
"""
