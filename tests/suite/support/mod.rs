//! What several tests need: the recorded machines, and the builder of made-up ones.

// Each test file uses its own part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod broken;
pub mod machines;
pub mod patients;
pub mod processes;
pub mod tree;

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The folder of the recorded machines.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The archive of one machine.
pub fn archive(machine: &str) -> PathBuf {
    fixtures().join(machine).join("host.tar.gz")
}

/// The names of all machines that are recorded, sorted.
pub fn machines() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !["doctor", "domains", "rfc", "stanza"].contains(&name.as_str()))
        .collect();
    names.sort();
    assert!(names.len() > 20, "the fixtures are not where they should be");
    names
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
