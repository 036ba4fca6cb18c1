//! The README: its output is that of the program, and its commands are valid.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::error::ErrorKind;

use crate::live::{can, extract};
use crate::support;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

/// Compares the README with the expected text, or writes it with `UPDATE_GOLDEN=1`.
fn agree(readme: &str, expected: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path(), expected).unwrap();
        return;
    }
    let differs = readme.lines().zip(expected.lines()).find(|(is, should)| is != should);
    assert!(readme == expected, "run `make golden` and read the difference; first: {differs:#?}");
}

/// A directory as in the README's tour: a program `egm-probe` that reads a recorded host, and domain
/// files.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        let program = stage.0.path().join("egm-probe");
        let script = format!("#!/bin/sh\nexec '{PROGRAM}' $EGM_HOST \"$@\"\n");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let wrong = support::fixtures().join("domains/bad/gb200-full-gpu-list/cell-too-large.xml");
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/base.xml");
        for (from, to) in [(base, "base.xml"), (wrong, "vm1.xml")] {
            fs::copy(from, stage.0.path().join(to)).unwrap();
        }
        stage
    }

    fn run(&self, line: &str, host: &str) -> String {
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(self.0.path())
            .env("PATH", format!("{}:{path}", self.0.path().display()))
            .env("EGM_HOST", host)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .output()
            .unwrap();
        let mut text = String::from_utf8(output.stdout).unwrap();
        for line in String::from_utf8(output.stderr).unwrap().lines() {
            // Ignore notes about missing libvirt, and device nodes that only root can unpack.
            let is_of_here =
                line.starts_with("egm-probe: note") || line.contains("device node missing");
            if !is_of_here {
                writeln!(text, "{line}").unwrap();
            }
        }
        text
    }
}

/// The host of a block, from the line before it, `<!-- host: NAME -->`: a machine of the
/// fixtures, with `, unpacked` for a writable copy. The default is a GB200 with a VM.
fn host_of(before: &str) -> (PathBuf, Option<tempfile::TempDir>) {
    let marker = before.lines().next_back().and_then(|line| line.strip_prefix("<!-- host: "));
    let name = marker.map_or("claims-vm", |marker| marker.strip_suffix(" -->").unwrap());
    if let Some(name) = name.strip_suffix(", unpacked") {
        let root = extract(name);
        return (root.path().to_owned(), Some(root));
    }
    (support::machine(name), None)
}

#[test]
fn console_blocks_are_the_output_of_the_program() {
    if !can("jq", &["jq", "--version"]) {
        return;
    }
    let readme = fs::read_to_string(path()).unwrap();
    let stage = Stage::new();
    let mut expected = String::new();
    let mut rest = readme.as_str();
    let mut shown = String::new();
    while let Some((before, after)) = rest.split_once("```console\n") {
        let (block, after) = after.split_once("```\n").unwrap();
        let (root, unpacked) = host_of(before);
        let option = if unpacked.is_some() { "--sysroot" } else { "--from" };
        writeln!(expected, "{before}```console").unwrap();
        for line in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let printed = stage.run(line, &format!("{option} {}", root.display()));
            write!(expected, "$ {line}\n{printed}").unwrap();
            writeln!(shown, "{line}").unwrap();
        }
        expected.push_str("```\n");
        rest = after;
    }
    expected.push_str(rest);
    let program = egm_probe::cli::command();
    for command in program.get_subcommands() {
        // `completions` prints a script of some hundred lines.
        if !["completions", "help"].contains(&command.get_name()) {
            let name = format!("egm-probe {}", command.get_name());
            assert!(shown.contains(&name), "`{name}` is not shown");
        }
    }
    agree(&readme, &expected);
}

/// The lines of all blocks of a kind.
fn lines_of<'a>(readme: &'a str, kind: &str) -> Vec<&'a str> {
    let begin = format!("```{kind}\n");
    let blocks = readme.split(begin.as_str()).skip(1);
    blocks.flat_map(|block| block.split_once("```").unwrap().0.lines()).collect()
}

#[test]
fn commands_are_valid() {
    let readme = fs::read_to_string(path()).unwrap();
    let mut lines = lines_of(&readme, "sh");
    lines.extend(readme.split('`').skip(1).step_by(2));
    let lists: Vec<_> = lines_of(&readme, "yaml")
        .into_iter()
        .filter_map(|line| line.trim().strip_prefix("- [")?.strip_suffix(']'))
        .map(|list| list.replace(',', ""))
        .collect();
    lines.extend(lists.iter().map(String::as_str));
    let mut typed = 0;
    for line in lines {
        let line = line.trim().strip_prefix("sudo ").unwrap_or(line.trim());
        let (line, _) = line.split_once(" #").unwrap_or((line, ""));
        let (line, _) = line.split_once(" >").unwrap_or((line, ""));
        let Some(args) = line.strip_prefix("egm-probe ") else { continue };
        let args = args.split_whitespace().map(|word| word.trim_matches('"'));
        let args = std::iter::once("egm-probe").chain(args);
        match egm_probe::cli::command().try_get_matches_from(args) {
            Ok(_) => typed += 1,
            // A command that is only named.
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {}
            Err(error) => panic!("{line}: {error}"),
        }
    }
    assert!(typed > 10, "only {typed} commands");
}
