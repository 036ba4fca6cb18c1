//! The manual pages pass their checkers.

use std::process::{Command, Output};

use super::page::Page;
use crate::support;

fn run(program: &str, args: &[&str], page: &Page) -> Output {
    Command::new(program)
        .args(args)
        .arg(page.path())
        .env("LC_ALL", "C.UTF-8")
        .env("MANPAGER", "cat")
        .output()
        .unwrap()
}

#[test]
fn the_pages_are_clean() {
    for (program, args) in [
        ("mandoc", &["-T", "lint"][..]),
        ("groff", &["-man", "-ww", "-z", "-t", "-K", "utf8", "-T", "utf8"]),
        ("man", &["--warnings", "-E", "UTF-8", "-Z", "-l"]),
    ] {
        // man formats with groff.
        if !support::has(&[program, if program == "man" { "groff" } else { program }]) {
            continue;
        }
        for page in Page::all() {
            let output = run(program, args, &page);
            let said = if program == "man" { &output.stderr } else { &output.stdout };
            let said = String::from_utf8_lossy(said) + String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && said.is_empty(),
                "{program}: {}:\n{said}",
                page.name
            );
        }
    }
}

/// roff treats a bare minus as a hyphen, which may break lines and is not copied as an option.
#[test]
fn commands_and_options_can_be_copied() {
    for page in Page::all() {
        let is_text = |line: &&str| !line.starts_with(".\\\"") && !line.starts_with(".TH ");
        for line in page.source.lines().filter(is_text) {
            let is_bare = line.contains("--") || line.contains("egm-probe");
            assert!(!is_bare, "{}: a minus without its backslash: {line}", page.name);
        }
    }
}

#[test]
fn the_pages_fit_into_a_terminal() {
    if !support::has(&["groff"]) {
        return;
    }
    for page in Page::all() {
        let args = ["-man", "-K", "utf8", "-T", "utf8", "-P-cbou", "-rLL=80n", "-rLT=80n"];
        let output = run("groff", &args, &page);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().count() > 20, "{}", page.name);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{}: too wide: {line}", page.name);
        }
    }
}
