//! The unmodified program on a running host: with a recorded machine in place of `/sys`, under
//! umockdev, and traced by strace. These tests need Linux tools, and most of them root; if they
//! cannot run they print the reason, and with `EGM_PROBE_TEST_ALL` set, as in CI, they fail.

use crate::support;
use crate::support::tree::Tree;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

/// A recorded machine as files. The nodes in its /dev are omitted: see [`NODES`]. Only root can
/// create those in other directories, below /proc.
pub(crate) fn extract(machine: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let extracted = Tree::read(&support::machine(machine)).extract(folder.path(), "dev/*");
    let is_expected = |line: &str| line.contains("mknod") || line.contains("Exiting with failure");
    if let Err(errors) = extracted {
        assert!(errors.lines().all(is_expected), "{errors}");
    }
    // Without device nodes, they are unknown rather than missing.
    let _ = fs::remove_dir(folder.path().join("dev"));
    folder
}

/// Whether a tool works here; prints the reason if not.
pub(crate) fn can(what: &str, probe: &[&str]) -> bool {
    if !support::has(&probe[..1]) {
        return false;
    }
    let output = Command::new(probe[0]).args(&probe[1..]).output();
    let works = output.is_ok_and(|output| output.status.success());
    if !works {
        support::skip(&format!("{what} does not work ({})", probe.join(" ")));
    }
    works
}

/// Whether the program listens to udev; skips the test if it does not.
pub(crate) fn has_udev() -> bool {
    if !cfg!(feature = "udev") {
        support::skip("built without the feature udev");
    }
    cfg!(feature = "udev")
}

pub(crate) fn can_strace() -> bool {
    can("strace", &["strace", "-qq", "-o", "/dev/null", "true"])
}

/// Whether processes are visible as themselves, unlike in qemu's user emulation.
pub(crate) fn sees_processes() -> bool {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let cmdline = format!("/proc/{}/cmdline", child.id());
    let is_itself = || {
        thread::sleep(Duration::from_millis(10));
        fs::read(&cmdline).unwrap() == b"sleep\x0060\0"
    };
    // A process that has just started has no arguments yet.
    let sees = (0..100).any(|_| is_itself());
    child.kill().unwrap();
    child.wait().unwrap();
    if !sees {
        support::skip("processes run in an emulator, whose arguments they have");
    }
    sees
}

pub(crate) fn can_overlay(folder: &Path) -> bool {
    let mount = format!("mount -t overlay o -o nodev,lowerdir={0}/sys:/sys /sys", folder.display());
    can("an overlay on /sys in a mount namespace", &["unshare", "-m", "sh", "-c", &mount])
}

/// A private /dev with nodes as created by the machine's driver, and one of another device.
const NODES: &str = "mount -t tmpfs tmpfs /dev
    mknod -m 0640 /dev/egm4 c 510 4
    mknod -m 0666 /dev/egm5 c 1 5";

/// Runs a script in a mount namespace with the machine's /sys over the host's.
fn on_host(folder: &Path, script: &str) -> Output {
    let setup = format!(
        "set -e
        mount --make-rprivate /
        mount -t overlay o -o nodev,lowerdir={}/sys:/sys /sys
        {script}",
        folder.display()
    );
    Command::new("unshare").args(["-m", "sh", "-c", &setup]).output().unwrap()
}

pub(crate) fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_machine_in_place_of_sys_is_listed_without_any_option() {
    let folder = extract("gb200-full-gpu-list");
    if !can_overlay(folder.path()) {
        return;
    }
    let live = json(&on_host(
        folder.path(),
        &format!("{NODES}\nexec {PROGRAM} list --json --no-occupancy"),
    ));
    let recorded = Command::new(PROGRAM)
        .arg("--from")
        .arg(support::machine("gb200-full-gpu-list"))
        .args(["list", "--json", "--no-occupancy"])
        .output()
        .unwrap();
    let mut expected = json(&recorded);
    let device = &mut expected["regions"][0]["device"];
    device["mode"] = "0640".into();
    device["group"] = "root".into();
    // The second node has another number, so its mode and owner are not the region's.
    let device = &mut expected["regions"][1]["device"];
    for field in ["mode", "user", "group"] {
        device[field] = Value::Null;
    }
    expected["regions"][1]["warnings"] = serde_json::json!([
        "/dev/egm5: not the region's device node: found character device 1:5, expected 510:5"
    ]);
    assert_eq!(without_names(live), without_names(expected));
}

/// Names come from the host's own list, which differs between hosts.
fn without_names(mut document: Value) -> Value {
    for region in document["regions"].as_array_mut().unwrap() {
        for gpu in region["gpus"].as_array_mut().unwrap() {
            gpu["name"] = Value::Null;
        }
    }
    document
}

