//! Leases: several regions are reserved together or not at all, regardless of other processes and
//! of when the program is killed.

use crate::live::{can, can_strace, extract, sees_processes};
use crate::support::stderr;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");
const FILE: &str = "run/egm-probe/leases.json";

fn command(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--sysroot").arg(root).args(args);
    command
}

fn run(root: &Path, args: &[&str]) -> Output {
    command(root, args).output().unwrap()
}

/// The state of each region, and whom it is kept for.
fn owners(root: &Path) -> Vec<(String, Option<String>)> {
    let output = run(root, &["list", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let regions = document["regions"].as_array().unwrap().iter();
    let owner = |region: &Value| {
        let claims = region["claims"].as_array().unwrap();
        claims.iter().find(|claim| claim["kind"] == "lease").and_then(|it| text(&it["domain"]))
    };
    regions.map(|region| (text(&region["state"]).unwrap(), owner(region))).collect()
}

/// The regions in the reservation file. Only the lock may be next to it.
fn leased(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("run/egm-probe")).unwrap();
    let names: BTreeSet<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["leases.json", "lock"].map(Into::into).into(), "left over");
    let document: Value = serde_json::from_slice(&fs::read(root.join(FILE)).unwrap()).unwrap();
    let leases = document["leases"].as_array().unwrap().iter();
    let regions = leases.flat_map(|lease| lease["regions"].as_array().unwrap());
    let mut regions: Vec<_> = regions.map(|region| region.as_str().unwrap().to_owned()).collect();
    regions.sort();
    regions
}

/// Whether all have this state and this owner.
fn all(owners: &[(String, Option<String>)], state: &str, owner: Option<&str>) -> bool {
    owners.iter().all(|(found, whose)| found == state && whose.as_deref() == owner)
}

