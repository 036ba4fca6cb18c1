//! Tables of the program, as lists for a page.

use std::process;

use clap::Command;
use egm_probe::check::RULES;
use egm_probe::doctor::errors::ERRORS;
use egm_probe::doctor::{CHECKS, Consumer};
use egm_probe::output::columns::COLUMNS;
use serde_json::Value;

use super::options::below;
use super::page::Entry;
use super::roff::{literal, prose, wrap};
use crate::support;

/// The visible commands, each with its page.
pub(super) fn commands(program: &Command) -> Vec<Entry> {
    let of = |command: &Command| Entry {
        head: format!(".BR egm\\-probe\\-{} (1)", command.get_name()),
        text: prose(&format!("{}.", command.get_about().unwrap()), &[]),
    };
    below(program).map(of).collect()
}

/// The global options, in one line.
pub(super) fn global_names(program: &Command) -> String {
    let name = |arg: &clap::Arg| {
        arg.get_long().map(|long| format!("\\fB{}\\fP", literal(&format!("--{long}"))))
    };
    let global = program.get_arguments().filter(|arg| arg.is_global_set());
    let names: Vec<_> = global.filter_map(name).collect();
    wrap(&format!("{}, \\fB\\-\\-help\\fP and \\fB\\-\\-version\\fP:", names.join(", ")))
}

pub(super) fn columns() -> Vec<Entry> {
    let of = |column: &egm_probe::output::columns::Column| {
        let default = if column.default { ", by default" } else { "" };
        let mut help = column.help.to_owned();
        help[..1].make_ascii_uppercase();
        Entry {
            head: format!(".BR {} \" ({}{default})\"", column.name, column.kind.name()),
            text: prose(&format!("{help}."), &[]),
        }
    };
    COLUMNS.iter().map(of).collect()
}

pub(super) fn rules() -> Vec<Entry> {
    let of = |rule: &egm_probe::check::Rule| {
        let severity = rule.severity.name();
        Entry {
            head: format!(".BR {} \" ({severity})\"", rule.code),
            text: prose(&format!("{}.", rule.title), &[]),
        }
    };
    RULES.iter().map(of).collect()
}

pub(super) fn checks() -> Vec<Entry> {
    let of = |check: &egm_probe::doctor::Check| {
        let after =
            check.parent.map(|parent| format!(" \" (after {parent})\"")).unwrap_or_default();
        let font = if after.is_empty() { 'B' } else { ' ' };
        let font = if font == 'B' { ".B" } else { ".BR" };
        Entry {
            head: format!("{font} {}{after}", check.code),
            text: prose(&format!("Checking {}.{}", check.title, consumers(check)), &[])
                + ".br\n"
                + &example(check),
        }
    };
    CHECKS.iter().map(of).collect()
}

/// The consumers of a check, unless it concerns all.
fn consumers(check: &egm_probe::doctor::Check) -> String {
    let names: Vec<_> = check.consumers.iter().map(|consumer| consumer.name()).collect();
    if check.consumers == Consumer::ALL {
        return String::new();
    }
    format!(" For {}.", names.join(", "))
}

/// The message and the first hint of a check, on the host that fails it.
fn example(check: &egm_probe::doctor::Check) -> String {
    let host = support::machine(&format!("doctor/{}", check.code));
    let program = env!("CARGO_BIN_EXE_egm-probe");
    let consumer = check.consumers[0].name();
    let args = ["doctor", "--json", "--consumer", consumer];
    let output = process::Command::new(program).arg("--from").arg(host).args(args).output();
    let document: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let mut found = document["checks"].as_array().unwrap().iter();
    let found = found.find(|found| found["code"] == check.code).unwrap();
    if found["verdict"] == "skip" {
        return prose(&format!("Only on the running host. {}", check.explanation), &[]);
    }
    assert_ne!(found["verdict"], "pass", "{}", check.code);
    let message = prose(&format!("Example: {}.", found["message"].as_str().unwrap()), &[]);
    let hint = &found["hints"][0];
    let Some(text) = hint["text"].as_str() else {
        return format!("{message}.br\n{}", prose(check.explanation, &[]));
    };
    let text = text.trim_end_matches('.');
    let commands = hint["commands"].as_array().into_iter().flatten();
    let commands: Vec<_> = commands.map(|command| command.as_str().unwrap()).collect();
    // No hyphenation and no full stop, so that the command can be copied.
    let bold = |command| format!("\\fB\\%{}\\fP", literal(command).replace(' ', " \\%"));
    let command = match commands[..] {
        [] => ".".to_owned(),
        [command] => format!(": {}", bold(command)),
        _ => format!("; see {}", bold("egm-probe doctor --fix-plan")),
    };
    let text = prose(&format!("Fix: {text}"), &[]);
    let fix = wrap(&format!("{}{command}", text.trim_end().replace('\n', " ")));
    format!("{message}.br\n{fix}")
}

/// The error messages, in a section for each program that prints them.
pub(super) fn errors() -> String {
    let mut text = String::new();
    let mut printer = "";
    for error in ERRORS {
        if error.printer == printer {
            text.push_str(".PP\n");
        } else {
            printer = error.printer;
            let title = if printer == "kernel" { "Kernel" } else { printer };
            text.extend([".SS ", title, "\n"]);
        }
        // No hyphenation, and no end of a sentence, so that the message can be searched for.
        let form = |form: &&str| literal(form).replace(". ", ".\\& ").replace(' ', " \\%");
        let forms = error.texts.iter().map(|it| wrap(&format!("\\fB{}\\fP", form(it))));
        let mut parts =
            vec![prose(error.cause, &[]), prose(&format!("Fix: {}.", error.remedy), &[])];
        if !error.codes.is_empty() {
            parts.push(prose(&format!("See {}.", error.codes.join(", ")), &[]));
        }
        let forms: Vec<_> = forms.collect();
        text.extend([&forms.join(".br\n"), ".RS\n", &parts.join(".br\n"), ".RE\n"]);
    }
    text
}

/// The metrics that a host has, by what the program says of each.
pub(super) fn metrics() -> Vec<Entry> {
    let of = |host| {
        let folder = support::fixtures().join(host);
        support::run(["--from", ".", "metrics"].into_iter(), &folder)
    };
    // The other host has a holder.
    let (text, other) = (of("leases"), of("claims-vm"));
    let mut entries = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        let mut samples = text.lines().chain(other.lines());
        let sample = samples.find_map(|line| line.strip_prefix(&format!("{name}{{")));
        let labels =
            sample.and_then(|sample| sample.split_once('}')).map_or("", |(labels, _)| labels);
        let labels: Vec<_> = labels
            .split("\",")
            .filter_map(|label| label.split_once('='))
            .map(|(name, _)| format!("\\fI{name}\\fP"))
            .collect();
        let of = if labels.is_empty() {
            String::new()
        } else {
            format!(" \"{{{}}}\"", labels.join(", "))
        };
        let font = if of.is_empty() { ".B" } else { ".BR" };
        entries.push(Entry { head: format!("{font} {name}{of}"), text: prose(help, &[]) });
    }
    assert!(entries.len() > 10);
    entries
}