#[test]
fn a_mocked_device_is_listed_with_its_udev_links() {
    if !can("umockdev", &["umockdev-run", "--version"]) {
        return;
    }
    let device = support::fixtures().join("gb200.umockdev");
    let run = |args: &[&str]| {
        Command::new("umockdev-run")
            .arg("--device")
            .arg(&device)
            .args(["--", PROGRAM])
            .args(args)
            .output()
            .unwrap()
    };
    let list = json(&run(&["list", "--json"]));
    let region = &list["regions"][0];
    assert_eq!(region["name"], "egm4");
    assert_eq!(region["size"], 479_962_595_328_u64);
    assert_eq!(region["shape"], "gpu-list");
    assert_eq!(region["device"]["mode"], "0600");
    let gpus: Vec<_> = region["gpus"].as_array().unwrap().iter().collect();
    assert_eq!(gpus[0]["address"], "0008:01:00.0");
    assert_eq!(gpus[1]["address"], "0009:01:00.0");
    assert_eq!(gpus[1]["driver"], "nvgrace_gpu_vfio_pci");
    // umockdev shows no NUMA nodes, so the GPUs' numa_node cannot be checked against them.
    assert_eq!(region["numa_node"], Value::Null);

    if cfg!(feature = "udev") {
        let show = json(&run(&["show", "egm4", "--json"]));
        let links = &show["regions"][0]["links"];
        assert_eq!(*links, serde_json::json!(["/dev/grace-egm/by-node/0"]));
    }
}

/// The paths that a command opens and how often, except those that every program opens. The command
/// must succeed.
fn opened(args: &[&str]) -> BTreeMap<PathBuf, usize> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    command.args(["--seccomp-bpf", "-f", "-qq", "-s", "4096"]);
    command.args(["-e", "trace=openat,open,openat2,creat", "-o"]);
    let output = command.arg(log.path()).arg(PROGRAM).args(args).output().unwrap();
    // 1 and 3 are valid as well: no such GPU, no EGM; and so is 4 without /sys.
    let shown = [&output.stdout[..], &output.stderr].concat();
    let is_answer = match output.status.code() {
        Some(0 | 1 | 3) => true,
        Some(4) => String::from_utf8_lossy(&shown).contains("/sys: No such file or directory"),
        _ => false,
    };
    assert!(is_answer, "{args:?}: {output:?}");
    let mut paths = BTreeMap::new();
    for line in fs::read_to_string(log.path()).unwrap().lines() {
        let path = line.split('"').nth(1).unwrap_or_else(|| panic!("{line}: {output:?}"));
        // Files of the loader, and of the C library, which searches for the end of the stack.
        let is_common =
            path.ends_with("/ld.so.cache") || path.contains(".so.") || path == "/proc/self/maps";
        if !is_common {
            *paths.entry(PathBuf::from(path)).or_default() += 1;
        }
    }
    paths
}

const COMMANDS: [&[&str]; 12] = [
    &["list"],
    &["list", "--json"],
    &["list", "-O"],
    &["list", "-o", "DEVICE,SIZE"],
    &["show"],
    &["show", "egm5", "--json"],
    &["show", "--gpu", "0009:01:00.0"],
    &["stanza", "--all", "--force", "--size", "2MiB"],
    &["udev", "status"],
    &["doctor"],
    &["capture", "-"],
    &["capture", "--with-claims", "-"],
];

#[test]
fn files_are_opened_once_and_devices_never() {
    if !can_strace() {
        return;
    }
    for machine in support::machines() {
        let folder = extract(&machine);
        // Create the files that must not be opened.
        fs::create_dir_all(folder.path().join("dev")).unwrap();
        let regions = fs::read_dir(folder.path().join("sys/class/egm"));
        for region in regions.into_iter().flatten() {
            fs::write(folder.path().join("dev").join(region.unwrap().file_name()), "").unwrap();
        }
        let root = folder.path().to_str().unwrap();
        // All of them on the full machine; on the others the one that reads the most.
        let commands =
            if machine == "gb200-full-gpu-list" { &COMMANDS[..] } else { &[&["show"][..]] };
        for command in commands {
            let args = [&["--sysroot", root], *command].concat();
            let opened = opened(&args);
            // With an open file, the driver's count is read again after the processes, and these
            // are searched again if it has more.
            let count = folder.path().join("sys/module/nvgrace_egm/refcnt");
            let is_open = fs::read(count).is_ok_and(|count| count != b"0\n");
            for (path, count) in &opened {
                let within = path.strip_prefix(root).unwrap_or(path);
                let is_holders = within.starts_with("proc") || within.starts_with("sys/module");
                // The state of the module is read before and after its regions.
                let is_state = within.ends_with("nvgrace_egm/initstate");
                let may_repeat = (is_open && is_holders) || is_state || within == Path::new("proc");
                let what = format!("{command:?} on {machine} opens {}", path.display());
                assert!(*count == 1 || may_repeat, "{what}: {count} times");
                assert!(!within.starts_with("dev"), "opens {}", path.display());
                assert!(!path.starts_with("/dev"), "opens {}", path.display());
            }
            let has_regions = folder.path().join("sys/class/egm").exists();
            assert!(!has_regions || !opened.is_empty(), "strace saw nothing of {command:?}");
        }
    }
}

