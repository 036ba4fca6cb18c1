//! The udev rules with a real udevd in private namespaces: /sys is a recorded machine's, and /dev,
//! /run/udev and the rules are private. Devices exist only as files, so their events are simulated
//! with `udevadm test`, which applies the rules like udevd, except for RUN.

use crate::live::{can, can_overlay, extract};
use crate::support;
use crate::support::machines::gpu_path;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");
const RULES: &str = "/etc/udev/rules.d/60-egm.rules";

/// Creates the namespace, starts udevd in it, and puts a `udevadm` into PATH that simulates events
/// of devices.
const SETUP: &str = r#"
set -eu
exec 2>&1
work=$1 program=$2
mount --make-rprivate /
mount -t overlay o -o "nodev,lowerdir=$work/sys:/sys" /sys
mkdir -p "$work/private" "$work/bin"
mount -t tmpfs tmpfs "$work/private"
for number in 4 5; do mknod -m 0600 "$work/private/egm$number" c 510 $number; done
mknod -m 0666 "$work/private/null" c 1 3
mknod -m 0666 "$work/private/urandom" c 1 9
mount --bind "$work/private" /dev
mkdir -p /run/udev /etc/udev /usr/local/lib/udev
mount -t tmpfs tmpfs /run/udev
mount -t tmpfs tmpfs /usr/lib/udev
mount -t tmpfs tmpfs /usr/local/lib/udev
mount -t tmpfs tmpfs /etc/udev
mkdir /usr/lib/udev/rules.d /etc/udev/rules.d
ln -s "$program" /usr/lib/udev/egm-probe
real=$(command -v udevadm)
cat >"$work/bin/udevadm" <<END
#!/bin/sh
echo "\$*" >>"$work/calls"
[ "\$1" != trigger ] || {
    for device in /sys/class/egm/*; do
        $real test --action=change "\$device" >>"$work/test.log" 2>&1 || exit 1
    done
    exit 0
}
exec $real "\$@"
END
chmod +x "$work/bin/udevadm"
: >"$work/calls"
PATH=$work/bin:$PATH
export PATH SYSTEMD_IGNORE_CHROOT=1 SYSTEMD_DEVICE_VERIFY_SYSFS=0
daemon=/lib/systemd/systemd-udevd
[ -x $daemon ] || daemon=/usr/lib/systemd/systemd-udevd
$daemon >"$work/udevd.log" 2>&1 &
udevd=$!
trap 'kill $udevd' EXIT
for _ in $(seq 100); do [ ! -S /run/udev/control ] || break; sleep 0.05; done
probe() { "$program" udev "$@" && code=0 || code=$?; [ $code = 0 ] || echo "exit $code"; }
modes() { stat -c '%n %a %U:%G' /dev/egm4 /dev/egm5; }
"#;

/// Runs a script with a recorded machine's devices and udevd, and returns its output.
fn with_udevd(script: &str) -> Option<(String, TempDir)> {
    let work = extract("gb200-full-gpu-list");
    // As in the kernel's events of a PCI device.
    for gpu in ["0009:01:00.0", "0018:01:00.0", "0019:01:00.0"] {
        let device = work.path().join("sys").join(gpu_path(gpu).strip_prefix("sys/").unwrap());
        fs::write(device.join("uevent"), format!("PCI_SLOT_NAME={gpu}\n")).unwrap();
        symlink("../../../../bus/pci", device.join("subsystem")).unwrap();
    }
    if !can("udevadm", &["udevadm", "--version"]) || !can_overlay(work.path()) {
        return None;
    }
    let version = Command::new("udevadm").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    if version.trim().parse::<u32>().unwrap() > 256 {
        support::skip("`udevadm test` of systemd 257 and newer changes no device");
        return None;
    }
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{SETUP}\n{script}"), "sh"])
        .args([work.path(), Path::new(PROGRAM)])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    Some((printed, work))
}

#[test]
fn install_turns_the_driver_s_mode_into_qemu_s_and_uninstall_turns_it_back() {
    let script = "
        modes
        probe status
        probe install
        modes
        find /dev/grace-egm -type l -printf '%p %l\\n' | sort
        probe install --json > \"$work/second.json\"
        wc -l < \"$work/calls\"
        chmod 0640 /dev/egm5
        probe status
        probe install
        probe status
        probe uninstall
        modes
        find /dev/grace-egm -type l 2>/dev/null || true
        ls -A /etc/udev/rules.d
        probe uninstall";
    let Some((printed, work)) = with_udevd(script) else { return };
    let expected = format!(
        "/dev/egm4 600 root:root
/dev/egm5 600 root:root
/dev/egm4: 0600 root:root
/dev/egm5: 0600 root:root
egm-probe: warning: udev rules for EGM devices: missing (`egm-probe udev install` writes one)
exit 1
{RULES}: written
/dev/egm4: 0660 root:kvm
/dev/egm5: 0660 root:kvm
/dev/egm4 660 root:kvm
/dev/egm5 660 root:kvm
/dev/grace-egm/by-gpu/0008:01:00.0 ../../egm4
/dev/grace-egm/by-gpu/0009:01:00.0 ../../egm4
/dev/grace-egm/by-gpu/0018:01:00.0 ../../egm5
/dev/grace-egm/by-gpu/0019:01:00.0 ../../egm5
/dev/grace-egm/by-node/0 ../../egm4
/dev/grace-egm/by-node/1 ../../egm5
3
{RULES}:9: group kvm, mode 0660, user root
/dev/egm4: 0660 root:kvm
/dev/egm5: 0640 root:kvm; expected 0660 root:kvm
exit 1
{RULES}: unchanged
/dev/egm4: 0660 root:kvm
/dev/egm5: 0660 root:kvm
{RULES}:9: group kvm, mode 0660, user root
/dev/egm4: 0660 root:kvm
/dev/egm5: 0660 root:kvm
{RULES}: removed
/dev/egm4: 0600 root:root
/dev/egm5: 0600 root:root
/dev/egm4 600 root:root
/dev/egm5 600 root:root
{RULES}: missing
"
    );
    assert_eq!(printed, expected);
    let second: Value =
        serde_json::from_slice(&fs::read(work.path().join("second.json")).unwrap()).unwrap();
    assert_eq!(second["changed"], false);
    assert_eq!(second["udev_told"], Value::Null, "no reload was necessary");
    assert_eq!(second["nodes"][1]["got"]["mode"], "0660");
    assert_eq!(second["nodes"][1]["right"], true);
}

#[test]
fn an_administrator_s_rules_are_replaced_only_with_force_and_saved() {
    let script = r#"
        echo 'SUBSYSTEM=="egm", GROUP="disk", MODE="0640"' > /etc/udev/rules.d/60-egm.rules
        udevadm control --reload; udevadm trigger
        probe status
        probe uninstall
        probe install
        probe install --force
        sed -i 's/0660/0600/' /etc/udev/rules.d/60-egm.rules
        probe install
        probe uninstall --dry-run 2>&1 | sed -n '1,4p;/note/p'
        probe uninstall
        modes
        cat /etc/udev/rules.d/60-egm.rules.orig
        ls /etc/udev/rules.d"#;
    let Some((printed, _)) = with_udevd(script) else { return };
    let expected = format!(
        "{RULES}:1: group disk, mode 0640
/dev/egm4: 0640 root:disk
/dev/egm5: 0640 root:disk
egm-probe: warning: egm4: no udev rule gives QEMU access
egm-probe: warning: egm5: no udev rule gives QEMU access
egm-probe: {RULES}: not written by `egm-probe udev install` (remove it manually)
exit 1
egm-probe: {RULES}: not written by `egm-probe udev install` (--force saves it as 60-egm.rules.orig and replaces it)
exit 1
{RULES}: written
{RULES}.orig: copy of the replaced file
/dev/egm4: 0660 root:kvm
/dev/egm5: 0660 root:kvm
{RULES}: written
/dev/egm4: 0660 root:kvm
/dev/egm5: 0660 root:kvm
--- {RULES}
+++ {RULES}
@@ -1,21 +0,0 @@
-# Written by `egm-probe udev install`, which overwrites it; delete this line to keep changes.
egm-probe: note: {RULES}.orig: not restored
{RULES}: removed
{RULES}.orig: not restored
/dev/egm4: 0600 root:root
/dev/egm5: 0600 root:root
/dev/egm4 600 root:root
/dev/egm5 600 root:root
SUBSYSTEM==\"egm\", GROUP=\"disk\", MODE=\"0640\"
60-egm.rules.orig
"
    );
    assert_eq!(printed, expected);
}

/// The program in the rules is missing, fails, hangs, or prints invalid output.
#[test]
fn permissions_are_set_even_if_the_helper_fails() {
    let script = r#"
        cat /etc/udev/rules.d/*.rules 2>/dev/null || true
        cp "$rules" /usr/lib/udev/rules.d/60-egm.rules
        helper() {
            rm -f /usr/lib/udev/egm-probe
            [ -z "$2" ] || { printf '#!/bin/sh\n%s\n' "$2" > /usr/lib/udev/egm-probe; chmod +x /usr/lib/udev/egm-probe; }
            chmod 0600 /dev/egm4; chown root:root /dev/egm4
            # Two events for every helper would be too slow for the slow one.
            if [ "$1" = whole ]; then
                udevadm trigger
            else
                "$real" test --action=change /sys/class/egm/egm4 >>"$work/test.log" 2>&1
            fi
            echo "$1: $(stat -c '%a %U:%G' /dev/egm4) $(find /dev/grace-egm -type l 2>/dev/null | wc -l)"
        }
        helper missing ''
        helper failing 'exit 3'
        helper killed 'kill -9 $$'
        helper silent 'exit 0'
        helper slow "exec strace -qq -o /dev/null -e inject=openat,read:delay_enter=300000 $program \"\$@\""
        helper whole "exec $program \"\$@\""
        "#;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("udev-rules/60-egm.rules");
    let started = Instant::now();
    let script = format!("rules={}\n{script}", rules.display());
    let Some((printed, work)) = with_udevd(&script) else { return };
    assert_eq!(
        printed,
        "missing: 660 root:kvm 0\nfailing: 660 root:kvm 0\nkilled: 660 root:kvm 0\n\
         silent: 660 root:kvm 0\nslow: 660 root:kvm 0\nwhole: 660 root:kvm 6\n",
        "{}",
        fs::read_to_string(work.path().join("test.log")).unwrap()
    );
    assert!(started.elapsed() < Duration::from_secs(30), "a slow helper ends itself");
}

/// A GPU that joins later sends its own event, which refreshes all regions.
#[test]
fn links_are_updated_when_a_gpu_joins_or_leaves() {
    let script = r#"
        cp "$rules" /usr/lib/udev/rules.d/60-egm.rules
        links() { find /dev/grace-egm/by-gpu -type l -printf '%f '; echo; }
        udevadm trigger; links
        for action in bind unbind add; do
            "$real" test --action=$action /sys/bus/pci/devices/0019:01:00.0 2>/dev/null |
                sed -n "s/^run: /$action: /p"
        done
        mount -t tmpfs tmpfs /sys/devices/virtual/egm/egm5
        printf '510:5\n' > /sys/devices/virtual/egm/egm5/dev
        printf 'MAJOR=510\nMINOR=5\nDEVNAME=egm5\n' > /sys/devices/virtual/egm/egm5/uevent
        ln -s ../../../../class/egm /sys/devices/virtual/egm/egm5/subsystem
        printf '0018:01:00.0\n' > /sys/devices/virtual/egm/egm5/gpu_devices
        udevadm trigger; links
        printf '0018:01:00.0\n0019:01:00.0\n' > /sys/devices/virtual/egm/egm5/gpu_devices
        udevadm trigger; links
        umount /sys/devices/virtual/egm/egm5
        "$real" test --action=remove /sys/class/egm/egm5 >/dev/null 2>&1; links
        "#;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("udev-rules/60-egm.rules");
    let script = format!("rules={}\n{script}", rules.display());
    let Some((printed, work)) = with_udevd(&script) else { return };
    let lines: Vec<String> = printed.lines().map(sorted).collect();
    assert_eq!(
        lines,
        [
            "0008:01:00.0 0009:01:00.0 0018:01:00.0 0019:01:00.0",
            "'egm-probe bind: refresh' udev",
            "'egm-probe refresh' udev unbind:",
            "0008:01:00.0 0009:01:00.0 0018:01:00.0",
            "0008:01:00.0 0009:01:00.0 0018:01:00.0 0019:01:00.0",
            "0008:01:00.0 0009:01:00.0",
        ]
        .map(str::to_owned),
        "{}",
        fs::read_to_string(work.path().join("test.log")).unwrap()
    );
}

fn sorted(line: &str) -> String {
    let mut words: Vec<_> = line.split_whitespace().collect();
    words.sort_unstable();
    words.join(" ")
}

/// Writing into `uevent` makes the kernel send an event.
#[test]
fn refresh_triggers_an_event_for_every_region() {
    let work = extract("gb200-full-gpu-list");
    if !can_overlay(work.path()) {
        return;
    }
    let script = format!(
        "mount --make-rprivate / && mount --bind {}/sys /sys && exec {PROGRAM} udev refresh",
        work.path().display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for region in ["egm4", "egm5"] {
        let uevent = work.path().join(format!("sys/devices/virtual/egm/{region}/uevent"));
        assert!(fs::read_to_string(uevent).unwrap().starts_with("change"));
    }
}

/// `status` predicts the effect that rules have in udev.
#[test]
fn status_predicts_the_effect_of_rules() {
    let good = r#"SUBSYSTEM=="egm", GROUP="kvm", MODE="0660""#;
    let cases = [
        (good, "", "660 root:kvm"),
        (r#"KERNEL=="egm[[:digit:]]*", GROUP="kvm", MODE="0660""#, "", "660 root:kvm"),
        (
            "SUBSYSTEM!=\"egm\", GOTO=\"end\"\nGROUP=\"kvm\", MODE=\"0660\"\nLABEL=\"end\"",
            "",
            "660 root:kvm",
        ),
        (
            good,
            "SUBSYSTEM!=\"egm\", GOTO=\"end\"\nGROUP=\"disk\", MODE=\"0640\"\nLABEL=\"end\"",
            "640 root:disk",
        ),
        (good, r#"KERNEL=="eg*", MODE="0640""#, "640 root:kvm"),
        (good, r#"KERNEL=="egm*", BOGUS="x", MODE="0640""#, "660 root:kvm"),
        (good, r#"KERNEL=="egm*", GROUP="disk", MODE="rw""#, "660 root:disk"),
        (good, r#"KERNEL=="egm*", NAME="%k", MODE="0640""#, "660 root:kvm"),
        (good, r#"KERNEL=="egm*", ENV{x}-="y", MODE="0640""#, "660 root:kvm"),
        (good, "KERNEL==\"egm*\", MODE=\"0640\" \\", "660 root:kvm"),
        (r#"KERNEL=="egm*", GROUP="kvm""#, "", "600 root:kvm"),
        (good, r#"KERNEL=="egm*", MODE-="0660""#, "660 root:kvm"),
        (good, r#"SUBSYSTEM="egm", MODE="0600""#, "660 root:kvm"),
        (good, r#"KERNEL=="egm4", SECLABEL="x", MODE="0640""#, "660 root:kvm"),
        (good, r#"KERNEL=="egm4", RUN{bogus}+="x", MODE="0640""#, "660 root:kvm"),
        (good, r#"DEVPATH=="/devices/virtual/egm/*", MODE="0640""#, "640 root:kvm"),
        (good, r#"ENV{DEVNAME}=="/dev/egm4", MODE="0640""#, "640 root:kvm"),
        (good, r#"DRIVER=="", KERNEL=="egm4", MODE="0640""#, "640 root:kvm"),
        (r#"KERNEL=="egm*", MODE:="0640", GROUP="disk""#, good, "640 root:kvm"),
        (good, "KERNEL==\"egm*\", \\\n  MODE=\"0640\"", "640 root:kvm"),
    ];
    let mut script = String::new();
    for (first, second, _) in cases {
        let _ = writeln!(
            script,
            "cat > /etc/udev/rules.d/50-a.rules <<'END'\n{first}\nEND
            cat > /etc/udev/rules.d/70-b.rules <<'END'\n{second}\nEND
            chmod 0600 /dev/egm4; chown root:root /dev/egm4; udevadm trigger
            stat -c '%a %U:%G' /dev/egm4
            \"$program\" udev status --json > \"$work/status\" && echo right || echo wrong"
        );
    }
    let Some((printed, _)) = with_udevd(&script) else { return };
    let expected: Vec<_> = cases.iter().flat_map(|(.., mode)| [*mode, "right"]).collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

/// A failed reload restores the file; groups that are set by number are reset as well.
#[test]
fn a_failed_reload_is_undone_and_numeric_groups_are_reset() {
    let script = r#"
        fail() { printf '#!/bin/sh\n[ "$1" != %s ] || exit 1\nexec %s "$@"\n' "$1" "$work/bin/real" > "$work/bin/udevadm"; }
        mv "$work/bin/udevadm" "$work/bin/real"
        fail control
        chmod +x "$work/bin/udevadm"
        probe install
        ls -A /etc/udev/rules.d
        for text in '# foreign' '# Written by `egm-probe udev install`'; do
            echo "$text" > /etc/udev/rules.d/60-egm.rules
            probe install --force >/dev/null
            grep -r . /etc/udev/rules.d
        done
        rm /etc/udev/rules.d/60-egm.rules
        fail trigger
        probe install
        modes
        fail nothing
        probe install --group "$(getent group kvm | cut -d: -f3)"
        probe uninstall
        modes
        probe install --group "$(getent group kvm | cut -d: -f3)" --no-reload
        modes"#;
    let Some((printed, _)) = with_udevd(script) else { return };
    let bin = "exit status: 1";
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].ends_with(&format!("udevadm: {bin}; nothing was changed")), "{printed}");
    assert_eq!(lines[1], "exit 4", "{printed}");
    assert_eq!(lines[3], format!("{RULES}:# foreign"), "{printed}");
    assert_eq!(lines[5], format!("{RULES}:# Written by `egm-probe udev install`"), "{printed}");
    let lines = &lines[4..];
    assert_eq!(lines[2], format!("{RULES}: written"), "{printed}");
    assert_eq!(lines[3], "/dev/egm4: 0600 root:root; expected 0660 root:kvm", "{printed}");
    assert!(lines[5].contains("udevadm: exit status: 1"), "{printed}");
    assert_eq!(lines[6..9], ["exit 1", "/dev/egm4 600 root:root", "/dev/egm5 600 root:root"]);
    let rest = &lines[9..];
    assert_eq!(
        rest[..3],
        [&*format!("{RULES}: written"), "/dev/egm4: 0660 root:kvm", "/dev/egm5: 0660 root:kvm"]
    );
    assert_eq!(
        rest[3..6],
        [&*format!("{RULES}: removed"), "/dev/egm4: 0600 root:root", "/dev/egm5: 0600 root:root"]
    );
    assert_eq!(
        rest[6..],
        [
            "/dev/egm4 600 root:root",
            "/dev/egm5 600 root:root",
            &*format!("{RULES}: written"),
            "/dev/egm4 600 root:root",
            "/dev/egm5 600 root:root"
        ]
    );
}

/// The effect of other rules remains; everything else is reset to the driver's values.
#[test]
fn uninstall_resets_values_that_no_other_rule_sets() {
    let script = "
        echo 'KERNEL==\"egm*\", MODE=\"0640\"' > /etc/udev/rules.d/50-x.rules
        probe install
        modes
        probe uninstall
        modes";
    let Some((printed, _)) = with_udevd(script) else { return };
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[3..5], ["/dev/egm4 660 root:kvm", "/dev/egm5 660 root:kvm"], "{printed}");
    assert_eq!(lines[8..], ["/dev/egm4 640 root:root", "/dev/egm5 640 root:root"], "{printed}");
}

/// udev sets a label only when a device is added; the result is verified.
#[test]
fn a_label_is_requested_and_verified() {
    let script = "
        probe install
        probe install --selinux system_u:object_r:svirt_image_t:s0
        grep trigger \"$work/calls\"
        grep -c SECLABEL /etc/udev/rules.d/60-egm.rules";
    let Some((printed, _)) = with_udevd(script) else { return };
    assert!(printed.contains("egm-probe: warning: /dev/egm4: SELinux label is"), "{printed}");
    let triggers: Vec<_> = printed.lines().filter(|line| line.starts_with("trigger")).collect();
    let subsystem = "--subsystem-match=egm";
    let [change, add] = ["change", "add"].map(|it| format!("trigger --action={it} {subsystem}"));
    assert_eq!(triggers, [change, add], "{printed}");
    assert!(printed.ends_with("\n1\n"), "{printed}");
}
