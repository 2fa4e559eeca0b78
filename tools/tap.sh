#!/bin/bash
# Runs a test program and writes its skipped tests the way TAP wants them: cmocka 1.1.5 (Debian 12) says "not ok N # SKIP name",
# which meson must take for a failure. The exit status is the program's.
set -o pipefail
"$@" | sed -u 's/^not ok \([0-9]*\) # SKIP \(.*\)$/ok \1 - \2 # SKIP/'
exit "${PIPESTATUS[0]}"
