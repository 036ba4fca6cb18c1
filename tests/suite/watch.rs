//! The output of `watch` while a host changes: on mocked devices with events like udev's, and on a
//! tree of files without events.

use crate::live::{can, extract, has_udev};
use crate::support;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

/// Changes a mocked host, and measures when the program reports it. Prints a line for each step:
/// its name, the milliseconds until all expected events were reported, and these events.
const SCRIPT: &str = r"
import gi, json, os, queue, subprocess, sys, threading, time
gi.require_version('UMockdev', '1.0')
from gi.repository import UMockdev
program, devices, *more = sys.argv[1:]
text = open(devices).read()
testbed = UMockdev.Testbed.new()
testbed.add_from_string(text)
child = subprocess.Popen([program, 'watch', '--json', '--interval', '1h'] + more, stdout=subprocess.PIPE, text=True)
lines = queue.Queue()
def read():
    for line in child.stdout:
        lines.put((time.monotonic(), json.loads(line)))
    lines.put((time.monotonic(), None))
threading.Thread(target=read, daemon=True).start()
time.sleep(1)
region, gpu = '/sys/devices/virtual/egm/egm4', '/sys/devices/pci0009:00/0009:00:00.0/0009:01:00.0'
def step(name, do, expected):
    start = time.monotonic()
    do()
    said = []
    while expected not in [event['event'] for event in said]:
        when, event = lines.get(timeout=10)
        said.append(event)
    print(name, round((when - start) * 1000), json.dumps(said), flush=True)
def uevent(path, action):
    testbed.uevent(path, action)
def change():
    testbed.set_attribute(region, 'gpu_devices', '0008:01:00.0\n')
    uevent(region, 'change')
def unbind():
    os.unlink(testbed.get_sys_dir() + gpu[4:] + '/driver')
    uevent(gpu, 'unbind')
def bind():
    testbed.set_attribute_link(gpu, 'driver', '../../../../bus/pci/drivers/vfio-pci')
    uevent(gpu, 'bind')
# The class's link is what makes a region: umockdev cannot make the same device twice.
link = testbed.get_sys_dir() + '/class/egm/egm4'
target = os.readlink(link)
def remove():
    os.unlink(link)
    uevent(region, 'remove')
def add():
    os.symlink(target, link)
    uevent(region, 'add')
step('change', change, 'region-changed')
step('unbind', unbind, 'gpu-unbound')
step('bind', bind, 'gpu-bound')
step('remove', remove, 'region-removed')
step('add', add, 'region-added')
bus = testbed.get_sys_dir() + '/bus/pci/devices/0009:01:00.0'
place = os.readlink(bus)
whole = testbed.get_sys_dir() + gpu[4:]
# umockdev sends no event for a device that is gone, so another device wakes the program.
def take_out():
    os.unlink(bus)
    os.rename(whole, whole + '.out')
    uevent(region, 'change')
def put_back():
    os.rename(whole + '.out', whole)
    os.symlink(place, bus)
    uevent(region, 'change')
step('out', take_out, 'gpu-removed')
step('back', put_back, 'gpu-added')
def burst():
    for number in range(1000):
        size = hex((number + 1) << 30)
        testbed.set_attribute(region, 'egm_size', size + '\n')
        uevent(region, 'change')
start = time.monotonic()
burst()
last = None
while last is None or last['size'] != 1000 << 30:
    when, event = lines.get(timeout=20)
    last = event
print('burst', round((when - start) * 1000), json.dumps([last]), flush=True)
child.terminate()
print('end', child.wait(timeout=10), '[]')
";

