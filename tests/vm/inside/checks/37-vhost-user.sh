# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# A real QEMU that shares its memory with a real vhost-user back end, which maps it as soon as the guest's firmware
# uses the disk. The driver has 2 MiB of actual memory, and the guest no more.
SOCKET=/tmp/vhost-user.sock
CLAIMS='[.claims[] | [.command, .pid, .domain, .helper_of, .via]]'
truncate -s 1M /tmp/disk

# Starts the back end of a disk and QEMU; their pids are in the variables of those names.
start_guest() { # REGION QEMU_OPTION..
    local region=$1
    shift
    rm -f $SOCKET
    qemu-storage-daemon --blockdev driver=file,filename=/tmp/disk,node-name=disk \
        --export type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=$SOCKET,writable=on \
        >/tmp/back_end.log 2>&1 &
    back_end=$!
    until_so test -S $SOCKET
    qemu-system-x86_64 "$@" -machine q35,accel=tcg -nodefaults -no-user-config -display none -m 2M \
        -object memory-backend-file,id=memory,mem-path=/dev/$region,share=on,size=2M -numa node,memdev=memory \
        -chardev socket,path=$SOCKET,id=disk -device vhost-user-blk-pci,chardev=disk >/tmp/qemu.log 2>&1 &
    qemu=$!
    # The firmware needs some seconds.
    until_so maps_region $back_end $region || until_so maps_region $back_end $region ||
        cat /tmp/qemu.log /tmp/back_end.log
}

maps_region() { # PID REGION
    grep -q "/dev/$2\$" "/proc/$1/maps"
}

is_free() { # REGION
    [ "$(region "$1" .state)" = '"free"' ]
}

# Prints the result of doctor for the holders, and its advice.
advice() {
    probe doctor --json | jq -c '.checks[] | select(.code == "D21") | [.verdict, .message, [.hints[].commands[]?]]'
}

for shape in E D; do
    load $shape exclusive="$([ $shape = E ] && echo 1 || echo 0)"
    start_guest egm4 -name guest=vm1,debug-threads=on
    check "shape $shape: QEMU maps the region" maps_region $qemu egm4
    check "shape $shape: so does its back end" maps_region $back_end egm4
    same "shape $shape: the back end is a helper" "[[\"qemu-storage-daemon\",$back_end,\"vm1\",$qemu,\"shared\"],\
[\"qemu-system-x86_64\",$qemu,\"vm1\",null,\"shared\"]]" "$(region egm4 "$CLAIMS | sort")"
    same "shape $shape: one file, known holders, no warnings" '["complete",1,[]]' \
        "$(probe list --json | jq -c '[.occupancy, .open_files, [.regions[].warnings[]]]')"
    same "shape $shape: list shows the virtual machine and the number of its helpers" "vm1[$qemu]+1" \
        "$(probe list -o DEVICE,HOLDER 2>&1 | awk '$1 == "egm4" { print $2 }')"
    same "shape $shape: list writes no message" "" "$(probe list 2>&1 >/dev/null)"
    same "shape $shape: doctor has no advice about them" '["pass",null,[]]' "$(advice)"
    same "shape $shape: the region can be reserved for this virtual machine and no other" "1 0 1" \
        "$(code probe reserve egm4 --for vm2) $(code probe reserve egm4 --for vm1) $(code probe reserve egm4 --for vm2)"
    probe release --all --for vm1 >/dev/null 2>&1
    kill $qemu
    wait $qemu
    check "shape $shape: when QEMU has ended, the back end has not" kill -0 $back_end
    check "shape $shape: but the region is free" until_so is_free egm4
    kill $back_end
    wait $back_end

    # A QEMU that was started by hand.
    start_guest egm5
    same "shape $shape: without a name of the guest, the back end is a helper" "[[\"qemu-storage-daemon\",$back_end,null,$qemu],\
[\"qemu-system-x86_64\",$qemu,null,null]]" "$(region egm5 "$CLAIMS | map(.[:4]) | sort")"
    same "shape $shape: doctor advises on QEMU, not on its back end" "[\"warn\",\"egm5: held by qemu-system-x86_64[$qemu]\",\
[\"ps -fp $qemu\"]]" "$(advice)"
    kill $qemu $back_end
    wait $qemu $back_end
    unload "shape $shape: a guest with a back end" "1 1"
done
