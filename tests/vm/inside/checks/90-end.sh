# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# Checks of the whole run.
same "nothing but holders opened a device" "" \
    "$(dmesg | sed -n 's/.*nvgrace_egm: egm[0-9]* opened by \(.*\)\[[0-9]*\]$/\1/p' | sort -u |
        grep -vxE 'holder|qemu-system-x86')"
same "the kernel has nothing to complain about" "" \
    "$(dmesg | grep -v 'command line:' -i | grep -E 'BUG:|WARNING:|Oops|Call Trace|deadlock|lockup|stall')"