#[test]
fn regions_are_reserved_for_one_name_and_released_by_it() {
    let host = extract("gh200-quad");
    let root = host.path();
    // Known to udev only: an extracted archive has no device nodes.
    let number = fs::read_to_string(root.join("sys/class/egm/egm4/dev")).unwrap();
    let database = root.join("run/udev/data");
    fs::create_dir_all(&database).unwrap();
    fs::write(database.join(format!("c{}", number.trim())), "S:grace-egm/by-node/0\n").unwrap();
    let taken = run(root, &["reserve", "egm4", "egm5", "--for", "vm1"]);
    assert!(taken.status.success(), "{taken:?}");
    assert!(String::from_utf8_lossy(&taken.stdout).contains("vm1(reserved)"));
    // Part of it is unavailable to others.
    let refused = run(root, &["reserve", "--all", "--for", "vm2"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("egm4 is reserved for vm1 until 2"), "{refused:?}");
    assert!(owners(root)[2..].iter().all(|(state, _)| state == "free"), "none of it was taken");
    for (args, word) in [
        (&["stanza", "--region", "egm4"][..], "egm4 is reserved for vm1"),
        (&["stanza", "--for", "vm2"], "no region is reserved for vm2"),
        (&["release", "egm4", "--for", "vm2"], "egm4: not reserved for vm2"),
        (&["release", "/dev/grace-egm/by-node/0", "--for", "vm2"], "egm4: not reserved for vm2"),
        (&["release", "/dev/grace-egm/by-node/9", "--for", "vm1"], "not the device of a region"),
        (&["release", "0009:01:00.1", "--for", "vm1"], "did you mean 0009:01:00.0?"),
        (&["release", "egm9", "--for", "vm1"], "egm9: not reserved for vm1"),
        (&["reserve", "--gpu", "0009:01:00.0", "--for", "vm2"], "egm4 is reserved for vm1"),
        (&["reserve", "--any", "3", "--for", "vm2"], "2 of 4 are available"),
        (&["reserve", "--any", "1", "--gpus", "2", "--for", "vm2"], "0 of 4 are available"),
        (&["reserve", "--any", "1", "--size", "1TiB", "--for", "vm2"], "0 of 4 are available"),
        (&["reserve", "egm9", "--for", "vm2"], "no region egm9"),
        (&["reserve", "0009:01:00.0", "--for", "vm2"], "egm4 is reserved for vm1"),
        (&["reserve", "0009:01:00.1", "--for", "vm2"], "did you mean 0009:01:00.0?"),
        (&["reserve", "/dev/grace-egm/by-node/0", "--for", "vm2"], "egm4 is reserved for vm1"),
        (&["reserve", "/dev/grace-egm/by-node/9", "--for", "vm2"], "not the device of a region"),
    ] {
        let output = run(root, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        assert!(stderr(&output).contains(word), "{args:?}: {output:?}");
    }
    let stanza = run(root, &["stanza", "--for", "vm1"]);
    assert!(stanza.status.success(), "{stanza:?}");
    let xml = String::from_utf8(stanza.stdout).unwrap();
    assert!(xml.contains("/dev/egm4") && xml.contains("/dev/egm5") && !xml.contains("/dev/egm6"));
    assert!(run(root, &["stanza", "--region", "egm4", "--for", "vm1"]).status.success());
    assert!(run(root, &["stanza", "--region", "egm4", "--force"]).status.success());

    assert!(run(root, &["reserve", "--any", "2", "--for", "vm2"]).status.success());
    assert!(run(root, &["release", "egm4", "--for", "vm1"]).status.success());
    let owner = |index: usize| owners(root)[index].1.clone();
    assert_eq!((owner(0), owner(1)), (None, Some("vm1".into())), "the rest is still reserved");
    let released = run(root, &["release", "--all", "--for", "vm2"]);
    assert_eq!(released.stdout, b"egm6\negm7\n");
    assert!(run(root, &["release", "--all", "--for", "vm2"]).stdout.is_empty());
    assert_eq!(leased(root), ["egm5"]);
    for region in ["/dev/grace-egm/by-node/0", "/dev/egm4", "0009:01:00.0"] {
        assert!(run(root, &["reserve", region, "--for", "vm1"]).status.success());
        let released = run(root, &["release", region, "--for", "vm1"]);
        assert_eq!(released.stdout, b"egm4\n", "{region}: {released:?}");
        assert_eq!(leased(root), ["egm5"], "{region}");
    }
}

/// When each lease ends, by the first of its regions.
fn ends(root: &Path) -> Vec<(String, SystemTime)> {
    let document: Value = serde_json::from_slice(&fs::read(root.join(FILE)).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let end = |lease: &Value| humantime::parse_rfc3339(&text(&lease["expires"])).unwrap();
    let leases = document["leases"].as_array().unwrap().iter();
    leases.map(|lease| (text(&lease["regions"][0]), end(lease))).collect()
}

#[test]
fn a_lease_ends_with_its_time_and_can_be_renewed() {
    let host = extract("gh200-quad");
    let root = host.path();
    // The file has whole seconds.
    let before = SystemTime::now() - Duration::from_secs(1);
    assert!(run(root, &["reserve", "--all", "--for", "vm1", "--ttl", "90s"]).status.success());
    assert!(run(root, &["reserve", "egm4", "--for", "vm1", "--ttl", "1h"]).status.success());
    let after = SystemTime::now() + Duration::from_secs(1);
    let mut ends = ends(root);
    ends.sort();
    let seconds = [("egm4", 3600), ("egm5", 90)];
    for ((region, end), (expected, ttl)) in ends.iter().zip(seconds) {
        let ttl = Duration::from_secs(ttl);
        assert_eq!(region, expected, "{ends:?}");
        assert!(before + ttl <= *end && *end <= after + ttl, "{region}: {end:?}");
    }
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert!(all(&owners(root), "reserved", Some("vm1")), "all of them until then");

    // The shorter one ends a second ago.
    let text = fs::read_to_string(root.join(FILE)).unwrap();
    let short = humantime::format_rfc3339_seconds(ends[1].1).to_string();
    let past = humantime::format_rfc3339_seconds(before).to_string();
    assert!(text.contains(&short), "{text}");
    fs::write(root.join(FILE), text.replace(&short, &past)).unwrap();
    let owners = owners(root);
    assert_eq!(owners[0], ("reserved".into(), Some("vm1".into())));
    assert!(all(&owners[1..], "free", None), "{owners:?}");
    let list = run(root, &["list"]);
    assert!(!stderr(&list).contains("lease"), "leases expire without a word: {list:?}");
    assert_eq!(leased(root), ["egm4", "egm5", "egm6", "egm7"]);
    assert!(run(root, &["reserve", "egm5", "--for", "vm2"]).status.success());
    assert_eq!(leased(root), ["egm4", "egm5"], "expired leases are removed by the next change");
}

#[test]
fn invalid_arguments_and_directories_are_refused() {
    let host = extract("gh200-quad");
    let root = host.path();
    let long = "x".repeat(201);
    for (args, code) in [
        (&["reserve", "egm4"][..], 2),
        (&["reserve", "--for", "vm1"], 2),
        (&["reserve", "egm4", "--for", ""], 2),
        (&["reserve", "egm4", "--for", " "], 2),
        (&["reserve", "egm4", "--for", "a\nb"], 2),
        (&["reserve", "egm4", "--for", &long], 2),
        (&["reserve", "egm4", "--for", "vm1", "--ttl", "0s"], 2),
        (&["reserve", "egm4", "--for", "vm1", "--ttl", "soon"], 2),
        (&["reserve", "egm4", "--for", "vm1", "--ttl", "31days"], 2),
        (&["reserve", "--any", "0", "--for", "vm1"], 2),
        (&["reserve", "egm4", "--for", "vm1", "--size", "64"], 2),
        (&["reserve", "egm4", "--for", "vm1", "--wait", "soon"], 2),
        (&["reserve", "egm4", "--for", "vm1", "--json", "--", "true"], 2),
        (&["reserve", "--any", "1", "--all", "--for", "vm1"], 2),
        (&["reserve", "egm4", "--for", "vm1", "--no-occupancy"], 2),
        (&["release", "--for", "vm1"], 2),
    ] {
        let output = run(root, args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
    let none = extract("no-egm");
    assert_eq!(run(none.path(), &["reserve", "--all", "--for", "vm1"]).status.code(), Some(3));
    assert_eq!(run(none.path(), &["reserve", "--any", "1", "--for", "vm1"]).status.code(), Some(3));
    // A link out of the root, and a file in place of the directory.
    fs::create_dir_all(root.join("run")).unwrap();
    std::os::unix::fs::symlink("/tmp", root.join("run/egm-probe")).unwrap();
    let output = run(root, &["reserve", "egm4", "--for", "vm1"]);
    assert!(!output.status.success() && stderr(&output).contains("which is outside"), "{output:?}");
    fs::remove_file(root.join("run/egm-probe")).unwrap();
    fs::write(root.join("run/egm-probe"), "").unwrap();
    let output = run(root, &["reserve", "egm4", "--for", "vm1"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("not a directory"), "{output:?}");
}

/// A held region is refused, and one with an unknown holder requires --force.
#[test]
fn held_and_unknown_regions_are_refused() {
    let held = extract("claims-vm");
    let output = run(held.path(), &["reserve", "egm4", "--for", "vm2", "--force"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("egm4 is in use by vm1[4242]"), "{output:?}");
    assert!(run(held.path(), &["reserve", "egm4", "--for", "vm1"]).status.success(), "its own");

    let unknown = extract("claims-no-proc");
    fs::remove_dir_all(unknown.path().join("run/libvirt")).unwrap();
    let reserve = ["reserve", "egm5", "--for", "vm2"];
    let output = run(unknown.path(), &reserve);
    assert!(stderr(&output).contains("the holder of egm5 is unknown (use --force"), "{output:?}");
    assert!(run(unknown.path(), &[&reserve[..], &["--force"]].concat()).status.success());
}

/// Regions that are named must meet the requirements as well.
#[test]
fn unsuitable_regions_are_refused_with_the_reason() {
    let host = extract("gh200-quad");
    let root = host.path();
    let path = root.join("sys/devices/virtual/egm/egm4/egm_size");
    fs::write(path, "0x200000000\n").unwrap();
    for (args, reason) in [
        (
            &["egm4", "--size", "8Gi", "--gpus", "2"][..],
            "egm4 has 1 known GPU, but --gpus requires 2",
        ),
        (
            &["egm5", "egm4", "--size", "9GiB"],
            "egm4: size is 8 GiB (8589934592 bytes), but --size requires 9 GiB (9663676416 bytes)",
        ),
        (&["--gpu", "0009:01:00.0", "--size", "9G"], "egm4: size is 8 GiB"),
        (&["--all", "--size", "9G", "--wait", "1h"], "egm4: size is 8 GiB"),
        (&["--any", "4", "--size", "9G", "--wait", "1h"], "egm4: size is 8 GiB"),
        (&["--any", "5", "--wait", "1h"], "requested 5 regions, but 4 of 4 are available"),
    ] {
        let output = run(root, &[&["reserve", "--for", "vm1"], args].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        assert!(stderr(&output).contains(reason), "{args:?}: {output:?}");
        assert!(all(&owners(root), "free", None), "{args:?}");
    }
    let suitable = ["reserve", "--for", "vm1", "egm4", "--size", "8Gi", "--gpus", "1"];
    assert!(run(root, &suitable).status.success());
}

#[test]
fn too_few_regions_are_explained_one_by_one() {
    let host = extract("gh200-quad");
    let root = host.path();
    fs::create_dir_all(root.join("run/libvirt/qemu")).unwrap();
    let status = "<domstatus state='running' pid='1'><domain><name>on</name><devices><memory model='egm'><source><path>/dev/egm6</path>\
         </source><target><size unit='GiB'>1</size></target></memory></devices></domain></domstatus>";
    fs::write(root.join("run/libvirt/qemu/on.xml"), status).unwrap();
    assert!(run(root, &["reserve", "egm4", "--for", "vm1"]).status.success());
    assert!(run(root, &["reserve", "egm5", "--for", "vm2"]).status.success());
    let output = run(root, &["reserve", "--any", "2", "--for", "vm2"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stderr(&output);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    for (line, expected) in lines.iter().zip([
        "requested 2 regions, but 1 of 4 is available",
        "egm4 is reserved for vm1 until 2",
        "egm5 is already in use by or reserved for vm2",
        "egm6 is in use by on",
    ]) {
        assert!(line.starts_with(&format!("egm-probe: {expected}")), "{said}");
    }
}

/// Starts a command, and waits until all regions have this state and owner.
fn start(root: &Path, args: &[&str], state: &str, owner: Option<&str>) -> Child {
    let mut child = command(root, args);
    let child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(root, state, owner);
    child
}

fn wait_for(root: &Path, state: &str, owner: Option<&str>) {
    let started = Instant::now();
    while !all(&owners(root), state, owner) {
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", owners(root));
        thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn waiting_ends_with_the_regions_the_time_or_a_signal() {
    let host = extract("gh200-quad");
    let root = host.path();
    assert!(run(root, &["reserve", "--all", "--for", "vm1"]).status.success());
    for wanted in [&["egm5"][..], &["--any", "2"]] {
        let reserve = [&["reserve", "--for", "vm2"], wanted].concat();
        let started = Instant::now();
        assert_eq!(run(root, &reserve).status.code(), Some(1));
        // Enough to begin to wait, also on a busy machine.
        let begun = Duration::from_millis(200) + 3 * started.elapsed();
        // Without the regions, it waits.
        let started = Instant::now();
        let output = run(root, &[&reserve[..], &["--wait", "1200ms"]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(started.elapsed() >= Duration::from_millis(1200), "{wanted:?}");
        assert!(stderr(&output).contains("egm5 is reserved for vm1 until 2"), "{output:?}");

        for end in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let waiting = [&reserve[..], &["--wait", "1h"]].concat();
            let child = command(root, &waiting).stderr(Stdio::piped()).spawn().unwrap();
            thread::sleep(begun);
            signal(&child, end);
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(128 + end as i32), "{output:?}");
            assert!(all(&owners(root), "reserved", Some("vm1")), "{:?}", owners(root));
        }
        let waiting = [&reserve[..], &["--wait", "1h"]].concat();
        let mut waiting = command(root, &waiting).stdout(Stdio::piped()).spawn().unwrap();
        thread::sleep(begun);
        assert!(waiting.try_wait().unwrap().is_none(), "it does not wait");
        assert!(run(root, &["release", "egm4", "egm5", "--for", "vm1"]).status.success());
        let output = waiting.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("vm2(reserved)"), "{output:?}");
        assert!(run(root, &["release", "--all", "--for", "vm2"]).status.success());
        assert!(run(root, &["reserve", "--all", "--for", "vm1"]).status.success());
    }
}

/// The lease belongs to the process of the command, whatever ends it.
#[test]
fn a_lease_lasts_as_long_as_its_command() {
    if !sees_processes() {
        return;
    }
    let host = extract("gh200-quad");
    let root = host.path();
    let reserve = ["reserve", "--all", "--for", "vm1", "--", "sleep", "100"];
    for end in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGINT, Signal::SIGHUP] {
        let child = start(root, &reserve, "reserved", Some("vm1"));
        let refused = run(root, &["reserve", "egm4", "--for", "vm2"]);
        assert_eq!(refused.status.code(), Some(1));
        let reason = format!("egm4 is reserved for vm1 while process {} runs", child.id());
        assert!(stderr(&refused).contains(&reason), "{refused:?}");
        for regions in ["--all", "egm4"] {
            let refused = run(root, &["release", regions, "--for", "vm1"]);
            let reason = format!("egm4: reserved for vm1 while process {} runs", child.id());
            assert!(stderr(&refused).contains(&reason), "{refused:?}");
            assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
        }
        let list = run(root, &["list", "--json"]);
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        assert_eq!(list["regions"][0]["claims"][0]["pid"], child.id());
        signal(&child, end);
        // Not waited for: a zombie has no lease.
        wait_for(root, "free", None);
        assert!(run(root, &["reserve", "egm4", "--for", "vm2"]).status.success());
        assert_eq!(leased(root), ["egm4"], "void leases are removed by the next change");
        assert!(run(root, &["release", "egm4", "--for", "vm2"]).status.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(end as i32), "{output:?}");
    }
}

#[test]
fn a_command_has_its_own_output_signals_and_exit_status() {
    let host = extract("gh200-quad");
    let root = host.path();
    let with = |command: &[&str]| {
        run(root, &[&["reserve", "--any", "1", "--for", "vm1", "--"], command].concat())
    };
    let output = with(&["sh", "-c", "echo out; exit 7"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"out\n"[..]));
    for (program, code, problem) in [
        ("no-such-program-anywhere", 127, "No such file or directory"),
        ("/etc/passwd", 126, "Permission denied"),
    ] {
        let output = with(&[program, "--for"]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stderr(&output).contains(&format!("{program}: {problem}")), "{output:?}");
        assert!(leased(root).is_empty(), "{program}");
    }
    // Blocked signals would not reach it, and neither would ignored ones.
    let wait = ["reserve", "--all", "--for", "vm1", "--wait", "1h", "--"];
    // Not in a shell, which may unblock them itself.
    let masks = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
    let output = run(root, &[&wait[..], &masks].concat());
    let own = Command::new(masks[0]).args(&masks[1..]).output().unwrap();
    assert_eq!(output.stdout, own.stdout);

    if !sees_processes() {
        return;
    }
    // Its own reservations are independent of it, and commands of each other.
    let nested = format!(
        "{PROGRAM} --sysroot {0} reserve egm4 --for vm1 >&2 && {PROGRAM} --sysroot {0} stanza --for vm1",
        root.display()
    );
    let output = run(root, &["reserve", "egm4", "egm5", "--for", "vm1", "--", "sh", "-c", &nested]);
    let xml = String::from_utf8_lossy(&output.stdout);
    assert!(xml.contains("/dev/egm4") && xml.contains("/dev/egm5"), "{output:?}");
    let owner = |owners: Vec<(String, Option<String>)>, index: usize| owners[index].1.clone();
    assert_eq!(owner(owners(root), 0), Some("vm1".into()));
    assert_eq!(owner(owners(root), 1), None);
    let all = ["reserve", "--all", "--for", "vm1", "--", "sleep", "100"];
    let [mut first, mut second] = [(); 2].map(|()| start(root, &all, "reserved", Some("vm1")));
    // Both are in the file.
    let started = Instant::now();
    let count = || fs::read_to_string(root.join(FILE)).unwrap().matches("\"process\"").count();
    while count() < 2 {
        assert!(started.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(20));
    }
    for child in [&mut second, &mut first] {
        assert!(self::all(&owners(root), "reserved", Some("vm1")));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(owner(owners(root), 3), None);
}

/// In another PID namespace, the process with the same ID is a different one.
#[test]
fn a_process_that_cannot_be_identified_keeps_its_lease() {
    if !sees_processes() {
        return;
    }
    let host = extract("gh200-quad");
    let root = host.path();
    let reserve = ["reserve", "--all", "--for", "vm1", "--", "sleep", "100"];
    let mut child = start(root, &reserve, "reserved", Some("vm1"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(all(&owners(root), "free", None));
    let text = fs::read_to_string(root.join(FILE)).unwrap();
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    assert!(text.contains(own.to_str().unwrap()), "{text}");
    fs::write(root.join(FILE), text.replace(own.to_str().unwrap(), "pid:[1]")).unwrap();
    assert!(all(&owners(root), "reserved", Some("vm1")));
    assert!(run(root, &["release", "--all", "--for", "vm1"]).status.success());
    assert!(all(&owners(root), "free", None));

    if !can("a PID namespace", &["unshare", "-pf", "--mount-proc", "true"]) {
        return;
    }
    let mut inside = Command::new("unshare");
    inside.args(["-pf", "--kill-child", "--mount-proc", PROGRAM, "--sysroot"]).arg(root);
    let mut inside = inside.args(reserve).spawn().unwrap();
    wait_for(root, "reserved", Some("vm1"));
    assert_eq!(run(root, &["reserve", "egm4", "--for", "vm2"]).status.code(), Some(1));
    inside.kill().unwrap();
    inside.wait().unwrap();
    assert!(all(&owners(root), "reserved", Some("vm1")), "it cannot be known that it exited");

    // With the /proc of another namespace, the process would be recorded as a different one.
    let mut inside = Command::new("unshare");
    let output = inside.args(["-pf", PROGRAM, "--sysroot"]).arg(root).args(reserve);
    let output = output.output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("/proc does not show this process"), "{output:?}");
}

/// None of them is opened: a FIFO would block, and a device may have side effects.
#[test]
fn only_regular_files_are_locked_and_read() {
    let host = extract("gh200-quad");
    let root = host.path();
    let directory = root.join("run/egm-probe");
    fs::create_dir_all(&directory).unwrap();
    for name in ["lock", "leases.json"] {
        let path = directory.join(name);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        for args in [
            &["reserve", "egm4"][..],
            &["reserve", "--any", "1", "--wait", "1h"],
            &["release", "--all"],
        ] {
            let mut limited = Command::new("timeout");
            limited.args(["20", PROGRAM, "--sysroot"]).arg(root).args(args).args(["--for", "vm1"]);
            let output = limited.output().unwrap();
            assert_eq!(output.status.code(), Some(4), "{name}: {args:?}: {output:?}");
            let problem = format!("{name}: not a regular file");
            assert!(stderr(&output).contains(&problem), "{args:?}: {output:?}");
        }
        fs::remove_file(&path).unwrap();
    }
    // Another process holds the lock.
    fs::write(directory.join("lock"), "").unwrap();
    let lock = fs::File::open(directory.join("lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let output = run(root, &["reserve", "egm4", "--for", "vm1", "--wait", "1s"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("lock: locked by another process"), "{output:?}");
    drop(lock);
    assert!(run(root, &["reserve", "egm4", "--for", "vm1"]).status.success());
}

/// Concurrent processes reserve all regions, and many of them are killed: there are never two
/// owners, never a partial reservation, and a successful process is always an owner.
/// `EGM_PROBE_RACE_ROUNDS` sets the number of rounds.
#[test]
fn concurrent_and_killed_processes_reserve_all_or_none() {
    let host = extract("gh200-quad");
    let root = host.path();
    let rounds =
        std::env::var("EGM_PROBE_RACE_ROUNDS").ok().and_then(|it| it.parse().ok()).unwrap_or(4);
    let started = Instant::now();
    let (mut won, mut killed, mut owned_by_killed) = (0, 0, 0);
    // Pseudo-random, so that runs are reproducible.
    let mut seed: u64 = 1;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 33
    };
    for round in 0..rounds {
        let spawn = |number: usize| -> Child {
            command(root, &["reserve", "--all", "--for", &format!("vm{number}"), "--ttl", "1h"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let is_over = AtomicBool::new(false);
        let succeeded = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let owners = owners(root);
                    let names: BTreeSet<_> = owners.iter().filter_map(|it| it.1.clone()).collect();
                    assert!(names.len() <= 1, "round {round}: {owners:?}");
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let mut children: Vec<_> = (0..50).map(|number| (number, spawn(number))).collect();
            for (_, child) in children.iter_mut().filter(|(number, _)| number % 3 == 0) {
                thread::sleep(Duration::from_micros(random() % 3000));
                child.kill().unwrap();
                killed += 1;
            }
            let ended =
                children.into_iter().map(|(number, mut child)| (number, child.wait().unwrap()));
            let succeeded: Vec<_> =
                ended.filter(|(_, status)| status.success()).map(|(number, _)| number).collect();
            is_over.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            succeeded
        });
        let owners = owners(root);
        let owner = owners[0].1.clone();
        match succeeded.as_slice() {
            [] => {
                // The owner was killed before it could report success.
                assert!(owner.is_some(), "round {round}: no owner although the regions were free");
                owned_by_killed += 1;
            }
            [one] => {
                assert_eq!(owner, Some(format!("vm{one}")), "round {round}");
                won += 1;
            }
            several => panic!("round {round}: {several:?} all succeeded"),
        }
        assert!(all(&owners, "reserved", owner.as_deref()), "round {round}: {owners:?}");
        let output = run(root, &["release", "--all", "--for", &owner.unwrap()]);
        assert!(output.status.success(), "{output:?}");
        assert!(leased(root).is_empty(), "round {round}: a lease is left over");
    }
    println!(
        "{rounds} rounds of 50 processes in {:.1} s: {won} won, {owned_by_killed} by one that was killed, {killed} killed",
        started.elapsed().as_secs_f64()
    );
}

/// Runs the program under strace, which writes its log to a file.
fn traced(root: &Path, log: &Path, options: &[&str], args: &[&str]) -> Output {
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o"]).arg(log).args(options);
    strace.arg(PROGRAM).arg("--sysroot").arg(root).args(args).output().unwrap()
}

/// A reservation that is killed at any of the calls that write it exists completely or not at all,
/// and can be made again.
#[test]
fn killed_at_any_point_a_reservation_is_whole_or_none() {
    if !can_strace() {
        return;
    }
    let host = extract("gh200-quad");
    let root = host.path();
    let log = root.join("strace.log");
    let reserve = ["reserve", "--all", "--for", "vm1"];
    let output = traced(root, &log, &[], &reserve);
    assert!(output.status.success(), "{output:?}");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut points = Vec::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        let Some((name, rest)) = line.split_once('(') else { continue };
        let nth = counts.entry(name.to_owned()).or_default();
        *nth += 1;
        let is_by_descriptor = ["write", "fsync", "fchmod", "flock"].contains(&name);
        if rest.contains("/run/egm-probe") || is_by_descriptor {
            points.push((name.to_owned(), *nth));
        }
    }
    for name in ["openat", "write", "fsync", "rename", "flock", "mkdir"] {
        assert!(points.iter().any(|(it, _)| it.starts_with(name)), "no {name} in {points:?}");
    }
    let mut seen = (0, 0);
    for (call, nth) in points {
        // Missing if the last run was killed before it made the directory.
        let _ = fs::remove_dir_all(root.join("run"));
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        let output = traced(root, &log, &["-e", &inject], &reserve);
        assert!(!output.status.success(), "{call} {nth}: {output:?}");
        let owners = owners(root);
        let (whole, none) = (all(&owners, "reserved", Some("vm1")), all(&owners, "free", None));
        assert!(whole || none, "{call} {nth}: {owners:?}");
        if whole {
            seen.1 += 1;
        } else {
            seen.0 += 1;
        }
        let other = run(root, &["reserve", "--all", "--for", "vm2"]);
        assert_eq!(other.status.success(), none, "{call} {nth}: {other:?}");
    }
    assert!(seen.0 > 3 && seen.1 > 3, "killed before and after: {seen:?}");
}

/// A damaged file makes every reservation unknown. Only `--force` replaces it, and it is saved.
#[test]
fn a_broken_file_frees_nothing_and_is_not_lost() {
    let host = extract("leases-broken");
    let root = host.path();
    let broken = fs::read(root.join(FILE)).unwrap();
    for (args, code, remedy) in [
        (&["reserve", "egm5", "--for", "vm2"][..], 4, "use --force"),
        (&["reserve", "--any", "1", "--for", "vm2"], 4, "use --force"),
        (&["release", "egm5", "--for", "vm2"], 4, "repair or remove"),
        (&["release", "--all", "--for", "vm2"], 4, "repair or remove"),
    ] {
        let output = run(root, args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        let said = stderr(&output);
        for word in ["leases.json: missing field `leases`", remedy] {
            assert!(said.contains(word), "{args:?}: {said}");
        }
        assert_eq!(fs::read(root.join(FILE)).unwrap(), broken, "{args:?}");
    }
    assert!(owners(root).iter().all(|(state, _)| state == "unknown"));

    for args in [&["reserve", "egm5"][..], &["reserve", "--any", "1"]] {
        fs::write(root.join(FILE), &broken).unwrap();
        let output = run(root, &[args, &["--for", "vm2", "--force"]].concat());
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(stderr(&output).contains("was saved as /run/egm-probe/leases.json.broken"));
        let saved = root.join("run/egm-probe/leases.json.broken");
        assert_eq!(fs::read(&saved).unwrap(), broken, "{args:?}");
        assert_eq!(owners(root).iter().filter(|(state, _)| state == "reserved").count(), 1);
    }

    fs::remove_dir_all(root.join("run/egm-probe")).unwrap();
    fs::write(root.join("run/egm-probe"), "").unwrap();
    assert!(owners(root).iter().all(|(state, _)| state == "unknown"), "no directory");
    let metrics = run(root, &["metrics"]);
    let text = String::from_utf8_lossy(&metrics.stdout).into_owned();
    assert!(
        text.contains("egm_scan_complete 0") && !text.contains("egm_region_free_bytes{"),
        "{text}"
    );
}

/// A process that is killed while it reserves more regions keeps its previous ones.
#[test]
fn a_killed_reservation_keeps_previous_leases() {
    if !can_strace() {
        return;
    }
    let host = extract("gh200-quad");
    let root = host.path();
    assert!(run(root, &["reserve", "egm4", "egm5", "--for", "vm1"]).status.success());
    let inject = ["-e", "inject=rename,renameat,renameat2:signal=KILL:when=1"];
    let output =
        traced(root, Path::new("/dev/null"), &inject, &["reserve", "--all", "--for", "vm1"]);
    assert!(!output.status.success(), "{output:?}");
    let owners = owners(root);
    assert!(all(&owners[..2], "reserved", Some("vm1")), "{owners:?}");
    let (rest, vm1) = (&owners[2..], Some("vm1"));
    assert!(all(rest, "free", None) || all(rest, "reserved", vm1), "{owners:?}");
    // An unfinished file is removed by the next change.
    assert!(run(root, &["release", "--all", "--for", "vm1"]).status.success());
    assert!(run(root, &["reserve", "egm7", "--for", "vm1"]).status.success());
    assert_eq!(leased(root), ["egm7"]);
}

/// If the lock is replaced while a process waits for it, two processes could each have one.
#[test]
fn a_lock_that_was_replaced_is_not_taken() {
    if !sees_processes() {
        return;
    }
    let host = extract("gh200-quad");
    let root = host.path();
    assert!(run(root, &["reserve", "egm4", "--for", "vm1"]).status.success());
    let path = root.join("run/egm-probe/lock").canonicalize().unwrap();
    let lock = fs::File::open(&path).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let mut waiting = command(root, &["reserve", "egm5", "--for", "vm1"]);
    let waiting = waiting.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let fds = format!("/proc/{}/fd", waiting.id());
    let is_open = || {
        let mut links =
            fs::read_dir(&fds).unwrap().map(|entry| fs::read_link(entry.unwrap().path()));
        links.any(|link| link.is_ok_and(|link| link == path))
    };
    while !is_open() {
        thread::sleep(Duration::from_millis(2));
    }
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    drop(lock);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("locked by another process"), "{output:?}");
    assert_eq!(leased(root), ["egm4"]);
}

/// Below another root, a link may lead readers and the writer to different places.
#[test]
fn a_reservation_that_readers_do_not_find_fails() {
    let host = extract("gh200-quad");
    let root = host.path().canonicalize().unwrap();
    fs::create_dir(root.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(root.join("elsewhere"), root.join("run")).unwrap();
    let output = run(&root, &["reserve", "--all", "--for", "vm1"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("readers do not find it"), "{output:?}");
}

/// The smallest suitable regions, with undefined ones first.
#[test]
fn any_prefers_small_and_undefined_regions() {
    let host = extract("gh200-quad");
    let root = host.path();
    for (region, gib) in [("egm4", 8_u64), ("egm5", 4), ("egm6", 2), ("egm7", 1)] {
        let path = root.join(format!("sys/devices/virtual/egm/{region}/egm_size"));
        fs::write(path, format!("{:#x}\n", gib << 30)).unwrap();
    }
    let domain = "<domain><name>off</name><devices><memory model='egm'><source><path>/dev/egm7</path></source>\
         <target><size unit='GiB'>1</size></target></memory></devices></domain>";
    fs::create_dir_all(root.join("etc/libvirt/qemu")).unwrap();
    fs::write(root.join("etc/libvirt/qemu/off.xml"), domain).unwrap();
    let any = |more: &[&str]| {
        let output = run(root, &[&["reserve", "--any", "1", "--for", "vm1"], more].concat());
        assert!(output.status.success(), "{output:?}");
        let taken = leased(root);
        assert!(run(root, &["release", "--all", "--for", "vm1"]).status.success());
        taken
    };
    assert_eq!(any(&[]), ["egm6"]);
    assert_eq!(any(&["--size", "4GiB"]), ["egm5"]);
    assert_eq!(any(&["--size", "5GiB"]), ["egm4"]);
    let output = run(root, &["reserve", "--any", "4", "--for", "vm1"]);
    assert!(output.status.success(), "{output:?}");
    // Nothing is created if there is nothing to release or no region.
    let none = extract("no-egm");
    run(none.path(), &["reserve", "--all", "--for", "vm1"]);
    run(none.path(), &["release", "--all", "--for", "vm1"]);
    assert!(!none.path().join("run").exists());
}
