//! What is written about the program is what the program does.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use egm_probe::check::{RULES, Severity};
use egm_probe::doctor::CHECKS;
use egm_probe::output::columns::COLUMNS;

use crate::{golden, support};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_page_on_egm_and_the_readme_tell_of_every_shape() {
    let readme = read("README.md");
    let page = read("man/egm.7").replace("\\-", "-");
    let shapes = support::machines().into_iter().map(|machine| {
        let args = ["--from", "host.tar.gz", "list", "-n", "-r", "-o", "SHAPE"];
        golden::run(args.into_iter(), &support::fixtures().join(machine))
    });
    let shapes: BTreeSet<String> =
        shapes.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let shapes: Vec<_> =
        shapes.iter().filter(|line| line.len() > 1 && !line.contains(' ')).collect();
    assert_eq!(shapes.len(), 5, "{shapes:?}");
    for shape in shapes {
        assert!(page.contains(&format!("\n.B {shape}\n")), "{shape}");
        assert!(readme.contains(&format!("\n| `{shape}` |")), "{shape} in the README");
    }
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

/// The manual page with a table put between two of its lines.
fn with_table(page: &str, (begin, end): (&str, &str), table: &str) -> String {
    let (before, rest) = page.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    format!("{before}{begin}{table}{end}{after}")
}

#[test]
fn the_manual_page_has_the_tables_of_rules_and_checks() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/egm-probe.1");
    let page = fs::read_to_string(&path).unwrap();
    let (mut rules, mut checks) = (String::new(), String::new());
    for rule in RULES {
        let severity = if rule.severity == Severity::Error { "error" } else { "warning" };
        let title = rule.title.replace('-', "\\-");
        writeln!(rules, ".TP\n.BR {} \" ({severity})\"\n{title}.", rule.code).unwrap();
    }
    for check in CHECKS {
        let after = check.parent.map_or(String::new(), |parent| format!(" \" (after {parent})\""));
        let title = check.title.replace('-', "\\-");
        writeln!(checks, ".TP\n.BR {}{after}\nChecking {title}.", check.code).unwrap();
    }
    let of_rules =
        (".\\\" Made from the table of rules: make golden.\n", ".\\\" End of the table.\n");
    let of_checks =
        (".\\\" Made from the table of checks: make golden.\n", ".\\\" End of the checks.\n");
    let expected = with_table(&with_table(&page, of_rules, &rules), of_checks, &checks);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(page == expected, "run `make golden`");
}

/// A command and all that are below it.
fn commands(command: &clap::Command) -> Vec<&clap::Command> {
    let below = command.get_subcommands().flat_map(commands);
    std::iter::once(command).chain(below).collect()
}

#[test]
fn the_manual_page_has_every_command_option_and_column() {
    let page = read("man/egm-probe.1").replace("\\-", "-");
    let command = egm_probe::cli::command();
    let mut options = 0;
    for subcommand in commands(&command) {
        let name = subcommand.get_name();
        let is_there = [".B ", ".BI ", ".BR ", ".BR \"", "\"udev "]
            .iter()
            .any(|before| page.contains(&format!("{before}{name}")));
        assert!(is_there, "{name} is not in the manual page");
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