#[test]
fn with_an_archive_no_other_file_is_opened() {
    if !can_strace() {
        return;
    }
    let archive = support::machine("gb200-gpu-list");
    for command in COMMANDS {
        let args = [&["--from", archive.to_str().unwrap()], command].concat();
        let opened = opened(&args);
        assert_eq!(opened.into_iter().collect::<Vec<_>>(), [(archive.clone(), 1)], "{command:?}");
    }
}

#[test]
fn no_device_is_opened_on_the_running_host() {
    let folder = extract("gb200-full-gpu-list");
    if !can_strace() || !can_overlay(folder.path()) {
        return;
    }
    for command in COMMANDS {
        let log = tempfile::NamedTempFile::new().unwrap();
        let output = on_host(
            folder.path(),
            &format!(
                "{NODES}\nexec strace -f -qq -e trace=openat,open,openat2 -o {} {PROGRAM} {}",
                log.path().display(),
                command.join(" ")
            ),
        );
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        let log = fs::read_to_string(log.path()).unwrap();
        assert!(log.contains("/sys/class/egm"), "strace saw nothing");
        // The directory itself is listed, and other programs open /dev/null.
        let is_device = |line: &&str| line.contains("\"/dev/") && !line.contains("\"/dev/null\"");
        let device = log.lines().find(is_device);
        assert!(device.is_none(), "{command:?} opens a device: {device:?}");
    }
}

#[test]
fn a_host_without_egm_is_an_empty_list() {
    if Path::new("/sys/class/egm").exists() {
        support::skip("this host has EGM");
        return;
    }
    let run = |args: &[&str]| Command::new(PROGRAM).args(args).output().unwrap();
    let list = run(&["list"]);
    assert_eq!((list.status.code(), list.stdout.len()), (Some(0), 0));
    assert_eq!(json(&run(&["list", "--json"]))["regions"], serde_json::json!([]));
    let show = run(&["show", "egm4"]);
    assert_eq!((show.status.code(), show.stdout.len()), (Some(3), 0));
    assert!(String::from_utf8_lossy(&show.stderr).contains("no EGM region on this host"));
}

#[test]
fn an_unreadable_attribute_affects_nothing_else() {
    let folder = extract("gb200-full-standalone");
    let size = folder.path().join("sys/devices/virtual/egm/egm4/egm_size");
    let inject = ["strace", "-qq", "-o", "/dev/null", "-P", size.to_str().unwrap()];
    if !can("strace", &[&inject[..], &["true"]].concat()) {
        return;
    }
    for (call, error, said) in [
        ("read", "EIO", "Input/output error"),
        ("openat", "EACCES", "Permission denied"),
        ("openat", "ENOENT", "missing; the size is unknown"),
        ("openat", "ENOMEM", "Cannot allocate memory"),
        ("read", "ENODEV", "No such device"),
    ] {
        let output = Command::new(inject[0])
            .args(&inject[1..])
            .args(["-e", &format!("inject={call}:error={error}")])
            .args([PROGRAM, "list", "-n", "-b", "-o", "DEVICE,SIZE,NODE,GPUS", "-r", "--sysroot"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "egm4 - 0 0008:01:00.0,0009:01:00.0\n\
             egm5 479962595328 1 0018:01:00.0,0019:01:00.0\n",
            "{call} gives {error}"
        );
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            stderr,
            format!("egm-probe: warning: egm4: /sys/devices/virtual/egm/egm4/egm_size: {said}\n")
        );
    }
}

/// A machine whose files can be changed while it replaces /sys: mounted with bind instead of
/// overlay.
fn on_bound_host(folder: &Path, script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c"]).arg(format!(
        "mount --make-rprivate / && mount --bind {}/sys /sys && {script}",
        folder.display()
    ));
    command
}

