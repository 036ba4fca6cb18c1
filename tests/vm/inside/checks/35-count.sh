# shellcheck shell=dash disable=SC2012,SC2016,SC2034,SC2046,SC2086,SC2154
# The driver's own count of open files. It is known even while no process shows a file: during open, which scrubs the
# region first, and in a socket. First the driver, which behaves like the real one, then the program.
AT=$((300 * 1024 * MIB))
LENGTH=$((8 * MIB))

refcnt() {
    cat $MODULE/refcnt
}

is_above() { # COUNT
    [ "$(refcnt)" -gt "$1" ]
}

# Prints the permissions, offset and name of each mapping of a region by one process.
maps() { # PID
    awk '$6 ~ "/egm[0-9]" { print $2, $3, $6 ($7 ? " " $7 : "") }' "/proc/$1/maps"
}

children() { # PID
    grep -l "^PPid:[[:space:]]$1\$" /proc/[0-9]*/status | cut -d / -f 3
}

# Prints processes in the order of shown_by.
sorted() { # PID..
    printf '%s\n' "$@" | sort -un | xargs
}

# Prints the offset of one of these mappings.
offset() { # PERMISSIONS OFFSET NAME
    printf %d "0x${2:-0}"
}

# Prints the processes that show a region, open or mapped.
shown_by() {
    {
        grep -l '/dev/egm' /proc/[0-9]*/maps
        ls -l /proc/[0-9]*/fd/* | sed -n 's| -> /dev/egm.*||; t found; d; : found; s|.* ||p'
    } 2>/dev/null | cut -d / -f 3 | sort -un | xargs
}

for shape in E D; do
    case $shape in
    E) rest=0 owner="" exclusive=1 ;;
    D) rest=1 owner=nvgrace_gpu_vfio_pci exclusive=0 ;;
    esac
    load $shape exclusive=$exclusive
    same "shape $shape: who uses the driver" "$owner" "$(ls $MODULE/holders)"
    same "shape $shape: refcnt at rest" $rest "$(refcnt)"
    same "shape $shape: initstate" live "$(cat $MODULE/initstate)"
    hold "open /dev/egm4"
    same "shape $shape: refcnt of an open file" $((rest + 2)) "$(refcnt)"
    hold "share 0 $LENGTH" "share $LENGTH $LENGTH"
    same "shape $shape: refcnt of a file that is also mapped" $((rest + 2)) "$(refcnt)"
    tell other "open /dev/egm5"
    same "shape $shape: refcnt of two open files" $((rest + 4)) "$(refcnt)"
    hold "fork" "close"
    same "shape $shape: refcnt of a file that two processes have" $((rest + 4)) "$(refcnt)"
    same "shape $shape: both processes show it" "$(sorted $holder $(children $holder) $other)" "$(shown_by)"
    hold "path /dev/egm5"
    same "shape $shape: refcnt, and a place in the tree" $((rest + 4)) "$(refcnt)"
    let_go
    same "shape $shape: refcnt when all have ended" $rest "$(refcnt)"

    tell other "socket /tmp/mailbox"
    hold "open /dev/egm4" "share 0 $LENGTH" "send /tmp/mailbox"
    same "shape $shape: refcnt of a file that is sent" $((rest + 2)) "$(refcnt)"
    same "shape $shape: only the sender shows it" $holder "$(shown_by)"
    tell other "receive" "share 0 $LENGTH"
    same "shape $shape: refcnt of a file that is received" $((rest + 2)) "$(refcnt)"
    same "shape $shape: sender and receiver show it" "$(sorted $holder $other)" "$(shown_by)"
    let_go

    hold "socket /tmp/mailbox" "open /dev/egm4" "send /tmp/mailbox" "close"
    same "shape $shape: refcnt of a file in flight" $((rest + 2)) "$(refcnt)"
    same "shape $shape: no process shows it" "" "$(shown_by)"
    let_go
    same "shape $shape: refcnt when the socket is closed" $rest "$(refcnt)"

    # The offset of a shared mapping is shown as requested, that of a private one is its physical address.
    hold "open /dev/egm4" "share $AT $LENGTH"
    same "shape $shape: the offset of a shared mapping" "rw-s $(printf %08x $AT) /dev/egm4" "$(maps $holder)"
    let_go
    hold "open /dev/egm4" "private 0 $MIB"
    first=$(maps $holder)
    let_go
    hold "open /dev/egm4" "private $MIB $MIB"
    second=$(maps $holder)
    let_go
    echo "# shape $shape: private mappings at 0 and 1 MiB: $first, $second"
    both=$(printf '%s\n' "$first" "$second" | cut -d ' ' -f 1 | xargs)
    difference=$(($(offset $second) - $(offset $first)))
    same "shape $shape: physical addresses of private mappings" \
        "rw-p rw-p $([ $shape = E ] && echo $MIB || echo 0)" "$both $difference"
    check "shape $shape: they are no offsets in the region" test "$(offset $first)" -ne 0
    same "shape $shape: a mapping past the end" "$([ $shape = E ] && echo 1 || echo 0)" \
        "$(code hold "open /dev/egm4" "share $EGM4_SIZE $MIB")"
    let_go

    echo 3000 >$MODULE/parameters/scrub_ms
    begin holder "open /dev/egm5"
    until_so is_above $rest
    same "shape $shape: refcnt during open" $((rest + 2)) "$(refcnt)"
    same "shape $shape: no process shows the file during open" "" "$(shown_by)"
    tell other "open /dev/egm5"
    same "shape $shape: a second open of this region" "$([ $shape = E ] && echo $((rest + 2)) || echo $((rest + 4)))" \
        "$(refcnt)"
    check "shape $shape: the first has not ended by then" test ! -e /tmp/holder.answer
    same "shape $shape: it does" ok "$(answer holder)"
    check "shape $shape: it has the file then" test -n "$(shown_by)"
    let_go
    unload "shape $shape: count" "7 3"
done

insert shape=E number=4,5 gpus=$EGM4_GPUS,$EGM5_GPUS init_delay_ms=4000 &
until_so test -e /sys/class/egm/egm5/0000:61:00.0
same "shape E: initstate and refcnt while the module's init runs" "coming 1" "$(cat $MODULE/initstate $MODULE/refcnt | xargs)"
wait $!
same "shape E: initstate and refcnt after that" "live 0" "$(cat $MODULE/initstate $MODULE/refcnt | xargs)"
echo 2000 >$MODULE/parameters/remove_delay_ms
rmmod nvgrace_egm &
until_so test ! -e /sys/class/egm/egm4/0000:22:00.0
same "shape E: initstate and refcnt while the module's exit runs" "going -1" "$(cat $MODULE/initstate $MODULE/refcnt | xargs)"
check "shape E: while it runs, the answer is not complete" test "$(probe list --json | jq -r .occupancy)" != complete
wait $!

insert shape=D number=4 gpus=$EGM4_GPUS attr_delay_us=3000000 &
until_so test -e /sys/class/egm/egm4
same "shape D: initstate and refcnt while a region is made" "live 1" "$(cat $MODULE/initstate $MODULE/refcnt | xargs)"
check "shape D: the region has no attributes by then" test ! -e /sys/class/egm/egm4/egm_size
wait $!
unload "shape D: initstate" "0"

load D
hold "open /dev/egm5" "share 0 $LENGTH" "close"
control remove 5
same "shape D: a region goes while a process has it" "egm4" "$(ls /sys/class/egm)"
same "shape D: the mapping lives on" "rw-s 00000000 /dev/egm5 (deleted)" "$(maps $holder)"
same "shape D: and counts" 3 "$(refcnt)"
check "shape D: the GPUs' driver goes" rmmod nvgrace_gpu_vfio_pci
same "shape D: regions and users of the driver by then" "" "$(ls $MODULE/holders)$(ls /sys/class/egm)"
same "shape D: the mapping still counts" 2 "$(refcnt)"
check "shape D: the driver cannot go by then" sh -c '! rmmod nvgrace_egm'
let_go
unload "shape D: regions that go" "0 1"

insert shape=E exclusive=1
check "shape E, exclusive: without EGM the driver is loaded, and there is no class" \
    test -e $MODULE -a ! -e /sys/class/egm
same "shape E, exclusive: list without a class" "0 complete 0" \
    "$(code probe list) $(probe list --json 2>/dev/null | jq -r '[.occupancy, (.regions | length)] | join(" ")')"
unload "shape E, exclusive: no EGM" ""
insert shape=E
same "shape E, shared: without EGM there is an empty class" "" "$(ls -A /sys/class/egm 2>&1)"
unload "shape E, shared: no EGM" ""

# The program.
STATES='[.occupancy == "complete", (.regions[] | [.name, .state, .free])]'
ALL_UNKNOWN='[false,["egm4","unknown",null],["egm5","unknown",null]]'
SEVERAL='[.regions[].warnings[] | select(contains("held by several"))] | length'

# Prints the distinct answers to list until a command of a process is done, as root and as another user.
sample() { # NAME EXPRESSION
    samples=0
    while [ ! -e "/tmp/$1.answer" ]; do
        for who in probe as_nobody; do
            $who list --json >/tmp/sample 2>/dev/null
            [ -e "/tmp/$1.answer" ] && break
            echo "$who $(jq -c "$2" /tmp/sample)" >>/tmp/samples.new
            samples=$((samples + 1))
        done
    done
    sort -u /tmp/samples.new >/tmp/samples
    rm /tmp/samples.new
}

for shape in E D; do
    case $shape in
    E) rest=0 exclusive=1 ;;
    D) rest=1 exclusive=0 ;;
    esac
    load $shape exclusive=$exclusive

    same "shape $shape: an ordinary user on an idle host" '[true,["egm4","free",'$EGM4_SIZE'],["egm5","free",'$EGM5_SIZE']]' \
        "$(as_nobody list --json | jq -c "$STATES")"

    echo 8000 >$MODULE/parameters/scrub_ms
    begin holder "open /dev/egm4"
    until_so is_above $rest
    sample holder "$STATES"
    check "shape $shape: samples during open" test $samples -ge 2
    same "shape $shape: during open nothing is free" "as_nobody $ALL_UNKNOWN
probe $ALL_UNKNOWN" "$(cat /tmp/samples)"
    same "shape $shape: open ends" ok "$(answer holder)"
    same "shape $shape: after open the other region is free" \
        "[true,[\"egm4\",\"in-use\",null],[\"egm5\",\"free\",$EGM5_SIZE]]" \
        "$(probe list --json | jq -c "$STATES" | sed 's/"in-use",[0-9]*/"in-use",null/')"
    let_go
    echo 0 >$MODULE/parameters/scrub_ms

    hold "socket /tmp/mailbox" "open /dev/egm4" "send /tmp/mailbox" "close"
    same "shape $shape: beside a file in flight nothing is free" "$ALL_UNKNOWN" "$(probe list --json | jq -c "$STATES")"
    same "shape $shape: beside a file in flight nothing can be reserved" "1 1" \
        "$(code probe reserve egm4 --for x) $(code probe reserve --any 1 --for x)"
    let_go
    probe release --all --for x >/dev/null 2>&1
    same "shape $shape: when it has gone, it can" 0 "$(code probe reserve egm4 --for x)"
    probe release --all --for x >/dev/null 2>&1

    GUEST=vm1 hold "open /dev/egm4" "share 0 $LENGTH" "fork"
    VM1='[true,["egm4","in-use",0],["egm5","free",'$EGM5_SIZE']]'
    same "shape $shape: a virtual machine and its child" "[$VM1,0]" \
        "$(probe list --json | jq -c "[$STATES, ($SEVERAL)]")"
    let_go
    tell other "socket /tmp/mailbox"
    GUEST=vm1 hold "open /dev/egm4" "share 0 $LENGTH" "send /tmp/mailbox"
    tell other "receive" "share 0 $LENGTH" "close"
    same "shape $shape: a virtual machine and a process that has its file" "[$VM1,0]" \
        "$(probe list --json | jq -c "[$STATES, ($SEVERAL)]")"
    let_go
    tell other "socket /tmp/mailbox"
    GUEST=vm1 hold "open /dev/egm4" "share 0 $LENGTH" "send /tmp/mailbox"
    tell other "receive" "share 0 $LENGTH" "close" "fork"
    echo 8000 >$MODULE/parameters/scrub_ms
    begin other "open /dev/egm5"
    until_so is_above $((rest + 2))
    sample other "$STATES"
    check "shape $shape: samples while the second region is opened" test $samples -ge 2
    same "shape $shape: beside a virtual machine with a helper, a region that is opened is unknown" \
        'probe [false,["egm4","in-use",0],["egm5","unknown",null]]' "$(grep ^probe /tmp/samples)"
    same "shape $shape: for an ordinary user nothing is known" "as_nobody $ALL_UNKNOWN" "$(grep ^as_nobody /tmp/samples)"
    answer other >/dev/null
    let_go
    echo 0 >$MODULE/parameters/scrub_ms

    hold "open /dev/egm4" "private $MIB $MIB"
    same "shape $shape: a private mapping has no range, and a warning" '[true,true,["in-use",[[]],true]]' \
        "$(probe list --json | jq -c '[.occupancy == "complete", .regions[1].state == "free", (.regions[0] |
            [.state, [.claims[].ranges], .warnings != []])]')"
    let_go
    unload "shape $shape: the program counts" "6 1"
