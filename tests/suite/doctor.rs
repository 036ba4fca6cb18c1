//! The checks of `doctor`: a host that passes all, and for each a host that fails only this one.

use crate::live::{can_overlay, can_strace, extract};
use crate::support;
use crate::support::{machines, tree};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use egm_probe::doctor::CHECKS;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

fn folder() -> PathBuf {
    support::fixtures().join("doctor")
}

/// The command for one of the hosts, with the installed software, which a recording does not have.
fn doctor(host: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    let qemu = if host.starts_with("D17") { "stock" } else { "egm" };
    let schema = if host.starts_with("D18") { "stock" } else { "egm" };
    command.current_dir(folder()).args(["--from", host, "doctor"]).args([
        "--qemu",
        &format!("bin/qemu-{qemu}"),
        "--schema",
        &format!("schemas/{schema}"),
    ]);
    command
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The verdict of every check on a host.
fn verdicts(document: &Value) -> BTreeMap<String, String> {
    let checks = document["checks"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    checks.iter().map(|check| (text(&check["code"]), text(&check["verdict"]))).collect()
}

/// The lines are those of libvirt's own tool.
#[test]
fn lines_are_like_those_of_virt_host_validate() {
    let output = doctor("healthy").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let columns = |line: &str| (line.find("Checking"), line.rfind(": "));
    let mut lines = printed.lines();
    assert_eq!(
        lines.next(),
        Some(
            "   EGM: Virtual machines started by libvirt (detected; for KubeVirt, add --consumer \
             kubernetes)"
        )
    );
    for line in lines {
        assert!(line.starts_with("   EGM: Checking "), "{line}");
        assert_eq!(line.chars().nth(77), Some(':'), "{line}");
    }
    if !support::has(&["virt-host-validate"]) {
        return;
    }
    let validate = Command::new("virt-host-validate").arg("qemu").output().unwrap();
    let theirs = String::from_utf8(validate.stdout).unwrap();
    let first = theirs.lines().next().unwrap_or_else(|| panic!("{:?}", validate.stderr));
    assert_eq!(first.chars().nth(77), Some(':'), "{first}");
    assert_eq!(columns(first).0, columns(printed.lines().nth(1).unwrap()).0, "{first}");
}

#[test]
fn a_host_without_egm_is_reported_in_one_line() {
    if Path::new("/sys/class/egm").exists() {
        support::skip("this host has EGM");
        return;
    }
    let output = Command::new(PROGRAM).arg("doctor").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains(": FAIL (D01: no EGM on this "), "{printed}");
    if std::env::consts::ARCH != "aarch64" {
        let is_platform = printed.contains("no EGM on this platform (");
        assert!(is_platform && printed.lines().count() == 1, "{printed}");
    }
    assert!(!printed.contains("SKIP"), "{printed}");
    let quiet = Command::new(PROGRAM).args(["doctor", "-q"]).output().unwrap();
    assert_eq!((quiet.status.code(), quiet.stdout.len(), quiet.stderr.len()), (Some(1), 0, 0));
}

/// For another root, neither QEMU nor libvirt of this machine are examined.
#[test]
fn no_program_is_run_for_another_host() {
    if !can_strace() {
        return;
    }
    let log = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=execve,openat", "-o"])
        .arg(log.path())
        .arg(PROGRAM)
        .args(["--from", "healthy", "doctor", "--json"])
        .current_dir(folder())
        .output()
        .unwrap();
    let verdicts = verdicts(&json(&output));
    assert_eq!((verdicts["D17"].as_str(), verdicts["D18"].as_str()), ("skip", "skip"));
    let log = fs::read_to_string(log.path()).unwrap();
    assert_eq!(log.matches("execve").count(), 1, "{log}");
    assert!(!log.contains("\"/dev") && !log.contains("libvirt/schemas"), "{log}");
}

/// On the running host, the installed ones are examined, and no device is opened.
#[test]
fn installed_software_is_examined_on_the_running_host() {
    let work = extract("gb200-full-gpu-list");
    if !can_overlay(work.path()) || !can_strace() {
        return;
    }
    let bin = work.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(folder().join("bin/qemu-egm"), bin.join("qemu-system-aarch64")).unwrap();
    let run = |script: &str| {
        let script = format!(
            "mount --make-rprivate /; mount -t overlay o -o nodev,lowerdir={0}/sys:/sys /sys;
            mount -t tmpfs tmpfs /dev; mknod -m 0640 /dev/egm4 c 510 4; mknod -m 0640 /dev/egm5 c 510 5; mknod -m 0666 /dev/null c 1 3
            mkdir -p /usr/share/libvirt/schemas; mount --bind {1} /usr/share/libvirt/schemas
            PATH={0}/bin:$PATH; {script}",
            work.path().display(),
            folder().join("schemas/egm").display()
        );
        Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap()
    };
    let log = work.path().join("log");
    let traced = run(&format!(
        "exec strace -f -qq -e trace=open,openat,openat2 -o {} {PROGRAM} doctor --json --consumer libvirt",
        log.display()
    ));
    let document = json(&traced);
    let verdicts = verdicts(&document);
    for (code, verdict) in [("D02", "pass"), ("D17", "pass"), ("D18", "pass")] {
        assert_eq!(verdicts[code], verdict, "{document}");
    }
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("/sys/class/egm"), "strace saw nothing");
    assert!(!log.contains("\"/dev/egm"), "{log}");
}

