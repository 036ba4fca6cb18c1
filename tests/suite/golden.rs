//! Every recorded machine, as the commands show it: one golden file a machine.
//!
//! A golden file says first, in lines with `#`, what the machine is, and then, for each command line
//! (`$ egm-probe ..`, run in the machine's folder), what is printed: standard output as it is,
//! standard error behind `! `, and the exit code behind `? ` where it is not 0.
//! `UPDATE_GOLDEN=1` writes the files anew: read the difference.

use crate::support;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What a golden file would be if what the program prints now were right.
pub(crate) fn current(golden: &str, folder: &Path) -> String {
    let mut text = String::new();
    for line in golden.lines() {
        // Of what is printed some begins so, too.
        if line.starts_with('#') && !text.contains("\n$ ") {
            writeln!(text, "{line}").unwrap();
        } else if let Some(args) = line.strip_prefix("$ egm-probe") {
            writeln!(text, "\n{line}").unwrap();
            text.push_str(&run(args.split_whitespace(), folder));
        }
    }
    text
}

pub(crate) fn run<'a>(args: impl Iterator<Item = &'a str>, folder: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
        .args(args)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
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

#[test]
fn machines_are_shown_as_recorded() {
    let mut different = Vec::new();
    for machine in support::machines().into_iter().chain(["stanza".to_owned()]) {
        let folder = support::fixtures().join(&machine);
        let path = folder.join("golden.txt");
        let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{machine}: {error}"));
        let current = current(&golden, &folder);
        assert!(golden.contains("\n$ egm-probe"), "{machine}: its golden file runs nothing");
        if current == golden {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, current).unwrap();
            continue;
        }
        let line = golden.lines().zip(current.lines()).position(|(old, new)| old != new);
        let line = line.unwrap_or_else(|| golden.lines().count().min(current.lines().count()));
        different.push(format!(
            "{}:{}\n  recorded: {}\n  printed:  {}",
            path.display(),
            line + 1,
            golden.lines().nth(line).unwrap_or("(end)"),
            current.lines().nth(line).unwrap_or("(end)"),
        ));
    }
    assert!(different.is_empty(), "not as recorded:\n{}", different.join("\n"));
}
