//! What reads manual pages has nothing against them.

use std::process::{Command, Output};

use super::page::Page;
use crate::examples::has;

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
        if !has(program) {
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

#[test]
fn the_pages_fit_into_a_terminal() {
    if !has("groff") {
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
