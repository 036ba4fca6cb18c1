# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# Results of doctor for the driver and its devices.
verdict() { # CODE..: prints their results
    local code
    probe doctor --json >/tmp/doctor
    for code; do
        jq -r --arg code "$code" '.checks[] | select(.code == $code) | .code + " " + .verdict + ": " + (.message // "")' \
            /tmp/doctor
    done
}

# Only Grace can have EGM, whatever is loaded.
case $(uname -m) in
aarch64)
    absent="D01 fail: no EGM on this host: /sys/class/egm does not exist; no NVIDIA GPU found
D02 skip: D01 failed"
    empty="D01 pass: 
D02 fail: nvgrace_egm is loaded but shows no region: EGM is disabled in the firmware, or the host has no GPU"
    ;;
*)
    absent="D01 fail: no EGM on this platform ($(uname -m)): EGM is a feature of NVIDIA Grace, which is aarch64
D02 skip: D01 failed"
    empty=$absent
    ;;
esac
same "doctor without the driver" "$absent" "$(verdict D01 D02)"
same "doctor without the driver: a failure" 1 "$(code probe doctor)"
insert
same "doctor without a region" "$empty" "$(verdict D01 D02)"
take_out

load D
same "doctor: driver, regions, generation" "D01 pass: 
D02 pass: egm4, egm5
D03 pass: gpu-list" "$(verdict D01 D02 D03)"
same "doctor: every region is whole" "D06 pass: " "$(verdict D06)"
same "doctor: nothing drives the GPUs, and they are in no group" \
    "D07 fail: 0000:21:00.0: no driver; 0000:22:00.0: no driver; 0000:41:00.0: no driver; 0000:61:00.0: no driver
D08 fail: 0000:21:00.0, 0000:22:00.0, 0000:41:00.0, 0000:61:00.0: not in an IOMMU group; the IOMMU is disabled" \
    "$(verdict D07 D08)"
same "doctor: QEMU may not open the devices" "D10 pass: libvirt-qemu, in kvm
D11 fail: libvirt-qemu has no access to /dev/egm4 (0600 root:root), /dev/egm5 (0600 root:root)
D12 warn: no udev rule for EGM devices; current permissions are not persistent" "$(verdict D10 D11 D12)"
probe udev install >/dev/null
same "doctor: with the rules it may" "D11 pass: 
D12 pass: " "$(verdict D11 D12)"
chmod 0600 /dev/egm5
same "doctor: one device that somebody changed" "D11 fail: libvirt-qemu has no access to /dev/egm5 (0600 root:kvm)" \
    "$(verdict D11)"
probe udev uninstall >/dev/null

same "doctor: nobody holds a region" "D21 pass: " "$(verdict D21)"
hold "open /dev/egm4" "share 0 $MIB"
same "doctor: somebody does" "D21 warn: egm4: held by holder[$holder]" "$(verdict D21)"
let_go
control leave 4 0000:21:00.0
control leave 4 0000:22:00.0
same "doctor: a region without GPUs is not whole" "D06 fail: egm4: unknown GPUs, NUMA node" "$(verdict D06)"
unload "doctor" "1 0"

load E
same "doctor: the other generation" "D03 pass: standalone" "$(verdict D03)"
# A GPU that is removed from the machine leaves a dangling link.
echo 1 >/sys/bus/pci/devices/0000:61:00.0/remove
same "doctor: a GPU that was taken out is told" \
    "D06 warn: egm5: lists missing GPU 0000:61:00.0" "$(verdict D06 | sed 's|: /.*||')"
same "and the region is on its node all the same" 1 "$(region egm5 .numa_node)"
echo 1 >/sys/bus/pci/rescan
check "doctor: it is back" until_so test -e /sys/bus/pci/devices/0000:61:00.0
unload "doctor: the other generation" "0 0"
