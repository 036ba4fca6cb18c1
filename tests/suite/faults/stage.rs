//! A separate running host for each worker: a mount namespace with a recorded machine in place of
//! `/sys`, `/etc` and `/run`, and with few processes, one of which holds a region.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::live::extract;
use crate::support;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

/// The definitions, leases and user's files before each run.
pub(super) type Files = &'static [(&'static str, &'static str)];

/// The timeout of a run, ten times as long as any takes with strace.
const MOST_SECONDS: &str = "30";

pub(super) struct Stage {
    /// Keeps the namespace alive.
    keeper: Child,
    tree: TempDir,
    /// The user's files.
    work: TempDir,
    log: PathBuf,
    /// With a stand-in for QEMU first: what is installed here makes no difference.
    path: String,
}

/// The result of a run.
pub(super) struct Run {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Stage {
    /// `None` if it is not possible here.
    pub(super) fn new(holder: u32) -> Option<Self> {
        let tree = extract("gb200-full-gpu-list");
        let path = tree.path();
        // The holder has /dev/zero, which any user can map; the other device has no holder.
        fs::write(path.join("sys/devices/virtual/egm/egm4/dev"), "1:5\n").unwrap();
        fs::write(path.join("sys/devices/virtual/egm/egm5/dev"), "1:7\n").unwrap();
        // The memory nodes of its GPUs would only add many similar calls.
        let nodes = path.join("sys/devices/system/node");
        for node in 2..36 {
            fs::remove_dir_all(nodes.join(format!("node{node}"))).unwrap();
        }
        for (file, text) in
            [("online", "0-1\n"), ("node0/distance", "10 40\n"), ("node1/distance", "40 10\n")]
        {
            fs::write(nodes.join(file), text).unwrap();
        }
        fs::create_dir_all(path.join("etc")).unwrap();
        let _ = fs::copy("/etc/ld.so.cache", path.join("etc/ld.so.cache"));
        fs::create_dir_all(path.join("processes/self/ns")).unwrap();
        // Process 1 only has to be readable.
        let script = format!(
            "set -e
            mount --make-rprivate /
            mount -t tmpfs tmpfs /dev
            mknod -m 0660 /dev/egm4 c 1 5
            mknod -m 0660 /dev/egm5 c 1 7
            mknod -m 0666 /dev/null c 1 3
            cd {tree}/processes
            for process in 1 {holder}; do mkdir $process; mount --bind /proc/{holder} $process; done
            ln -s 'pid:[4026531836]' self/ns/pid
            mount --rbind {tree}/processes /proc
            mount --bind {tree}/sys /sys
            mount --bind {tree}/etc /etc
            mount -t tmpfs tmpfs /run
            echo ready
            read end",
            tree = path.display()
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let work = tempfile::tempdir().unwrap();
        let log = path.join("strace.log");
        let bin = path.join("bin");
        fs::create_dir(&bin).unwrap();
        let qemu = support::fixtures().join("doctor/bin/qemu-egm");
        fs::copy(qemu, bin.join("qemu-system-aarch64")).unwrap();
        let path = format!("{}:{}", bin.display(), env::var("PATH").unwrap());
        let stage = Self { keeper, tree, work, log, path };
        if line != "ready\n" {
            support::skip("cannot make a mount namespace with a recorded machine");
            return None;
        }
        Some(stage)
    }

    /// A path within the namespace, as seen from outside.
    fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.keeper.id()))
    }

    /// Resets everything to the state before the first run.
    pub(super) fn reset(&self, files: Files) {
        for directory in [
            self.inside("/run/egm-probe"),
            self.tree.path().join("etc/libvirt"),
            self.tree.path().join("etc/udev"),
        ] {
            let _ = fs::remove_dir_all(directory);
        }
        for name in self.work_names() {
            let path = self.work.path().join(name);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        for (path, content) in files {
            let place = match path.strip_prefix('/') {
                Some(rest) if rest.starts_with("etc/") => self.tree.path().join(rest),
                Some(_) => self.inside(path),
                None => self.work.path().join(path),
            };
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, content).unwrap();
        }
    }

    /// The names of the user's files, sorted.
    pub(super) fn work_names(&self) -> Vec<String> {
        names(self.work.path())
    }

    pub(super) fn work(&self) -> &Path {
        self.work.path()
    }

    /// The names of the files in the directory of the leases.
    pub(super) fn lease_names(&self) -> Vec<String> {
        names(&self.inside("/run/egm-probe"))
    }

    pub(super) fn lease_file(&self) -> String {
        fs::read_to_string(self.inside("/run/egm-probe/leases.json")).unwrap_or_default()
    }

    /// Runs the program in the directory of the user's files, under strace with these options.
    pub(super) fn run(&self, options: &[&str], args: &[&str]) -> Run {
        let keeper = self.keeper.id().to_string();
        let output = Command::new("nsenter")
            // With -r also within a chroot, whose root is not that of the namespace.
            .args(["-t", &keeper, "-m", "-r"])
            .args(["env", "-C"])
            .arg(self.work.path())
            .arg(format!("PATH={}", self.path))
            .args(["timeout", "-s", "KILL", MOST_SECONDS, "strace", "-f", "-qq", "-o"])
            .arg(&self.log)
            .args(options)
            .arg(PROGRAM)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let Output { status, stdout, stderr } = output;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Run { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The output of strace for the last run.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
