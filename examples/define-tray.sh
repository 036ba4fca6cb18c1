#!/bin/sh
# Defines a virtual machine with all GPUs and all EGM memory of this host, a whole tray, and the PCI buses, SMMUs and
# NUMA cells that they need in a guest.
#
#   define-tray.sh BASE.xml [OPTION..]
#
# BASE.xml is the domain without GPUs and EGM; options are passed to egm-probe, such as --vcpus 120: some
# CPUs are left to the host.
# Requires jq, and a libvirt that supports <memory model='egm'>. Set VIRSH to use another virsh.
set -eu

base=${1:?usage: define-tray.sh BASE.xml [OPTION..]}
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
plan=$work/plan.json

# Fails, with the reason, if a region is in use or a GPU is not bound to its driver.
egm-probe stanza --all --strict --complete \
    --domain "$base" --format json "$@" >"$plan"

jq -r '.devices[] | "\(.gpu)  \(.size / 1048576) MiB of \(.region), guest node \(.guest_node)"' "$plan"
jq -r '"\(.memory / 1048576) MiB in all, \(.vcpus // "unknown") virtual CPUs"' "$plan"

jq -j .xml "$plan" >"$work/domain.xml"
"${VIRSH:-virsh}" define "$work/domain.xml" --validate
