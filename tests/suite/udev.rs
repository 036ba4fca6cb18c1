//! The udev rules, with a real udevd: in namespaces of its own, where /sys is a recorded machine's,
//! and /dev, /run/udev and the rules are nobody else's. An event of a device that is only a file is
//! made with `udevadm test`, which applies the rules as udevd does, but for RUN.

use crate::live::{can, can_overlay, extract};
use crate::support;
use crate::support::machines::gpu_path;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");
const RULES: &str = "/etc/udev/rules.d/60-egm.rules";

/// Makes the namespace, starts udevd in it, and puts a `udevadm` before the real one that sends
/// events of devices which are none.
const SETUP: &str = r#"
set -eu
exec 2>&1
work=$1 program=$2
mount --make-rprivate /
mount -t overlay o -o "lowerdir=$work/sys:/sys" /sys
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

/// Runs a script where a recorded machine's devices are, with udevd; what it prints.
fn with_udevd(script: &str) -> Option<(String, TempDir)> {
    let work = extract("gb200-full-gpu-list");
    // As the kernel tells udev of a PCI device.
    for gpu in ["0009:01:00.0", "0018:01:00.0", "0019:01:00.0"] {
        let device = work.path().join("sys").join(gpu_path(gpu).strip_prefix("sys/").unwrap());
        fs::write(device.join("uevent"), format!("PCI_SLOT_NAME={gpu}\n")).unwrap();
        symlink("../../../../bus/pci", device.join("subsystem")).unwrap();
    }
    if !can("udevadm", &["udevadm", "--version"]) || !can_overlay(work.path()) {
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

fn udev(args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("udev").args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
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
egm-probe: warning: no udev rule names EGM devices: `egm-probe udev install` writes one
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
{RULES}:10: gives the devices to QEMU
/dev/egm4: 0660 root:kvm
/dev/egm5: 0640 root:kvm; asked for 0660 root:kvm
exit 1
{RULES}: already as asked
/dev/egm4: 0660 root:kvm
/dev/egm5: 0660 root:kvm
{RULES}:10: gives the devices to QEMU
/dev/egm4: 0660 root:kvm
/dev/egm5: 0660 root:kvm
{RULES}: removed
/dev/egm4: 0600 root:root
/dev/egm5: 0600 root:root
/dev/egm4 600 root:root
/dev/egm5 600 root:root
{RULES}: not there
"
    );
    assert_eq!(printed, expected);
    let second: Value =
        serde_json::from_slice(&fs::read(work.path().join("second.json")).unwrap()).unwrap();
    assert_eq!(second["changed"], false);
    assert_eq!(second["udev_told"], Value::Null, "nothing was to be told");
    assert_eq!(second["nodes"][1]["got"]["mode"], "0660");
    assert_eq!(second["nodes"][1]["right"], true);
}

#[test]
fn what_an_administrator_wrote_is_kept_and_put_back() {
    let script = r#"
        echo 'SUBSYSTEM=="egm", GROUP="disk", MODE="0640"' > /etc/udev/rules.d/60-egm.rules
        udevadm control --reload; udevadm trigger
        probe status
        probe uninstall
        probe install
        ls /etc/udev/rules.d
        sed -i 's/0660/0600/' /etc/udev/rules.d/60-egm.rules
        probe uninstall
        probe install
        ls /etc/udev/rules.d
        probe uninstall --dry-run | head -n 4
        probe uninstall
        grep -c 0600 /etc/udev/rules.d/60-egm.rules
        probe uninstall --force
        modes
        cat /etc/udev/rules.d/60-egm.rules
        ls /etc/udev/rules.d"#;
    let Some((printed, _)) = with_udevd(script) else { return };
    let kept = format!("{RULES}.before-egm-probe");
    let expected = format!(
        "{RULES}:1: gives the devices to QEMU
/dev/egm4: 0640 root:disk
/dev/egm5: 0640 root:disk
egm-probe: {RULES}: not written by `egm-probe udev install`, so it stays
exit 1
{RULES}: written
{kept}: what was there before
/dev/egm4: 0660 root:kvm
/dev/egm5: 0660 root:kvm
60-egm.rules
60-egm.rules.before-egm-probe
egm-probe: {RULES}: changed by hand after `egm-probe udev install`; --force removes it all the same
exit 1
{RULES}: written
{kept}.2: what was there before
/dev/egm4: 0660 root:kvm
/dev/egm5: 0660 root:kvm
60-egm.rules
60-egm.rules.before-egm-probe
60-egm.rules.before-egm-probe.2
--- {RULES}
+++ {RULES}
@@ -7,7 +7,7 @@
 # and no other line, so that nothing below can take it away. kvm is the group in which libvirt runs
{RULES}: put back as it was before
/dev/egm4: 0600 root:kvm
/dev/egm5: 0600 root:kvm
2
{RULES}: put back as it was before
/dev/egm4: 0640 root:disk
/dev/egm5: 0640 root:disk
/dev/egm4 640 root:disk
/dev/egm5 640 root:disk
SUBSYSTEM==\"egm\", GROUP=\"disk\", MODE=\"0640\"
60-egm.rules
"
    );
    assert_eq!(printed, expected);
}

/// The helper of the rules is missing, fails, does not come to an end, or prints what it should not.
#[test]
fn no_helper_keeps_the_permission_from_the_device() {
    let script = r#"
        cat /etc/udev/rules.d/*.rules 2>/dev/null || true
        cp "$rules" /usr/lib/udev/rules.d/60-egm.rules
        helper() {
            rm -f /usr/lib/udev/egm-probe
            [ -z "$2" ] || { printf '#!/bin/sh\n%s\n' "$2" > /usr/lib/udev/egm-probe; chmod +x /usr/lib/udev/egm-probe; }
            chmod 0600 /dev/egm4; chown root:root /dev/egm4
            udevadm trigger
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
    assert!(started.elapsed() < Duration::from_secs(60), "a slow helper ends itself");
}

/// A GPU that joins later sends an event of its own: then every region is looked at again.
#[test]
fn a_gpu_that_joins_or_leaves_makes_the_links_right() {
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

/// The kernel's way to ask for an event is to write into `uevent`.
#[test]
fn refresh_asks_for_an_event_of_every_region() {
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

/// Every rule that is shipped or can be made passes systemd's own check; one that is broken does not.
#[test]
fn udevadm_verify_passes_every_rule() {
    if !can("udevadm", &["udevadm", "--version"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/udevadm-verify");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("udevadm-verify");
    let verify =
        |files: &[PathBuf]| Command::new(&script).arg(&cache).args(files).output().unwrap();
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("udev-rules/60-egm.rules")];
    for (number, args) in [
        &[][..],
        &["--group", "disk", "--mode", "0600", "--user", "root"],
        &["--selinux", "system_u:object_r:svirt_image_t:s0:c1,c2"],
        &["--user", "0", "--group", "0"],
    ]
    .iter()
    .enumerate()
    {
        let printed = udev(&[&["print"], *args].concat());
        assert!(printed.status.success(), "{printed:?}");
        let path = folder.path().join(format!("{number}.rules"));
        fs::write(&path, printed.stdout).unwrap();
        files.push(path);
    }
    let output = verify(&files);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output));
    if !output.status.success() && !text.contains("Fail:") {
        support::skip(&format!("no udevadm with verify is to be had: {text}"));
        return;
    }
    assert!(output.status.success() && text.contains("Success: 5"), "{text}");

    let broken = folder.path().join("broken.rules");
    let shipped = fs::read_to_string(&files[0]).unwrap();
    fs::write(&broken, shipped.replace("GROUP=\"kvm\"", "GROUP==\"kvm\"")).unwrap();
    assert!(!verify(&[broken]).status.success(), "the check checks nothing");
}

/// A root with an own rules directory, in which there is a file of rules or not.
fn root_with(rules: Option<&str>) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("etc/udev/rules.d");
    fs::create_dir_all(&directory).unwrap();
    if let Some(rules) = rules {
        fs::write(directory.join("60-egm.rules"), rules).unwrap();
    }
    root
}

fn rules_of(root: &Path) -> PathBuf {
    root.join("etc/udev/rules.d/60-egm.rules")
}

/// Names and contents of all that is below a directory.
fn everything(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            found.push((
                path.clone(),
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            ));
        } else if path.is_dir() {
            found.extend(everything(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_packager_s_root_gets_the_file_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_str().unwrap();
    let output = udev(&["install", "--root", path]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(everything(root.path()).len(), 1);
    let rules = fs::read_to_string(rules_of(root.path())).unwrap();
    assert!(rules.contains(r#"PROGRAM=="egm-probe udev links %k""#), "{rules}");
    assert_eq!(udev(&["print"]).stdout, rules.as_bytes(), "print shows what install writes");
    let mode = fs::metadata(rules_of(root.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    assert!(said(&output).contains("no /etc/group below this root"), "{output:?}");
    assert!(udev(&["uninstall", "--root", path]).status.success());
    assert!(everything(root.path()).is_empty());
}

#[test]
fn what_is_unwise_or_wrong_is_refused_and_nothing_changes() {
    let root = root_with(Some("# an administrator's\n"));
    fs::write(root.path().join("etc/group"), "root:x:0:\nkvm:x:36:\npeople:x:1000:\n").unwrap();
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    let file = root.path().join("etc/group");
    let before = everything(root.path());
    let path = root.path().to_str().unwrap();
    for (args, code, word) in [
        (&["--group", "nosuch"][..], 1, "there is no group nosuch"),
        (&["--user", "nosuch"], 1, "there is no user nosuch"),
        (&["--group", "4711"], 1, "there is no group 4711"),
        (&["--mode", "0666"], 1, "every process of this host"),
        (&["--mode", "0664"], 1, "every process of this host"),
        (&["--mode", "9999"], 2, "a mode in octal digits"),
        (&["--mode", "4660"], 2, "a mode in octal digits"),
        (&["--group", "kvm\", RUN+=\"x"], 2, "the name of a user or group"),
        (&["--group", "kvm\nRUN+=\"x\""], 2, "the name of a user or group"),
        (&["--selinux", "a:b:c\""], 2, "an SELinux context"),
        (&["--root", file.to_str().unwrap()], 4, "not a directory"),
        (&["--root", "/nonexistent"], 4, "No such file or directory"),
    ] {
        let mut all = vec!["install"];
        if !args.contains(&"--root") {
            all.extend(["--root", path]);
        }
        let output = udev(&[&all, args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(said(&output).contains(word), "{args:?}: {output:?}");
        assert_eq!(everything(root.path()), before, "{args:?}");
    }
    let forced =
        udev(&["install", "--root", path, "--group", "nosuch", "--mode", "0666", "--force"]);
    assert!(forced.status.success(), "{forced:?}");
    let rules = fs::read_to_string(rules_of(root.path())).unwrap();
    assert!(rules.contains(r#"GROUP="nosuch", MODE="0666""#), "{rules}");
    let people = udev(&["install", "--root", path, "--group", "people"]);
    assert!(said(&people).contains("is no system group"), "{people:?}");
}

#[test]
fn links_that_were_planted_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    for (at, target, word) in [
        ("etc/udev/rules.d/60-egm.rules", victim.as_path(), "a link to"),
        ("etc/udev/rules.d/60-egm.rules", Path::new("/dev/null"), "switched these rules off"),
        ("etc/udev/rules.d/60-egm.rules", Path::new("nowhere"), "a link to nowhere"),
        ("etc/udev/rules.d", outside.path(), "outside of"),
        ("etc/udev", outside.path(), "outside of"),
        ("etc", outside.path(), "outside of"),
    ] {
        let root = root_with(None);
        let at = root.path().join(at);
        if at.exists() {
            fs::remove_dir_all(&at).unwrap();
        }
        symlink(target, &at).unwrap();
        let before = (everything(root.path()), everything(outside.path()));
        for command in ["install", "uninstall"] {
            let output = udev(&[command, "--root", root.path().to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(1), "{command} {at:?}: {output:?}");
            assert!(said(&output).contains(word), "{command} {at:?}: {output:?}");
            assert_eq!((everything(root.path()), everything(outside.path())), before);
        }
    }
}

#[test]
fn what_cannot_be_written_is_said_and_leaves_everything_as_it_was() {
    let root = root_with(Some("# an administrator's\n"));
    let path = root.path().to_str().unwrap();
    let before = everything(root.path());
    let probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"];
    if !can("a mount namespace", &probe) || !can("strace", &["strace", "-V"]) {
        return;
    }
    let read_only = format!(
        "mount --make-rprivate / && mount --bind {path} {path} && mount -o remount,ro,bind {path} && \
         exec {PROGRAM} udev install --root {path}"
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &read_only]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(said(&output).contains("60-egm.rules: Read-only file system"), "{output:?}");
    assert_eq!(everything(root.path()), before);

    for (call, error) in [
        ("link,linkat", "EPERM"),
        ("fsync", "EIO"),
        ("write", "ENOSPC"),
        ("rename,renameat,renameat2", "EIO"),
    ] {
        let output = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("inject={call}:error={error}:when=1"),
            ])
            .args([PROGRAM, "udev", "install", "--root", path])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(4), "{call}: {output:?}");
        let left: Vec<_> = everything(root.path())
            .into_iter()
            // The file's second name, which the next run uses.
            .filter(|(path, _)| !path.to_string_lossy().contains("before-egm-probe"))
            .collect();
        assert_eq!(left, before, "{call}");
    }
}

#[test]
fn without_root_or_udevd_the_running_system_is_left_alone() {
    let probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"];
    if !can("a mount namespace", &probe) {
        return;
    }
    let run = |setup: &str, arguments: &str| {
        let script = format!(
            "mount --make-rprivate /; mkdir -p /run/udev /etc/udev; mount -t tmpfs tmpfs /run/udev; \
             mount -t tmpfs tmpfs /etc/udev; {setup} {PROGRAM} udev {arguments}; code=$?; \
             find /etc/udev -type f; exit $code"
        );
        Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap()
    };
    for (setup, arguments, code, word) in [
        ("", "install", 4, "no udevd runs here"),
        ("PATH=/nonexistent", "install", 4, "no udevadm in PATH"),
        ("setpriv --reuid 65534 --clear-groups", "install", 4, "only root can change"),
        ("setpriv --reuid 65534 --clear-groups", "uninstall", 4, "only root can change"),
    ] {
        let output = run(setup, arguments);
        assert_eq!(output.status.code(), Some(code), "{setup}: {output:?}");
        assert!(said(&output).contains(word), "{setup}: {output:?}");
        assert!(output.stdout.is_empty(), "{setup}: {output:?}");
    }
    let output = run("", "install --no-reload --group root");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(&format!("{RULES}\n")));
}

/// Killed wherever it may be, it leaves the old file or the new one.
#[test]
fn killed_at_any_point_it_leaves_the_old_rules_or_the_new() {
    if !can("strace", &["strace", "-qq", "-o", "/dev/null", "true"]) {
        return;
    }
    let old = "# an administrator's\n";
    let new = udev(&["print"]).stdout;
    let calls =
        "openat,write,fsync,fchmod,rename,renameat,renameat2,link,linkat,unlink,flock,close";
    let mut seen = (0, 0);
    for nth in 1.. {
        let root = root_with(Some(old));
        let path = root.path().to_str().unwrap();
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e"])
            .arg(format!("inject={calls}:signal=KILL:when={nth}"))
            .args([PROGRAM, "udev", "install", "--root", path])
            .output()
            .unwrap();
        let found = fs::read(rules_of(root.path())).unwrap();
        assert!(found == old.as_bytes() || found == new, "after {nth} calls: {found:?}");
        if found == new {
            seen.1 += 1;
        } else {
            seen.0 += 1;
        }
        // What was left does not get in the way, and the administrator's file is not lost.
        let again = udev(&["install", "--root", path]);
        assert!(again.status.success(), "after {nth} calls: {again:?}");
        let mut names: Vec<_> = everything(root.path())
            .iter()
            .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["60-egm.rules", "60-egm.rules.before-egm-probe"], "after {nth} calls");
        let kept = rules_of(root.path()).with_extension("rules.before-egm-probe");
        assert_eq!(fs::read_to_string(kept).unwrap(), old);
        if output.status.success() {
            break;
        }
        assert!(nth < 500, "it never came to its end");
    }
    assert!(seen.0 > 10 && seen.1 > 0, "it was killed before and after: {seen:?}");
}

/// The same without strace, at times that nobody chose.
#[test]
fn killed_at_any_time_it_leaves_the_old_rules_or_the_new() {
    let (kvm, disk) = (udev(&["print"]).stdout, udev(&["print", "--group", "disk"]).stdout);
    let root = root_with(None);
    let path = root.path().to_str().unwrap();
    assert!(udev(&["install", "--root", path]).status.success());
    for round in 0..200 {
        let group = if round % 2 == 0 { "disk" } else { "kvm" };
        let mut child = Command::new(PROGRAM)
            .args(["udev", "install", "--root", path, "--group", group])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_micros(round * 40));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = fs::read(rules_of(root.path())).unwrap();
        assert!(
            found == kvm || found == disk,
            "round {round}: {}",
            String::from_utf8_lossy(&found)
        );
    }
}

/// Nothing that sysfs says gets into a path but numbers.
#[test]
fn links_are_made_of_numbers_only() {
    let allowed = |link: &str| {
        let rest =
            link.strip_prefix("grace-egm/by-node/").or(link.strip_prefix("grace-egm/by-gpu/"));
        rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c)))
    };
    let mut seen = 0;
    for machine in support::machines() {
        for region in ["egm0", "egm4", "egm5", "egm10"] {
            let output = Command::new(PROGRAM)
                .arg("--from")
                .arg(support::archive(&machine))
                .args(["udev", "links", region])
                .output()
                .unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(i32::from(printed.is_empty())), "{machine}");
            assert!(printed.lines().count() <= 1, "{machine}: {printed}");
            for link in printed.split_whitespace() {
                assert!(allowed(link), "{machine}: {link}");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
    for name in ["egm", "egm4;reboot", "../egm4", "--help4", "egm4 x", "4"] {
        let output = udev(&["links", "--", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
}
