//! Files that no kernel has: endless and growing files, pipes, loops, a million names. The program
//! handles each of them with limited memory and CPU time, and opens only regular files.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::live::{can, extract};
use crate::support;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

/// Maximum memory of a run in KiB, and maximum CPU time in seconds. An archive may contain a
/// quarter of a GiB; these runs need less than half of that.
const MEMORY: u32 = 512 << 10;
const SECONDS: u32 = 120;

/// Some files of each kind that is read, by their paths below the root.
const FILES: [&str; 12] = [
    "sys/devices/virtual/egm/egm5/egm_size",
    "sys/devices/virtual/egm/egm5/gpu_devices",
    "sys/devices/virtual/egm/egm5/uevent",
    "sys/devices/pci0018:00/0018:00:00.0/0018:01:00.0/numa_node",
    "sys/devices/system/node/node0/distance",
    "sys/devices/system/node/online",
    "proc/1/maps",
    "proc/1/stat",
    "etc/passwd",
    "usr/share/misc/pci.ids",
    "run/egm-probe/leases.json",
    "etc/libvirt/qemu/vm.xml",
];

fn bounded(root: &Path, args: &[&str]) -> Output {
    let script = format!("ulimit -v {MEMORY}; ulimit -t {SECONDS}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, PROGRAM, "--sysroot"]).arg(root).args(args).output().unwrap()
}

/// The answer, which must be one: egm4 is there, and it is not free. Also runs one of
/// the other commands that read a host, in rotation.
fn answered(root: &Path, what: &str, turn: usize) -> Value {
    let output = bounded(root, &["list", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{what}: {output:?}");
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let egm4 = &list["regions"][0];
    assert_eq!((&egm4["name"], &egm4["state"]), (&"egm4".into(), &"in-use".into()), "{what}");
    let others = [&["doctor"][..], &["show"], &["capture", "--with-claims", "/dev/stdout"]];
    let args = others[turn % others.len()];
    let output = bounded(root, args);
    assert!(matches!(output.status.code(), Some(0..=4)), "{what}: {args:?}: {output:?}");
    list
}

/// A host whose egm4 is held, with one file replaced.
fn with(file: &str, make: impl Fn(&Path)) -> TempDir {
    let folder = extract("claims-vm");
    let path = folder.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&path);
    make(&path);
    folder
}

fn warnings_of(list: &Value) -> String {
    let regions = list["regions"].as_array().unwrap().iter();
    let of_regions: String = regions.map(|region| region["warnings"].to_string()).collect();
    format!("{}{of_regions}", list["warnings"])
}

#[test]
fn an_endless_file_is_read_up_to_the_limit() {
    for (turn, file) in FILES.into_iter().enumerate() {
        // Ten gigabytes of zeros that take no room.
        let folder = with(file, |path| File::create(path).unwrap().set_len(10 << 30).unwrap());
        let list = answered(folder.path(), file, turn);
        // Nothing is said of lists of names, nor of what is not needed here.
        let is_told = ["sys/devices/virtual", "sys/devices/pci", "run/", "etc/libvirt"];
        let is_told = is_told.iter().any(|start| file.starts_with(start));
        assert!(!is_told || warnings_of(&list).contains("larger than"), "{file}: {list}");
        // Process 1 may hold what it maps, and nobody knows what is leased.
        let is_unknown = ["proc/1/maps", "run/egm-probe/leases.json", "etc/libvirt/qemu/vm.xml"];
        let state = if is_unknown.contains(&file) { "unknown" } else { "free" };
        assert_eq!(list["regions"][1]["state"], state, "{file}");
    }
}

/// Creates a replacement for a file.
type Make<'a> = &'a dyn Fn(&Path);

#[test]
fn only_regular_files_are_opened() {
    let strace = ["strace", "--seccomp-bpf", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o"];
    if !can("strace", &[&strace[..], &["/dev/null", "true"]].concat()) {
        return;
    }
    let pipe = |path: &Path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    };
    let zeros = |path: &Path| {
        let made = Command::new("mknod").arg(path).args(["c", "1", "5"]).status().unwrap();
        assert!(made.success());
    };
    let link = |path: &Path| {
        let root = path.ancestors().find(|it| it.join("sys/class/egm").exists()).unwrap();
        fs::create_dir_all(root.join("dev")).unwrap();
        zeros(&root.join("dev/zero"));
        symlink("/dev/zero", path).unwrap();
    };
    let makers: [(&str, Make<'_>); 3] = [("pipe", &pipe), ("device", &zeros), ("link", &link)];
    for (kind, (what, make)) in makers.into_iter().enumerate() {
        if what != "pipe" && !nix::unistd::geteuid().is_root() {
            support::skip("making device nodes needs root");
            continue;
        }
        for (number, file) in FILES.into_iter().enumerate() {
            // Those of processes can be nothing but files, and are not asked for it; the pipe and
            // the device below another root are.
            let folder = with(file, make);
            answered(folder.path(), &format!("{what} for {file}"), number + kind);
            let log = folder.path().join("log");
            let mut command = Command::new(strace[0]);
            command.args(&strace[1..]).arg(&log).args([PROGRAM, "--sysroot"]).arg(folder.path());
            assert!(command.args(["list"]).output().unwrap().status.success());
            let log = fs::read_to_string(log).unwrap();
            let path = folder.path().join(file);
            for opened in [path.to_str().unwrap(), "dev/zero"] {
                assert!(!log.contains(opened), "{what} for {file}: {opened} is opened");
            }
        }
    }
}

#[test]
fn links_to_themselves_are_rejected() {
    let own: fn(&Path) = |path| symlink(path.file_name().unwrap(), path).unwrap();
    let pair: fn(&Path) = |path| {
        let other = path.with_extension("other");
        symlink(other.file_name().unwrap(), path).unwrap();
        symlink(path.file_name().unwrap(), other).unwrap();
    };
    for (number, file) in FILES.into_iter().enumerate() {
        for (kind, (what, make)) in
            [("a link to itself", own), ("two links", pair)].into_iter().enumerate()
        {
            let what = format!("{what} for {file}");
            let list = answered(with(file, make).path(), &what, number + kind);
            let is_lease = file.starts_with("run/");
            assert!(!is_lease || list["regions"][1]["state"] == "unknown", "{what}: {list}");
        }
    }
    // Directories that are read.
    let directories = ["sys/bus/pci/devices", "run/egm-probe", "etc/libvirt/qemu", "proc/1/fd"];
    for (turn, directory) in directories.into_iter().enumerate() {
        let folder = extract("claims-vm");
        let path = folder.path().join(directory);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_dir_all(&path);
        own(&path);
        let list = answered(folder.path(), directory, turn);
        let is_known = directory == "sys/bus/pci/devices";
        assert!(is_known || list["regions"][1]["state"] == "unknown", "{directory}: {list}");
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_limited() {
    for file in ["sys/devices/virtual/egm/egm5/gpu_devices", "run/egm-probe/leases.json"] {
        let folder = with(file, |path| fs::write(path, "0018:01:00.0\n").unwrap());
        let path = folder.path().join(file);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut file = File::options().append(true).open(&path).unwrap();
                let lines = "0019:01:00.0\n".repeat(300);
                // A gigabyte is more than can be written in the meantime.
                for _ in 0..250_000 {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    file.write_all(lines.as_bytes()).unwrap();
                    // Truncated repeatedly, so that it can grow again.
                    if file.metadata().unwrap().len() > 1 << 20 {
                        file.set_len(0).unwrap();
                    }
                }
            });
            for turn in 0..3 {
                answered(folder.path(), file, turn);
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }
}

/// Number of names: creating a million takes minutes on a disk, and is done only with
/// `EGM_PROBE_HOSTILE=all`.
fn count() -> u32 {
    if std::env::var_os("EGM_PROBE_HOSTILE").is_some_and(|it| it == "all") {
        1_000_000
    } else {
        20_000
    }
}

/// A directory with very many names, a third for each kind that is searched for.
fn many() -> TempDir {
    // On the same file system as the hosts, so that it can be renamed into them.
    let folder = tempfile::tempdir().unwrap();
    let make = |thread: u32| {
        for number in (thread..count() / 3).step_by(4) {
            let address = format!("{number:04x}:01:00.0");
            let names = [format!("egm{number}"), address, (number + 2).to_string()];
            for name in names {
                // On most file systems, a link takes no inode of its own.
                symlink("nowhere", folder.path().join(name)).unwrap();
            }
        }
    };
    thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || make(thread)))));
    folder
}

#[test]
fn very_many_names_are_handled() {
    let many = many();
    let names: PathBuf = many.path().to_owned();
    for directory in ["sys/class/egm", "sys/bus/pci/devices", "proc"] {
        let folder = extract("claims-vm");
        let path = folder.path().join(directory);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_dir_all(&path);
        // Replace the directory itself: links cannot lead out of the root.
        fs::rename(&names, &path).unwrap();
        for args in [&["list"][..], &["doctor"], &["list", "--json"]] {
            let output = bounded(folder.path(), args);
            let end = String::from_utf8_lossy(&output.stderr).lines().count();
            assert!(
                matches!(output.status.code(), Some(0..=4)),
                "{directory}: {args:?} {output:?}"
            );
            assert!(
                output.stdout.len() + output.stderr.len() < 1 << 20,
                "{directory}: {end} lines"
            );
            let text = String::from_utf8_lossy(&output.stdout);
            if args[0] == "list" && directory != "sys/class/egm" {
                assert!(text.contains("egm4"), "{directory}: {text}");
            }
        }
        fs::rename(&path, &names).unwrap();
    }
}
