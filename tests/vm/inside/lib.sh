# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# Functions for the checks.

# The machine that `run` starts: two sockets, the first with two GPUs, the second with one GPU on its node
# and one on a node without CPUs near to it.
EGM4_GPUS=0000:21:00.0+0000:22:00.0
EGM5_GPUS=0000:41:00.0+0000:61:00.0
EGM4_SIZE=479962595328
EGM5_SIZE=59659780096
DEBUG=/sys/kernel/debug/egm-stand-in
MODULE=/sys/module/nvgrace_egm
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

# By its path, because busybox has a command of the same name.
AS_NOBODY="/usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups"
as_nobody() {
    $AS_NOBODY timeout 60 egm-probe "$@"
}

# Loads the driver; in shape D, also the GPUs' driver, which makes the regions.
insert() { # PARAMETER..
    insmod nvgrace_egm.ko "$@" || return
    if [ "$(cat $MODULE/parameters/shape)" = D ]; then
        insmod nvgrace_gpu_vfio_pci.ko
    fi
}

take_out() {
    if [ -e /sys/module/nvgrace_gpu_vfio_pci ]; then
        rmmod nvgrace_gpu_vfio_pci || return
    fi
    rmmod nvgrace_egm
}

# Loads the driver with both regions.
load() { # SHAPE [PARAMETER..]
    local shape=$1
    shift
    insert shape="$shape" number=4,5 size=$EGM4_SIZE,$EGM5_SIZE \
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
    check "$1: the driver goes" take_out
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

# Starts a process that follows commands, unless it is running: `holder` or `other`, whose pid is in the variable of
# that name. AS is a prefix of its command, and GUEST makes it a virtual machine of that name.
start() { # NAME
    # Neither has the other's pipes, which would keep it from ending.
    case $1 in
    holder)
        to=8 from=9
        [ -z "${holder:-}" ] || return 0
        rm -f /tmp/holder.to /tmp/holder.from
        mkfifo /tmp/holder.to /tmp/holder.from
        ${AS:-} ./holder ${GUEST:+-name guest=$GUEST,debug-threads=on} </tmp/holder.to >/tmp/holder.from 6>&- 7<&- &
        holder=$!
        exec 8>/tmp/holder.to 9</tmp/holder.from
        ;;
    other)
        to=6 from=7
        [ -z "${other:-}" ] || return 0
        rm -f /tmp/other.to /tmp/other.from
        mkfifo /tmp/other.to /tmp/other.from
        ${AS:-} ./holder ${GUEST:+-name guest=$GUEST,debug-threads=on} </tmp/other.to >/tmp/other.from 8>&- 9<&- &
        other=$!
        exec 6>/tmp/other.to 7</tmp/other.from
        ;;
    esac
}

# Sends commands to a process, and waits until each is done.
tell() { # NAME COMMAND..
    local name=$1 command answer to from
    shift
    start "$name"
    for command; do
        echo "$command" >&$to
        read -r answer <&$from || answer=ended
        [ "$answer" = ok ] || return 1
    done
}

# Sends commands to a process that holds a region like a virtual machine.
hold() { # COMMAND..
    tell holder "$@"
}

# Sends a command, and does not wait: its answer will be in /tmp/NAME.answer.
begin() { # NAME COMMAND
    local to from
    start "$1"
    rm -f "/tmp/$1.answer"
    echo "$2" >&$to
    { read -r answer <&$from || answer=ended
        echo "$answer" >"/tmp/$1.answer.new"
        mv "/tmp/$1.answer.new" "/tmp/$1.answer"; } &
}

# Waits for that answer, and prints it.
answer() { # NAME
    until_so test -e "/tmp/$1.answer"
    cat "/tmp/$1.answer"
}

# Ends both processes.
let_go() {
    if [ -n "${holder:-}" ]; then
        exec 8>&- 9<&-
        wait "$holder"
        holder=
    fi
    if [ -n "${other:-}" ]; then
        exec 6>&- 7<&-
        wait "$other"
        other=
    fi
}
