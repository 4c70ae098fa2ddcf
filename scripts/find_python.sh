#!/bin/sh
# Print a Python that can run the project (3.11 to 3.13, with venv), or say on one line what to do.
#
#   find_python.sh            the first that fits of python3, python3.13, python3.12, python3.11
#   find_python.sh PYTHON     that one or none
set -u

probe='
import platform, sys
version = "%d.%d.%d" % sys.version_info[:3]
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    print("%s, but 3.11, 3.12 or 3.13 is needed" % version)
elif sys.platform == "darwin" and platform.machine() == "x86_64":
    print("%s for Intel, for which PyTorch has no macOS build; use an arm64 Python" % version)
else:
    try:
        import ensurepip, venv
        print("ok")
    except ImportError:
        print("%s without venv; on Debian and Ubuntu: apt install python%d.%d-venv"
              % ((version,) + sys.version_info[:2]))
'

if [ -n "${1:-}" ]; then
    set -- "$1"
else
    set -- python3 python3.13 python3.12 python3.11
fi

reason=
for candidate; do
    found=$("$candidate" -c "$probe" 2>/dev/null) || found="not found"
    if [ "$found" = ok ]; then
        printf '%s\n' "$candidate"
        exit 0
    fi
    [ -n "$reason" ] || reason="$candidate is $found"
done
printf 'No usable Python: %s. Install one, or name it: make PYTHON=/path/to/python3.12 ...\n' \
    "$reason" >&2
exit 1
