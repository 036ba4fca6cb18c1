#!/bin/sh
# Defines a virtual machine that has all GPUs and all EGM memory of this host: a whole tray.
#
#   define-tray.sh BASE.xml [OPTION..]
#
# BASE.xml is the domain without GPUs and EGM; the options are egm-probe's, such as --vcpus 144.
# Needs jq, and a libvirt that knows <memory model='egm'>. VIRSH is the virsh to call.
set -eu

base=${1:?usage: define-tray.sh BASE.xml [OPTION..]}
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
plan=$work/plan.json

# Refused, with the reason, where a region is in use, or a GPU is not bound to its driver.
egm-probe stanza --all --strict --with hostdev,numa,machine --gpu-cells 8 \
    --domain "$base" --format json "$@" >"$plan"

jq -r '.devices[] | "\(.gpu)  \(.size / 1048576) MiB of \(.region), guest node \(.guest_node)"' "$plan"
jq -r '"\(.memory / 1048576) MiB in all, \(.vcpus // "unknown") virtual CPUs"' "$plan"

jq -j .xml "$plan" >"$work/domain.xml"
"${VIRSH:-virsh}" define "$work/domain.xml" --validate
