#!/usr/bin/env bash
# Measures how long egm-probe, fuser, lsof and grep over all maps take to find the holder of a region
# among many idle processes. Prints medians, and ratios to egm-probe.
#
#   benches/holders.sh [PROGRAM [PROCESSES [RUNS]]]      (as root)
#
# The region is a stand-in with the number of /dev/zero, in a mount namespace of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:-target/release/egm-probe}")
processes=${2:-2000}
runs=${3:-11}

if [ "${HOLDERS_INSIDE:-}" != yes ]; then
    [ "$(id -u)" -eq 0 ] || { echo "this needs root: for a mount namespace and a device node" >&2; exit 1; }
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cp -a tests/fixtures/gb200-full-gpu-list "$work/host"
    echo 1:5 >"$work/host/sys/devices/virtual/egm/egm4/dev"
    mknod -m 0666 "$work/egm4" c 1 5
    cc -O1 -o "$work/holder" tests/suite/holder.c
    HOLDERS_INSIDE=yes WORK=$work unshare -m bash "$0" "$program" "$processes" "$runs"
    exit
fi

mount --make-rprivate /
mount -t overlay o -o "lowerdir=$WORK/host/sys:/sys" /sys
device=$WORK/egm4

pids=()
end() { kill "${pids[@]}" 2>/dev/null || true; }
trap end EXIT
for ((i = 0; i < processes; i++)); do
    sleep 3600 &
    pids+=($!)
done
mkfifo "$WORK/orders"
"$WORK/holder" <"$WORK/orders" >/dev/null &
pids+=($!)
exec 9>"$WORK/orders"
printf 'open %s\nmap 1048576 8388608\n' "$device" >&9
holder=${pids[-1]}
while ! grep -q "$device" "/proc/$holder/maps"; do sleep 0.05; done

# Each tool must find the holder, or its time is meaningless.
finds() { # PATTERN COMMAND..
    local found
    found=$("${@:2}" 2>/dev/null || true)
    [[ $found =~ $1 ]] || { echo "$2 does not find the holder" >&2; exit 1; }
}
list=("$program" list -n -r -o DEVICE,STATE,HOLDER,HELD)
finds "holder.$holder." "${list[@]}"
finds "$holder" fuser "$device"
finds "$holder" lsof "$device"
maps() { grep -l "$device" /proc/[0-9]*/maps; }
finds "/$holder/" maps

median() { # COMMAND..
    for ((run = 0; run < runs; run++)); do
        local start=${EPOCHREALTIME/./}
        "$@" >/dev/null 2>&1 || true
        echo $((${EPOCHREALTIME/./} - start))
    done | sort -n | sed -n "$(((runs + 1) / 2))p"
}

all=(/proc/[0-9]*)
echo "${#all[@]} processes, median of $runs runs:"
ours=$(median "${list[@]}")
row() { # NAME MICROSECONDS
    awk -v name="$1" -v time="$2" -v ours="$ours" \
        'BEGIN { printf "  %-38s %8.1f ms   %5.2f x\n", name, time / 1000, time / ours }'
}
row "egm-probe list (maps, fds, libvirt)" "$ours"
row "egm-probe list --no-occupancy" "$(median "$program" list --no-occupancy)"
row "fuser DEVICE" "$(median fuser "$device")"
row "lsof DEVICE" "$(median lsof "$device")"
row "grep -l DEVICE /proc/[0-9]*/maps" "$(median maps)"
