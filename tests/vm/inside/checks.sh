# shellcheck shell=dash disable=SC1090,SC1091,SC2034,SC2154,SC2231
# Runs all groups of checks, or those on the kernel's command line, and prints a line for each check (TAP).
set -u
cd /vm || exit
. ./lib.sh
only=$(sed -n 's/.*checks=\([^ ]*\).*/\1/p' /proc/cmdline)
rounds=$(sed -n 's/.*rounds=\([0-9][0-9]*\).*/\1/p' /proc/cmdline)
for group in checks/*$only*.sh; do
    echo "# $(basename "$group" .sh), at $(cut -d ' ' -f 1 /proc/uptime) s"
    . "./$group"
done
echo "1..$count"
