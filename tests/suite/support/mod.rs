//! What several tests need: the recorded machines, and the builder of made-up ones.

// Each test file uses its own part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod domains;
pub mod machines;
pub mod tree;
pub mod xmllint;

use std::env;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

/// Those in a directory of the fixtures, by their paths below the fixtures.
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

/// What the program prints in a folder, as golden files have it.
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
    env::var_os("EGM_PROBE_TEST_ALL").is_some()
}

/// Says why a test, or a part of it, does not run here.
pub fn skip(why: &str) {
    assert!(!must_run(), "cannot run here: {why}");
    // Past the test runner, which keeps what successful tests print to itself.
    let _ = writeln!(io::stderr(), "skipped: {why}");
}
