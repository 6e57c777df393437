#!/bin/sh
# Resolve the dependency groups of pyproject.toml into requirements/, one pair of files for each
# line of Python and Django. What is pinned already stays unless UPGRADE=1.
set -eu
cd "$(dirname "$0")/.."

lock() { # group, line, oldest Python, constraint
    printf '%s\n' "$4" | uv pip compile --quiet pyproject.toml --group "$1" --constraint /dev/stdin \
        ${UPGRADE:+--upgrade} --universal --python-version "$3" --generate-hashes --no-emit-index-url \
        --no-annotate --custom-compile-command "make lock" --output-file "requirements/$1-$2.txt"
}

pins() { # line: the run file, so that dev pins the same
    sed -n 's/^\([A-Za-z0-9][^ ]*==[^ ]*\).*/\1/p' "requirements/run-$1.txt"
}

for line in "django52-py311 3.11 django>=5.2,<5.3" "django61-py313 3.12 django>=6.1,<6.2"; do
    set -- $line
    lock run "$1" "$2" "$3"
    lock dev "$1" "$2" "$(pins "$1")"
done
