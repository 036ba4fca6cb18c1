# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# Functions for the checks.

# The machine that `run` starts: two sockets, the first with two GPUs, the second with one GPU on its node
# and one on a node without CPUs near to it.
EGM4_GPUS=0000:21:00.0+0000:22:00.0
EGM5_GPUS=0000:41:00.0+0000:61:00.0
EGM4_SIZE=479962595328
EGM5_SIZE=59659780096
DEBUG=/sys/kernel/debug/egm-stand-in
MIB=1048576

count=0
result() { # STATUS NAME FILE: if the status is not 0, the file has the reason
    count=$((count + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $count - $2"
    else
        echo "not ok $count - $2"
        sed 's/^/# /' "$3"
    fi
}

check() { # NAME COMMAND..: the command succeeds
    local name=$1
    shift
    "$@" >/tmp/why 2>&1
    result $? "$name" /tmp/why
}

same() { # NAME EXPECTED FOUND
    printf 'expected: %s\nfound:    %s\n' "$2" "$3" >/tmp/why
    [ "$2" = "$3" ]
    result $? "$1" /tmp/why
}

# Waits until a command succeeds, ten seconds at most.
until_so() { # COMMAND..
    local tries=100
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
}

# The program under test, which must never crash.
probe() {
    timeout 60 egm-probe "$@"
}

# Loads the driver with both regions.
load() { # SHAPE [PARAMETER..]
    local shape=$1
    shift
    insmod nvgrace_egm.ko shape="$shape" number=4,5 size=$EGM4_SIZE,$EGM5_SIZE \
        gpus=$EGM4_GPUS,$EGM5_GPUS "$@" && udevadm settle
}

# Prints the exit status of a command.
code() { # COMMAND..
    "$@" >/tmp/why 2>&1
    echo $?
}

# Prints how often each region was opened since the driver was loaded, sorted by name.
opens() {
    cat $DEBUG/egm*/opens 2>/dev/null | xargs
}

# Unloads the driver, and checks that no other process opened a device.
unload() { # AFTER OPENS
    same "$1: what looks opens nothing" "$2" "$(opens)"
    check "$1: the driver goes" rmmod nvgrace_egm
    udevadm settle
}

# The part of a list that depends on the driver.
list() {
    probe list --json "$@" | jq -c '.regions[] | [.name, .shape, .size, .numa_node, .numa_node_from,
        ([.gpus[].address] | join("+")), .warnings]'
}

# One region of a list, by a jq expression.
region() { # NAME EXPRESSION
    probe list --json | jq -c --arg name "$1" ".regions[] | select(.name == \$name) | $2"
}

# Sends a command to the driver: join, leave or remove.
control() { # WHAT NUMBER [GPU]
    echo "$*" >$DEBUG/control
}

# Prints the permissions of devices, from stat.
modes() { # PATH..
    stat -c '%a %U:%G' "$@" | xargs
}

# Sends commands to a process that holds a region like a virtual machine.
hold() { # COMMAND..
    if [ -z "${holder:-}" ]; then
        rm -f /tmp/say /tmp/said
        mkfifo /tmp/say /tmp/said
        ${AS:-} ./holder </tmp/say >/tmp/said &
        holder=$!
        exec 8>/tmp/say 9</tmp/said
    fi
    local command answer
    for command; do
        echo "$command" >&8
        read -r answer <&9 || answer=ended
        [ "$answer" = ok ] || return 1
    done
}

let_go() {
    [ -z "${holder:-}" ] && return
    exec 8>&- 9<&-
    wait "$holder"
    holder=
}