#[test]
fn a_failing_or_hanging_qemu_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let started = Instant::now();
    for (name, text, word) in [
        ("fails", "echo 'cannot \x1b[31mstart' >&2; exit 1", "cannot \\x1b[31mstart"),
        ("crashes", "kill -SEGV $$", "signal: 11"),
        (
            "leaves a child",
            "echo acpi-egm-memories; sleep 100 & exit 0",
            "acpi-egm-memory is not supported",
        ),
        ("floods", "yes acpi-egm-memories | head -n 1000000", "acpi-egm-memory is not supported"),
    ] {
        let qemu = script(name, text);
        let output = doctor("healthy").args(["--json", "--qemu"]).arg(&qemu).output().unwrap();
        let document = json(&output);
        let check = document["checks"].as_array().unwrap().iter().find(|it| it["code"] == "D17");
        let check = check.unwrap();
        assert_eq!(check["verdict"], "fail", "{name}");
        assert!(check["message"].as_str().unwrap().contains(word), "{name}: {check}");
    }
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn every_check_can_be_explained() {
    let explain =
        |code: &str| Command::new(PROGRAM).args(["doctor", "--explain", code]).output().unwrap();
    let all = String::from_utf8(explain("all").stdout).unwrap();
    assert_eq!(all.lines().count(), CHECKS.len());
    for check in CHECKS {
        let output = explain(&check.code.to_lowercase());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(check.explanation) && text.contains(check.title), "{text}");
        assert!(all.contains(&format!("{}  ", check.code)));
    }
    let none = explain("D99");
    assert_eq!((none.status.code(), none.stdout.len()), (Some(1), 0));
}

