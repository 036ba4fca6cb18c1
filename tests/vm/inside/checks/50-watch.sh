# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# Changes are reported: those from udev immediately, others by polling.
said() { # EVENT..: these, in this order, among others
    jq -r '[.event, .region // .gpu] | join(" ")' /tmp/events 2>/dev/null | xargs | grep -q "$(echo "$*" | sed 's/ /.*/g')"
}

# With a long interval, only events of udev are reported.
timeout 60 egm-probe watch --json --interval 1h >/tmp/events &
watch=$!
sleep 2
load D
check "watch: the driver is loaded, and udev says so" until_so said region-added.egm4 region-added.egm5
same "watch: with all that there is" "$EGM4_GPUS $EGM4_SIZE" "$(jq -r 'select(.region == "egm4") |
    select(.event | test("added|changed")) | [(.gpus | join("+")), .size] | join(" ")' /tmp/events | tail -n 1)"
take_out
check "watch: the driver goes, and udev says so" until_so said region-removed.egm4 region-removed.egm5
kill "$watch"
wait "$watch"
same "watch: it ends quietly" 0 $?

timeout 60 egm-probe watch --json --interval 300ms >/tmp/events &
watch=$!
sleep 1
insert number=4 gpus=0000:21:00.0
check "watch: a region comes" until_so said region-added.egm4
control join 4 0000:22:00.0
# With the real driver, the GPU joins when it is bound.
echo bind >/sys/bus/pci/devices/0000:22:00.0/uevent
check "watch: a GPU joins late" until_so said region-added.egm4 region-changed.egm4
same "watch: both GPUs are told" "$EGM4_GPUS" \
    "$(jq -r 'select(.event == "region-changed") | .gpus | join("+")' /tmp/events | tail -n 1)"
hold "open /dev/egm4" "share 0 $MIB"
check "watch: a holder comes" until_so said holder-came.egm4 state-changed.egm4
let_go
check "watch: a holder goes" until_so said holder-went.egm4 state-changed.egm4
chmod 0660 /dev/egm4
check "watch: a permission changes" until_so said permission-changed.egm4
hold "open /dev/egm4" "share 0 $MIB"
check "watch: another holder comes" until_so said permission-changed.egm4 holder-came.egm4
control remove 4
check "watch: one region goes" until_so said region-removed.egm4
sleep 1
same "watch: its holder does not" holder-came "$(jq -r 'select(.event | test("holder")) | .event' /tmp/events | tail -n 1)"
same "list: the region is gone, and held" "\"true in-use $MIB\"" \
    "$(region egm4 '"\(.gone) \(.state) \(.held)"')"
let_go
check "watch: its holder goes" until_so said region-removed.egm4 holder-went.egm4
same "list: nothing is left of it" "" "$(region egm4 .name)"
kill "$watch"
wait "$watch"
unload "watch" "2"

load E
timeout 60 egm-probe watch --until gone egm5 >/tmp/events &
watch=$!
sleep 1
unload "watch --until" "0 0"
wait "$watch"
same "watch --until gone ends when the region has gone" 0 $?
