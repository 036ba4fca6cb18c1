//! Every recorded machine, as the commands show it: one golden file a machine.
//!
//! A golden file says first, in lines with `#`, what the machine is, and then, for each command line
//! (`$ egm-probe ..`, run by bash in the machine's folder), what is printed: standard output as it
//! is, standard error behind `! `, and the exit code behind `? ` where it is not 0.
//! `UPDATE_GOLDEN=1` writes the files anew: read the difference.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

/// The golden file as the program would write it now.
pub(crate) fn current(golden: &str, folder: &Path) -> String {
    let mut text = String::new();
    for line in golden.lines() {
        // Output may also begin with `#`.
        if line.starts_with('#') && !text.contains("\n$ ") {
            writeln!(text, "{line}").unwrap();
        } else if let Some(command) = line.strip_prefix("$ ")
            && command.starts_with("egm-probe")
        {
            writeln!(text, "\n{line}").unwrap();
            text.push_str(&run_line(command, folder));
        }
    }
    text
}

fn run_line(command: &str, folder: &Path) -> String {
    let programs = Path::new(PROGRAM).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", command])
        .env("PATH", format!("{}:{path}", programs.display()))
        .env_remove("NO_COLOR")
        .current_dir(folder)
        .output()
        .unwrap();
    support::shown(output)
}

/// Whether the commands of a fixture's golden file print what stands in it.
pub(crate) fn is_as_recorded(fixture: &str) {
    let folder = support::fixtures().join(fixture);
    let path = folder.join("golden.txt");
    let golden = fs::read_to_string(&path).unwrap();
    assert!(golden.contains("\n$ egm-probe"), "its golden file runs nothing");
    let current = current(&golden, &folder);
    if std::env::var_os("UPDATE_GOLDEN").is_some() && current != golden {
        fs::write(&path, &current).unwrap();
        return;
    }
    assert_same(&golden, &current, &path.display().to_string());
}

/// Fails with the first line that differs.
pub(crate) fn assert_same(recorded: &str, current: &str, what: &str) {
    if recorded == current {
        return;
    }
    let line = recorded.lines().zip(current.lines()).position(|(old, new)| old != new);
    let line = line.unwrap_or_else(|| recorded.lines().count().min(current.lines().count()));
    panic!(
        "{what}:{}\n  recorded: {}\n  printed:  {}",
        line + 1,
        recorded.lines().nth(line).unwrap_or("(end)"),
        current.lines().nth(line).unwrap_or("(end)"),
    );
}
