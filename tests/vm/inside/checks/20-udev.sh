# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# The permissions and links of devices, with a real udevd and real device nodes.
load D
same "a device has its driver's permission first" "600 root:root 600 root:root" "$(modes /dev/egm4 /dev/egm5)"
same "udev status: there is no rule" 1 "$(code probe udev status)"
same "udev install --dry-run is done" 0 "$(code probe udev install --dry-run)"
check "udev install --dry-run writes nothing" test ! -e /etc/udev/rules.d/60-egm.rules
same "udev install" "/etc/udev/rules.d/60-egm.rules: written
/dev/egm4: 0660 root:kvm
/dev/egm5: 0660 root:kvm" "$(probe udev install 2>&1)"
same "udev install has changed the nodes" "660 root:kvm 660 root:kvm" "$(modes /dev/egm4 /dev/egm5)"
same "udev status: they are as the rules say" 0 "$(code probe udev status)"
same "list shows what they are" '["0660","root","kvm"]' "$(region egm5 '.device | [.mode, .user, .group]')"
udevadm settle
same "names by GPU and by node" "/dev/egm4 /dev/egm4 /dev/egm5 /dev/egm5 /dev/egm4 /dev/egm5" \
    "$(cd /dev/grace-egm && realpath by-gpu/0000:21:00.0 by-gpu/0000:22:00.0 by-gpu/0000:41:00.0 \
        by-gpu/0000:61:00.0 by-node/0 by-node/1 2>&1 | xargs)"
same "show tells these names" \
    '["/dev/grace-egm/by-gpu/0000:21:00.0","/dev/grace-egm/by-gpu/0000:22:00.0","/dev/grace-egm/by-node/0"]' \
    "$(probe show egm4 --json | jq -c '.regions[0].links | sort')"
check "udev install again" probe udev install
check "a node that somebody changed is told" \
    sh -c 'chmod 0600 /dev/egm5; ! egm-probe udev status'
check "udev install puts it right" probe udev install
same "it is right by stat" "660 root:kvm" "$(modes /dev/egm5)"

# No event reports that a GPU joins a region; the rules make udev process it again when the GPU is bound.
control leave 4 0000:22:00.0
probe udev refresh
udevadm settle
check "a GPU that left has no name any more" test ! -e /dev/grace-egm/by-gpu/0000:22:00.0
control join 4 0000:22:00.0
probe udev refresh
udevadm settle
same "a GPU that joins late has its name" /dev/egm4 "$(realpath /dev/grace-egm/by-gpu/0000:22:00.0)"
unload "udev install" "0 0"
check "no name is left of a driver that has gone" test ! -e /dev/grace-egm/by-node/0

load E exclusive=1
same "the rules hold for a driver that is loaded later" "660 root:kvm 660 root:kvm" "$(modes /dev/egm4 /dev/egm5)"
check "udev install for others" probe udev install --user nobody --group nogroup --mode 0600 --force
same "that has changed the nodes, too" "600 nobody:nogroup 600 nobody:nogroup" "$(modes /dev/egm4 /dev/egm5)"
check "udev uninstall" probe udev uninstall
check "udev uninstall takes the file away" test ! -e /etc/udev/rules.d/60-egm.rules
same "udev uninstall gives the nodes back" "600 root:root 600 root:root" "$(modes /dev/egm4 /dev/egm5)"
same "udev status: there is no rule any more" 1 "$(code probe udev status)"
unload "udev uninstall" "0 0"