#[test]
fn udev_events_are_reported_at_once() {
    let probe =
        "import gi; gi.require_version('UMockdev', '1.0'); from gi.repository import UMockdev";
    if !has_udev()
        || !can("umockdev for Python", &["/usr/bin/python3", "-c", probe])
        || !can("umockdev", &["umockdev-wrapper", "true"])
    {
        return;
    }
    // umockdev aborts if its socket is full, which by default holds ten events: on a busy machine
    // they are not read as fast as they are sent.
    let room = "echo 2000 >/proc/sys/net/unix/max_dgram_qlen";
    let with_room =
        |then: &str| ["-n", "sh", "-c", &format!("{room} && {then}")].map(str::to_owned);
    if !can("room for events in a network namespace", &["unshare", "-n", "sh", "-c", room]) {
        return;
    }
    let output = Command::new("unshare")
        .args(with_room("exec umockdev-wrapper \"$@\""))
        .arg("sh")
        .args(["/usr/bin/python3", "-c", SCRIPT, PROGRAM])
        .arg(support::fixtures().join("gb200.umockdev"))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let steps: Vec<(&str, u64, Value)> = printed
        .lines()
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            let mut part = || parts.next().unwrap();
            (part(), part().parse().unwrap(), serde_json::from_str(part()).unwrap())
        })
        .collect();
    let names: Vec<_> = steps.iter().map(|(name, ..)| *name).collect();
    assert_eq!(
        names,
        ["change", "unbind", "bind", "remove", "add", "out", "back", "burst", "end"],
        "{printed}"
    );
    println!("{printed}");
    assert_eq!(steps[0].2[0]["gpus"], serde_json::json!(["0008:01:00.0"]), "{printed}");
    assert_eq!(steps[1].2[0]["driver"], "nvgrace_gpu_vfio_pci", "{printed}");
    assert_eq!(steps[2].2[0]["driver"], "vfio-pci", "{printed}");
    assert_eq!(steps[5].2[0]["gpu"], "0009:01:00.0", "{printed}");
    assert_eq!(steps[6].2[0]["driver"], "vfio-pci", "{printed}");
    assert_eq!(steps[8].1, 0, "it ends quietly: {printed}");
}