/// With any contents of sysfs, /proc and /etc, the program terminates, prints no terminal controls,
/// and injects nothing into the printed shell commands.
#[test]
fn hostile_hosts_do_no_harm() {
    for machine in support::machines() {
        for args in [&[][..], &["--fix-plan"], &["--json"]] {
            let output = Command::new(PROGRAM)
                .arg("--from")
                .arg(support::machine(&machine))
                .arg("doctor")
                .args(args)
                .output()
                .unwrap();
            assert!(matches!(output.status.code(), Some(0 | 1)), "{machine}: {output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            let is_bad = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(is_bad), "{machine}: {text:?}");
        }
    }
}

/// All settings of the rules are in one command, which occurs once: several commands would undo each
/// other.
#[test]
fn a_plan_installs_the_rules_once() {
    let mut tree = tree::Tree::read(&folder().join("D11"));
    tree.file("sys/fs/selinux/enforce", "1");
    tree.remove("usr/lib/udev/rules.d/60-egm.rules");
    let host = tempfile::NamedTempFile::new().unwrap();
    fs::write(host.path(), tree.tar()).unwrap();
    let output = Command::new(PROGRAM)
        .arg("--from")
        .arg(host.path())
        .args(["doctor", "--fix-plan"])
        .output()
        .unwrap();
    let plan = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = plan.lines().filter(|line| line.starts_with("egm-probe udev")).collect();
    let label = "--selinux system_u:object_r:svirt_image_t:s0";
    assert_eq!(lines, [format!("egm-probe udev install --group builder {label}")], "{plan}");
    assert_eq!(plan.matches("# see above: egm-probe udev install").count(), 2, "{plan}");
}

/// Checks of unreadable files neither pass nor fail.
#[test]
fn unreadable_files_are_unknown() {
    let unreadable: &[(&str, &str, &[&str])] = &[
        ("healthy", "etc/libvirt/qemu.conf", &["D10", "D11", "D13", "D14", "D15", "D16"]),
        ("healthy", "etc/passwd", &["D10", "D11", "D13", "D14", "D15", "D16"]),
        ("healthy", "etc/group", &["D10", "D11", "D13", "D14", "D15", "D16"]),
        ("healthy", "sys/module/apparmor/parameters/enabled", &["D15"]),
        ("healthy", "sys/fs/selinux/enforce", &["D16"]),
        ("healthy", "sys/kernel/iommu_groups/80/devices", &["D08", "D09"]),
        ("healthy", "proc/900/limits", &["D19"]),
        ("D11-kubernetes", "etc/containerd/config.toml", &["D11"]),
    ];
    for (host, path, skipped) in unreadable {
        let mut tree = tree::Tree::read(&folder().join(host));
        if path.ends_with("devices") {
            tree.remove_all(path);
        }
        // Like a pipe, which exists but is not read.
        tree.fifo(path);
        let host = tempfile::NamedTempFile::new().unwrap();
        fs::write(host.path(), tree.tar()).unwrap();
        let output = Command::new(PROGRAM)
            .current_dir(folder())
            .arg("--from")
            .arg(host.path())
            .args(["doctor", "--json", "--qemu", "bin/qemu-egm", "--schema", "schemas/egm"])
            .output()
            .unwrap();
        for (code, verdict) in verdicts(&json(&output)) {
            let expected = if skipped.contains(&code.as_str()) { "skip" } else { "pass" };
            assert_eq!(verdict, expected, "{path}: {code}: {output:?}");
        }
    }
}

/// The message and the commands of D21 on a host.
fn d21(tree: &tree::Tree) -> (String, String) {
    let host = tempfile::NamedTempFile::new().unwrap();
    fs::write(host.path(), tree.tar()).unwrap();
    let mut command = Command::new(PROGRAM);
    let output =
        command.arg("--from").arg(host.path()).args(["doctor", "--json"]).output().unwrap();
    let document = json(&output);
    let mut checks = document["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["code"] == "D21").unwrap();
    (check["message"].to_string(), check["hints"].to_string())
}

#[test]
fn no_process_is_accused_without_evidence() {
    let mut opening = tree::Tree::read(&folder().join("D21-back-end"));
    opening.file("sys/module/nvgrace_egm/refcnt", "4\n");
    let (message, hints) = d21(&opening);
    assert!(message.contains("unknown whether they share"), "{message}");
    assert!(!hints.contains("terminate"), "{hints}");
    let mut gone = tree::Tree::read(&support::machine("claims-gone"));
    gone.file("proc/4242/cmdline", "/usr/bin/stress\0");
    assert!(d21(&gone).0.contains("egm4: held by"), "{:?}", d21(&gone));
    // The reason is that of the search.
    let mut unclear = tree::Tree::read(&folder().join("healthy"));
    unclear.file("sys/module/nvgrace_egm/refcnt", "6\n");
    let (message, hints) = d21(&unclear);
    assert!(message.contains("open file") && hints == "[]", "{message} {hints}");
}

#[test]
fn the_device_plugin_does_not_know_an_unknown_layout() {
    let mut command = Command::new(PROGRAM);
    command.arg("--from").arg(support::machine("gb200-node-attribute"));
    let output = command.args(["doctor", "--json", "--consumer", "kubernetes"]).output().unwrap();
    assert_eq!(verdicts(&json(&output))["D29"], "fail", "{output:?}");
}

/// A host whose names and messages would inject lines into a script.
#[test]
fn no_name_gets_out_of_its_line() {
    let mut tree = tree::Tree::read(&folder().join("healthy"));
    let evil = "x\ntouch /tmp/evil #$(reboot)`id`\x1b[31m";
    tree.file("etc/libvirt/qemu.conf", format!("user = \"\"\"{evil}\"\"\"\n"));
    tree.file("proc/sys/kernel/osrelease", evil);
    tree.file("proc/900/comm", "virtqemud\n");
    tree.remove("dev/iommu");
    let driver = format!("sys/bus/pci/drivers/{}", evil.replace('/', "_"));
    tree.directory(&driver);
    tree.link(&format!("{}/driver", machines::gpu_path("0019:01:00.0")), &driver);
    let uevent = format!("MAJOR=510\nMINOR=5\nDEVNAME=egm5;{}\n", evil.replace(['\n', '/'], "_"));
    tree.file("sys/devices/virtual/egm/egm5/uevent", uevent);
    let host = tempfile::NamedTempFile::new().unwrap();
    fs::write(host.path(), tree.tar()).unwrap();
    for args in [&["--fix-plan"][..], &[]] {
        let output = Command::new(PROGRAM)
            .arg("--from")
            .arg(host.path())
            .args(["doctor", "--schema", "a\ntouch b"])
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        let runs = |line: &&str| line.trim_start().starts_with("touch") || line.starts_with("egm5");
        assert!(!text.lines().any(|line| runs(&line)), "{text}");
        if args.is_empty() {
            continue;
        }
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let is_known = ["egm-probe udev install", "modprobe iommufd", "udevadm trigger"];
            assert!(is_known.iter().any(|known| line.starts_with(known)), "{line}");
            assert!(!line.contains(['$', '`', ';', '|', '&']), "{line}");
        }
    }
}

#[test]
fn an_allowed_problem_is_a_note() {
    let check = |host: &str, code: &str, allow: &str| {
        let output = doctor(host).args(["--json", "--allow", allow]).output().unwrap();
        let document = json(&output);
        let checks = document["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["code"] == code).unwrap();
        let verdict = found["verdict"].as_str().unwrap().to_owned();
        (verdict, found["allowed"] == true, output.status.code())
    };
    let note = ("note".to_owned(), true, Some(0));
    assert_eq!(check("D11", "D11", "D12"), ("fail".to_owned(), false, Some(1)));
    for (host, code, allow) in [
        ("D11", "D11", "d11"),
        ("D20", "D20", "D20"),
        ("D24", "D24", "egm215"),
        ("D26", "D26", "EGM113"),
    ] {
        assert_eq!(check(host, code, allow), note, "{host} --allow {allow}");
    }
    assert_eq!(check("D24", "D24", "EGM113"), ("warn".to_owned(), false, Some(0)));
    assert_eq!(check("healthy", "D20", "D20"), ("pass".to_owned(), false, Some(0)));
    let output = doctor("D20").args(["--allow", "D20"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains(": NOTE (D20: "), "{printed}");
    assert_eq!(doctor("D20").args(["--allow", "D99"]).output().unwrap().status.code(), Some(2));
}
