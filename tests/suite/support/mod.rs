//! What several tests need: the recorded machines, and the builder of made-up ones.

// Each test file uses its own part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod domains;
pub mod machines;
pub mod tree;
pub mod xmllint;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The folder of the recorded machines.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A recorded machine as `--from` takes it: a capture, or the directory of a machine made by hand.
pub fn machine(name: &str) -> PathBuf {
    let folder = fixtures().join(name);
    let capture = folder.join("host.tar.gz");
    if capture.exists() { capture } else { folder }
}

/// The names of all machines, sorted: the directories with a golden file and a capture.
pub fn machines() -> Vec<String> {
    machines_below("")
}

/// The machines in a directory of the fixtures, by their paths below the fixtures.
pub fn machines_below(directory: &str) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(fixtures().join(directory)).unwrap() {
        let path = entry.unwrap().path();
        let is_machine = ["nodes", "host.tar.gz"].iter().any(|name| path.join(name).exists());
        if is_machine && path.join("golden.txt").exists() {
            let name = path.strip_prefix(fixtures()).unwrap();
            names.push(name.to_str().unwrap().to_owned());
        }
    }
    names.sort();
    assert!(names.len() > 20, "the fixtures are not where they should be");
    names
}

/// Standard error of a run, as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the program in a directory; returns its output as in golden files.
pub fn run<'a>(args: impl Iterator<Item = &'a str>, folder: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
    shown(command.args(args).current_dir(folder).env_remove("NO_COLOR").output().unwrap())
}

/// Standard output; standard error behind `! `; the exit code behind `? ` unless it is 0.
pub fn shown(output: Output) -> String {
    let mut text = String::from_utf8(output.stdout).unwrap();
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        writeln!(text, "! {line}").unwrap();
    }
    match output.status.code() {
        Some(0) => {}
        Some(code) => writeln!(text, "? {code}").unwrap(),
        None => panic!("ended by a signal: {}", output.status),
    }
    text
}

/// Whether a test that cannot run is a failure, as it is in CI.
pub fn must_run() -> bool {
    env::var_os("EGM_PROBE_TEST_ALL").is_some_and(|value| !value.is_empty())
}

thread_local! {
    /// The name of the test, in a runner whose threads do not have it.
    pub static NAME: RefCell<Option<String>> = const { RefCell::new(None) };
}

static REPORTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Reports why a test, or a part of it, does not run here: on standard error, and in the file that
/// `EGM_PROBE_TEST_SKIPPED` names, whose lines `make check` prints at its end. The same reason in the
/// same test is reported once.
pub fn skip(why: &str) {
    assert!(!must_run(), "cannot run here: {why}");
    // With --test-threads=1 tests run in the main thread, which does not have their names.
    let thread = thread::current();
    let name = NAME.with_borrow(Option::clone);
    let test = name.as_deref().or(thread.name().filter(|name| *name != "main"));
    let test = test.unwrap_or("a test");
    let line = format!("skipped: {test}: {}\n", why.lines().collect::<Vec<_>>().join("; "));
    if !REPORTED.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        return;
    }
    // Not eprint!, whose output the test runner keeps to itself for successful tests.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(file) = env::var_os("EGM_PROBE_TEST_SKIPPED").filter(|file| !file.is_empty()) {
        let file = OpenOptions::new().append(true).create(true).open(file);
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
    }
}

/// Whether programs are in PATH; skips the test if one is not.
pub fn has(programs: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let missing = programs.iter().find(|program| {
        !env::split_paths(&path).any(|directory| directory.join(program).is_file())
    });
    if let Some(program) = missing {
        skip(&format!("{program} is not installed"));
    }
    missing.is_none()
}
