#!/usr/bin/env bash
# Measures, among many processes, how long egm-probe takes on an idle host, how long it, fuser, lsof and
# grep over all maps take to find the holder of a region, and the CPU time and latency of `watch`.
# Prints medians and ratios, and fails if a ratio is above its limit.
#
#   benches/holders.sh [PROGRAM [PROCESSES [RUNS]]]      (as root)
#
# The region is a stand-in with the number of /dev/zero, and its driver's count of open files is a plain
# file, both in a mount namespace of their own.
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
    echo 1:5 >"$work/host/sys/devices/virtual/egm/egm5/dev"
    mkdir -p "$work/host/sys/module/nvgrace_egm" "$work/module"
    echo live >"$work/module/initstate"
    mkdir "$work/dev"
    mknod "$work/dev/egm4" c 510 4
    mknod -m 0666 "$work/dev/egm5" c 1 5
    mknod -m 0666 "$work/dev/null" c 1 3
    cc -O1 -o "$work/holder" tests/suite/holder.c
    HOLDERS_INSIDE=yes WORK=$work unshare -m bash "$0" "$program" "$processes" "$runs"
    exit
fi

# Files that the caller's shell leaves open would be in every process.
for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    ((fd <= 2 || fd == 255)) || eval "exec $fd>&-"
done

mount --make-rprivate /
mount -t overlay o -o "lowerdir=$WORK/host/sys:/sys" /sys
mount --bind "$WORK/module" /sys/module/nvgrace_egm
mount --bind "$WORK/dev" /dev
device=/dev/egm5
# The driver has two references for each open file.
files() { echo $((2 * $1)) >"$WORK/module/refcnt"; }
files 0

pids=()
end() { kill "${pids[@]}" 2>/dev/null || true; }
trap end EXIT
for ((i = 0; i < processes; i++)); do
    sleep 3600 <"$0" &
    pids+=($!)
done
mkfifo "$WORK/orders"
"$WORK/holder" <"$WORK/orders" >/dev/null &
pids+=($!)
exec 9>"$WORK/orders"
holder=${pids[-1]}

bare() { "$program" list --no-occupancy; }
list() { "$program" list -n -r -o DEVICE,STATE,HOLDER,HELD; }
by_fuser() { fuser "$device"; }
by_lsof() { lsof "$device"; }
by_grep() { grep -l "$device" /proc/[0-9]*/maps; }

# Sets the median time of each tool. They run in three turns, because a machine's speed varies, and the first
# runs of a turn do not count: see `warm`.
declare -A median
measure() { # TOOL..
    local turn run tool start
    rm -f "$WORK"/times.*
    for turn in 1 2 3; do
        for tool; do
            for ((run = -2; run < (runs + 2) / 3; run++)); do
                start=${EPOCHREALTIME/./}
                "$tool" >/dev/null 2>&1 || true
                ((run < 0)) || echo $((${EPOCHREALTIME/./} - start)) >>"$WORK/times.$tool"
            done
        done
    done
    for tool; do
        median[$tool]=$(sort -n "$WORK/times.$tool" | sed -n "$(((runs + 1) / 2))p")
    done
}

# The processes that were just started are still busy.
sleep 3
missed=0
# The ratio of two times, and its limit.
row() { # NAME MICROSECONDS BASE [LIMIT]
    awk -v name="$1" -v time="$2" -v base="$3" -v limit="${4:-}" 'BEGIN {
        ratio = time / base
        printf "  %-44s %8.1f ms   %5.2f x%s\n", name, time / 1000, ratio, limit == "" ? "" : "  (at most " limit ")"
        exit limit != "" && ratio > limit
    }' || missed=1
}

all=(/proc/[0-9]*)
echo "${#all[@]} processes, median of $runs runs"
echo "idle:"
measure bare list
row "egm-probe list --no-occupancy" "${median[bare]}" "${median[bare]}"
row "egm-probe list" "${median[list]}" "${median[bare]}" 1.5

printf 'open %s\nmap 1048576 8388608\n' "$device" >&9
while ! grep -q "$device" "/proc/$holder/maps"; do sleep 0.05; done
files 1

# Each tool must find the holder, or its time is meaningless.
finds() { # PATTERN COMMAND..
    local found
    found=$("${@:2}" 2>/dev/null || true)
    [[ $found =~ $1 ]] || { echo "$2 does not find the holder" >&2; exit 1; }
}
finds "holder.$holder." list
finds "$holder" by_fuser
finds "$holder" by_lsof
finds "/$holder/" by_grep

echo "held:"
measure list by_fuser by_lsof by_grep
ours=${median[list]}
row "egm-probe list" "$ours" "$ours"
row "egm-probe list, compared to fuser DEVICE" "$ours" "${median[by_fuser]}" 0.45
row "egm-probe list, compared to lsof DEVICE" "$ours" "${median[by_lsof]}" 0.2
row "egm-probe list, compared to grep -l over maps" "$ours" "${median[by_grep]}" 1

# CPU time of all threads of `watch`, in percent of a core. The limits are for a machine whose memory stays
# warm: a hypervisor may take away pages that were idle for a second, and each costs 0.1 ms to get back. Other
# processes that do the same keep them.
busy=()
warm() {
    local cpu
    for ((cpu = $(nproc); cpu > 0; cpu--)); do
        nice -n 19 sh -c 'while :; do "$1" watch --timeout 1ms; done' sh "$program" >/dev/null 2>&1 &
        busy+=($!)
    done
    pids+=("${busy[@]}")
}
cool() {
    kill "${busy[@]}"
    busy=()
}
cpu_time() { # NAME LIMIT MEMORY
    local before after
    # The first field is the time in nanoseconds.
    before=$(cat "/proc/$watch"/task/*/schedstat | awk '{ sum += $1 } END { printf "%d", sum }')
    sleep 20
    after=$(cat "/proc/$watch"/task/*/schedstat | awk '{ sum += $1 } END { printf "%d", sum }')
    awk -v name="$1, $3" -v nanoseconds=$((after - before)) -v limit="$2" 'BEGIN {
        percent = 100 * nanoseconds / 1e9 / 20
        printf "  %-44s %8.2f %%%s\n", name, percent, limit == "" ? "" : "  (at most " limit ")"
        exit limit != "" && percent > limit
    }' || missed=1
}

echo "egm-probe watch, in 20 seconds:"
"$program" watch --json >"$WORK/events" 2>/dev/null &
watch=$!
pids+=("$watch")
sleep 2
cpu_time "a region is held" "" alone
warm
cpu_time "a region is held" 0.6 warm
# The same holder lets go and takes it again.
changes=()
for ((change = 0; change < 10; change++)); do
    lines=$(wc -l <"$WORK/events")
    start=${EPOCHREALTIME/./}
    files $((change % 2))
    while [ "$(wc -l <"$WORK/events")" = "$lines" ]; do sleep 0.005; done
    changes+=($((${EPOCHREALTIME/./} - start)))
    sleep 0.$((RANDOM % 9 + 1))
done
slowest=$(printf '%s\n' "${changes[@]}" | sort -n | tail -n 1)
row "slowest of ${#changes[@]} changes of a holder" "$slowest" 300000 1
cool
files 0
sleep 2
cpu_time "nothing is open" "" alone
warm
cpu_time "nothing is open" 0.3 warm
exit "$missed"