/// Starts the program on a tree of files.
fn watch(root: &Path, args: &[&str]) -> Child {
    Command::new(PROGRAM)
        .arg("--sysroot")
        .arg(root)
        .arg("watch")
        .args(args)
        .args(if args.contains(&"--interval") { &[][..] } else { &["--interval", "50ms"] })
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for its end, and returns its output.
fn ended(mut child: Child) -> (ExitStatus, Vec<Value>) {
    let status = child.wait().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    (status, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn changes_without_an_event_are_found_by_polling() {
    let host = extract("gh200-quad");
    let root = host.path();
    let child = watch(root, &["--json", "--until", "gone", "egm7", "--timeout", "20s"]);
    thread::sleep(Duration::from_millis(400));
    let reserve = ["reserve", "egm4", "--for", "vm1"];
    let output = Command::new(PROGRAM).arg("--sysroot").arg(root).args(reserve).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    thread::sleep(Duration::from_millis(400));
    fs::remove_file(root.join("sys/class/egm/egm7")).unwrap();
    let (status, lines) = ended(child);
    assert!(status.success());
    let said: Vec<_> = lines
        .iter()
        .map(|line| {
            format!(
                "{} {}",
                line["event"].as_str().unwrap(),
                line["region"].as_str().unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(
        said,
        ["holder-came egm4", "state-changed egm4", "region-removed egm7"],
        "{lines:?}"
    );
    assert_eq!((&lines[1]["before"], &lines[1]["now"]), (&"free".into(), &"reserved".into()));
    assert!(
        lines.iter().all(|line| line["time"].is_string() && line["schema"] == "egm-probe.watch/1")
    );
}

#[test]
fn watch_exits_as_requested() {
    let host = extract("gh200-quad");
    let root = host.path();
    for (args, code) in [
        (&["--until", "free", "egm4"][..], 0),
        (&["--until", "gone", "egm9"], 0),
        (&["--until", "in-use", "egm4", "--timeout", "200ms"], 1),
        (&["--timeout", "200ms"], 1),
        (&["--until", "maybe", "egm4"], 2),
        (&["--until", "free", "egm4", "--no-occupancy"], 2),
        (&["--until", "gone", "egm9", "--no-occupancy"], 0),
        (&["--until", "free", "x"], 2),
        (&["--interval", "1ms"], 2),
        (&["--timeout", "never"], 2),
    ] {
        let started = Instant::now();
        let (status, _) = ended(watch(root, args));
        assert_eq!(status.code(), Some(code), "{args:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "{args:?}");
    }
    // A recorded host never changes.
    let archive = support::machine("gh200-quad");
    let recorded = Command::new(PROGRAM).arg("--from").arg(archive).arg("watch").output().unwrap();
    assert!(recorded.status.success() && recorded.stdout.is_empty(), "{recorded:?}");
}

#[test]
fn the_drivers_count_decides_when_holders_are_searched() {
    let host = extract("claims-vm");
    let root = host.path();
    let module = root.join("sys/module/nvgrace_egm");
    fs::create_dir_all(&module).unwrap();
    fs::write(module.join("refcnt"), "0\n").unwrap();
    // In place and in one step, as in sysfs.
    let count = |files: u32| {
        let file = fs::OpenOptions::new().write(true).open(module.join("refcnt")).unwrap();
        file.write_all_at(format!("{}\n", 2 * files).as_bytes(), 0).unwrap();
    };
    let mut child = watch(root, &["--json", "--interval", "1h"]);
    let (send, lines) = channel();
    let stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let _ = send.send(format!("{} {}", event["event"], event["holder"]).replace('"', ""));
        }
    });
    // No search: nothing is open, so the process does not matter.
    assert!(lines.recv_timeout(Duration::from_secs(1)).is_err());
    let expect = |files, expected: &[&str]| {
        let started = Instant::now();
        count(files);
        for event in expected {
            assert_eq!(lines.recv_timeout(Duration::from_secs(10)).as_deref(), Ok(*event));
        }
        println!("{files} open files: reported after {} ms", started.elapsed().as_millis());
    };
    expect(1, &["holder-came vm1[4242]", "state-changed null"]);
    // The count does not change if a holder passes its file on and exits.
    fs::rename(root.join("proc/4242"), root.join("proc/4243")).unwrap();
    expect(1, &["holder-went vm1[4242]", "holder-came vm1[4243]"]);
    expect(0, &["holder-went vm1[4243]", "state-changed null"]);
    end(&child, "TERM");
    assert!(child.wait().unwrap().success());
    reader.join().unwrap();
}

#[test]
fn a_holder_outlives_its_region() {
    let host = extract("claims-vm");
    let root = host.path();
    let module = root.join("sys/module/nvgrace_egm");
    fs::create_dir_all(&module).unwrap();
    fs::write(module.join("refcnt"), "2\n").unwrap();
    let child = watch(root, &["--json", "--until", "gone", "egm4", "--timeout", "20s"]);
    thread::sleep(Duration::from_millis(400));
    fs::remove_file(root.join("sys/class/egm/egm4")).unwrap();
    let (status, lines) = ended(child);
    assert!(status.success());
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["region-removed"], "vm1 still holds it: {lines:?}");
    let child = watch(root, &["--json", "--timeout", "2s"]);
    thread::sleep(Duration::from_millis(400));
    fs::remove_dir_all(root.join("proc/4242")).unwrap();
    fs::write(module.join("refcnt"), "0\n").unwrap();
    let (_, lines) = ended(child);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["holder-went"], "{lines:?}");
}

#[test]
fn a_wait_that_ends_early_is_no_success() {
    let host = extract("gh200-quad");
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut child = watch(host.path(), &["--until", "in-use", "egm4"]);
        thread::sleep(Duration::from_millis(300));
        end(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
    }
    let mut child = watch(host.path(), &["--initial", "--until", "in-use", "egm4"]);
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141), "its output was closed");
}

#[test]
fn waiting_for_a_missing_region_is_said_at_once() {
    let host = extract("gh200-quad");
    for (state, code, end) in [("free", 1, "; waiting for it\n"), ("gone", 0, "\n")] {
        let output = Command::new(PROGRAM)
            .arg("--sysroot")
            .arg(host.path())
            .args(["watch", "--until", state, "egm9", "--timeout", "300ms"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code));
        let said = String::from_utf8_lossy(&output.stderr);
        let missing = "egm-probe: note: egm9 does not exist (regions: egm4, egm5, egm6, egm7)";
        assert_eq!(said, format!("{missing}{end}"));
    }
}

/// Sends a signal.
fn end(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
}

#[test]
fn watch_exits_silently_on_a_signal_or_a_closed_pipe() {
    let host = extract("gh200-quad");
    for signal in ["INT", "TERM", "HUP"] {
        let child = watch(host.path(), &["--initial"]);
        thread::sleep(Duration::from_millis(300));
        end(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{signal}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 8, "{signal}");
    }
    let mut child = watch(host.path(), &["--initial", "--interval", "1h"]);
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("egm4  added: 55.6 GiB"), "{line}");
    drop(reader);
    let started = Instant::now();
    assert!(child.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(5), "it does not wait for the next poll");
}
