//! What is written about the program is what the program does.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use egm_probe::check::{RULES, Severity};
use egm_probe::output::columns::COLUMNS;

use crate::{golden, support};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The commands of the README are those of a GB200 with a VM, whose archive is left out there.
#[test]
fn the_readme_shows_what_the_program_prints() {
    let readme = read("README.md");
    let mut shown = 0;
    for block in readme.split("```console\n$ egm-probe ").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let (args, printed) = block.split_once('\n').unwrap();
        let host = ["--from", "host.tar.gz"];
        let root = if args.contains("--from") { &[][..] } else { &host };
        let args = root.iter().copied().chain(args.split_whitespace());
        let folder = support::fixtures().join("claims-vm");
        // But for the exit code, and what may be missing on a machine without libvirt.
        let is_shown =
            |line: &&str| !line.starts_with("? ") && !line.starts_with("! egm-probe: note");
        let run = golden::run(args, &folder);
        let lines: String = run.split_inclusive('\n').filter(is_shown).collect();
        assert_eq!(lines, printed);
        shown += 1;
    }
    assert_eq!(shown, 8);
}

#[test]
fn completions_are_those_that_the_program_prints() {
    for (shell, file) in
        [("bash", "egm-probe.bash"), ("zsh", "_egm-probe"), ("fish", "egm-probe.fish")]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
            .args(["completions", shell])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &printed).unwrap();
        }
        assert!(fs::read_to_string(path).unwrap() == printed, "{file}: run `make golden`");
    }
}

#[test]
fn the_manual_page_has_the_table_of_rules() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/egm-probe.1");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("make golden.\n").unwrap();
    let (_, after) = rest.split_once(".\\\" End of the table.\n").unwrap();
    let mut table = String::new();
    for rule in RULES {
        let severity = if rule.severity == Severity::Error { "error" } else { "warning" };
        let title = rule.title.replace('-', "\\-");
        writeln!(table, ".TP\n.BR {} \" ({severity})\"\n{title}.", rule.code).unwrap();
    }
    let expected = format!("{before}make golden.\n{table}.\\\" End of the table.\n{after}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(page == expected, "run `make golden`");
}

#[test]
fn the_manual_page_has_every_command_option_and_column() {
    let page = read("man/egm-probe.1").replace("\\-", "-");
    let command = egm_probe::cli::command();
    let mut options = 0;
    for subcommand in command.get_subcommands().chain([&command]) {
        let name = subcommand.get_name();
        assert!(
            page.contains(&format!(".B {name}"))
                || page.contains(&format!(".BI {name}"))
                || page.contains(&format!(".BR {name}")),
            "{name} is not in the manual page"
        );
        for option in subcommand.get_arguments().filter_map(clap::Arg::get_long) {
            let is_there = page.match_indices(&format!("--{option}")).any(|(at, found)| {
                let next = page[at + found.len()..].chars().next();
                !next.is_some_and(|next| next == '-' || next.is_ascii_alphanumeric())
            });
            assert!(is_there, "--{option} is not in the manual page");
            options += 1;
        }
    }
    assert!(options > 10, "only {options} options");
    for column in &COLUMNS {
        let help = column.help.get(1..).unwrap();
        let entry = page.split(&format!(".TP\n.B {}\n", column.name)).nth(1);
        let text = entry.unwrap_or_else(|| panic!("{} is not in the manual page", column.name));
        assert!(text.lines().next().unwrap().contains(help), "{}", column.name);
    }
}