#[test]
fn a_region_that_is_being_created_is_read_again_until_complete() {
    let folder = extract("gb200-just-made");
    let inject = ["strace", "-qq", "-f", "-o", "/dev/null", "-e"];
    if !can_overlay(folder.path())
        || !can("strace", &[&inject[..], &["trace=openat", "true"]].concat())
    {
        return;
    }
    // Each pause is half a second longer, which simulates a slow driver.
    let script = format!(
        "exec {} inject=nanosleep,clock_nanosleep:delay_exit=500000 {PROGRAM} list --json",
        inject.join(" ")
    );
    let program = on_bound_host(folder.path(), &script).stdout(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(700));
    let region = folder.path().join("sys/devices/virtual/egm/egm5");
    fs::write(region.join("dev"), "510:5\n").unwrap();
    fs::write(region.join("egm_size"), "0x6fc0000000\n").unwrap();
    fs::write(region.join("gpu_devices"), "0018:01:00.0\n0019:01:00.0\n").unwrap();
    let list = json(&program.wait_with_output().unwrap());
    let region = &list["regions"][1];
    assert_eq!(region["size"], 479_962_595_328_u64);
    assert_eq!(region["gpus"].as_array().unwrap().len(), 2);
    let warnings = region["warnings"].to_string();
    assert!(!warnings.contains("incomplete"), "{warnings}");
}

#[test]
fn a_region_that_stays_incomplete_is_listed_with_a_warning() {
    let folder = extract("gb200-just-made");
    if !can_overlay(folder.path()) {
        return;
    }
    let command = format!("exec {PROGRAM} list --json");
    let list = json(&on_bound_host(folder.path(), &command).output().unwrap());
    assert_eq!(list["regions"][0]["name"], "egm4");
    assert!(!list["regions"][0]["warnings"].to_string().contains("incomplete"));
    assert_eq!(list["regions"][1]["name"], "egm5");
    assert_eq!(list["regions"][1]["size"], Value::Null);
    let warnings = list["regions"][1]["warnings"].to_string();
    assert!(warnings.contains("incomplete after 5 reads"), "{warnings}");
}

#[test]
fn a_region_removed_in_the_meantime_is_not_listed() {
    let folder = extract("gb200-just-made");
    if !can_overlay(folder.path()) || !can_strace() {
        return;
    }
    let script = format!(
        "exec strace -qq -f -o /dev/null -e inject=nanosleep,clock_nanosleep:delay_exit=500000 \
         {PROGRAM} list -n -o DEVICE"
    );
    let program = on_bound_host(folder.path(), &script).stdout(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(700));
    fs::remove_file(folder.path().join("sys/class/egm/egm5")).unwrap();
    assert_eq!(program.wait_with_output().unwrap().stdout, b"egm4\n");
}

#[test]
fn a_region_without_a_size_is_complete_if_its_driver_never_shows_one() {
    let folder = extract("gb200-pci-links-no-size");
    if !can_overlay(folder.path()) {
        return;
    }
    for columns in ["DEVICE,SIZE", "DEVICE,SIZE,GPUS"] {
        let output = on_host(folder.path(), &format!("exec {PROGRAM} list -n -o {columns}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("incomplete"), "{columns}: {stderr}");
        assert!(stderr.contains("the size is unknown"), "{columns}: {stderr}");
    }
}

#[test]
fn only_files_are_opened_below_sys() {
    let folder = extract("gb200-full-gpu-list");
    if !can_strace() || !can_overlay(folder.path()) {
        return;
    }
    let egm4 = folder.path().join("sys/devices/virtual/egm/egm4");
    // A device in place of an attribute, and a FIFO, which would block a reader.
    fs::remove_file(egm4.join("egm_size")).unwrap();
    fs::remove_file(egm4.join("uevent")).unwrap();
    let made = format!("cd {} && mknod egm_size c 1 5 && mkfifo uevent", egm4.display());
    assert!(Command::new("sh").args(["-c", &made]).status().unwrap().success());
    let log = tempfile::NamedTempFile::new().unwrap();
    let output = on_host(
        folder.path(),
        &format!(
            "mount --bind /dev/zero /sys/devices/virtual/egm/egm5/egm_size\n\
             exec strace -f -qq -e trace=openat,open,openat2 -o {} timeout 20 {PROGRAM} list -nbr -o DEVICE,SIZE,GPUS",
            log.path().display()
        ),
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "egm4 - 0008:01:00.0,0009:01:00.0\negm5 - 0018:01:00.0,0019:01:00.0\n"
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    for region in ["egm4", "egm5"] {
        let said = format!("/{region}/egm_size: not a regular file");
        assert!(stderr.contains(&said), "{stderr}");
    }
    let log = fs::read_to_string(log.path()).unwrap();
    // Files in sysfs are opened so that no device can be reached.
    assert!(log.contains("RESOLVE_NO_XDEV"), "{log}");
    let is_opened = |line: &&str| line.contains("egm_size\"") && !line.contains("= -1");
    assert_eq!(log.lines().find(is_opened), None);
}