done

load E exclusive=0
GUEST=vm1 hold "open /dev/egm4" "share 0 $LENGTH"
GUEST=vm2 tell other "open /dev/egm4" "share $LENGTH $LENGTH"
same "two virtual machines that have opened the same region" '[1,true,"in-use",["vm1","vm2"]]' \
    "$(probe list --json | jq -c "[($SEVERAL), .occupancy == \"complete\", (.regions[0] | .state, ([.claims[].domain] | sort))]")"
let_go
unload "two virtual machines" "2 0"

load D
hold "open /dev/egm4" "share $AT $LENGTH"
same "shape D: a mapping at an offset begins at 0" "[{\"offset\":0,\"length\":$LENGTH}]" "$(region egm4 '.claims[0].ranges')"
hold "share $MIB $((2 * LENGTH))"
same "shape D: the longest mapping counts" "[{\"offset\":0,\"length\":$((2 * LENGTH))}]" "$(region egm4 '.claims[0].ranges')"
let_go
control remove 5
same "shape D: the other region has gone, and the first is free" "[true,[\"egm4\",\"free\",$EGM4_SIZE]]" \
    "$(probe list --json | jq -c "$STATES")"
unload "shape D: offsets" "1 0"

# In shape E, an answer that is complete has all GPUs of its regions: until all are there, the module is not live.
# At least this many rounds, and five answers for each, in at most ten times as many rounds.
answers=$((5 * rounds))
mkdir -p /tmp/count
rm -f /tmp/count/*
look_on() { # NAME
    while [ ! -e /tmp/count/stop ]; do
        probe list --json >>/tmp/count/$1.answers 2>>/tmp/count/errors
        echo $? >>/tmp/count/codes
    done
}
: >/tmp/count/codes
look_on first &
first=$!
look_on second &
second=$!
n=0
while [ $n -lt $rounds ] || { [ "$(wc -l </tmp/count/codes)" -lt $answers ] && [ $n -lt $((10 * rounds)) ]; }; do
    insert shape=E number=4,5 size=$EGM4_SIZE,$EGM5_SIZE \
        gpus=$EGM4_GPUS,$EGM5_GPUS attr_delay_us=$((n * 613 % 17000)) gpu_delay_us=$((n * 331 % 5000)) \
        init_delay_ms=$((n % 3 * 5)) || echo "insert $n"
    usleep $((n * 7919 % 300 * 1000))
    take_out || echo "take_out $n"
    n=$((n + 1))
done >/tmp/count/failures 2>&1
touch /tmp/count/stop
wait $first $second
udevadm settle
echo "# $n rounds, $(wc -l </tmp/count/codes) answers"
same "the driver comes and goes" "" "$(cat /tmp/count/failures)"
check "beside it there were $answers answers" test "$(wc -l </tmp/count/codes)" -ge $answers
same "each is an answer" 0 "$(sort -u /tmp/count/codes)"
check "some have regions and are complete" test "$(jq -c 'select(.occupancy == "complete" and (.regions | length) == 2) | 1' \
    /tmp/count/*.answers | wc -l)" -gt $((rounds / 5))
same "none is complete with wrong or missing GPUs" "" "$(jq -c --arg first $EGM4_GPUS --arg second $EGM5_GPUS '
    {egm4: $first, egm5: $second} as $told | select(.occupancy == "complete") | .regions[] |
    select(([.gpus[].address] | join("+")) != $told[.name]) | [.name, .gpus, .warnings]' /tmp/count/*.answers | sort -u | head)"
