//! The synopsis and the options of a command, from clap.

use clap::{Arg, ArgAction, Command};

use super::page::Entry;
use super::roff::{literal, prose, wrap};

/// The command with its inherited options.
pub(super) fn program() -> Command {
    let mut command = egm_probe::cli::command();
    command.build();
    command
}

/// The subcommands of a command, without `help`.
pub(super) fn below(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| below.get_name() != "help")
}

/// The lines of a command's usage, or of its subcommands.
pub(super) fn synopsis(command: &Command) -> String {
    let mut commands: Vec<_> = below(command).collect();
    if commands.is_empty() {
        commands.push(command);
    }
    commands.into_iter().map(usages).collect::<String>() + ".YS\n"
}

fn usages(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let name = command.get_bin_name().unwrap();
    let arguments = usage.trim_start_matches("Usage: ").strip_prefix(name).unwrap();
    // clap puts brackets around arguments that only an exclusive option makes optional.
    let (arguments, after) = arguments.split_at(arguments.find("[-- ").unwrap_or(arguments.len()));
    let is_needed = command.clone().try_get_matches_from([name]).is_err();
    let arguments = if is_needed {
        arguments.replace('[', "<").replace(']', ">")
    } else {
        arguments.to_owned()
    };
    let arguments = arguments.replace("<OPTIONS>", "[OPTIONS]");
    let mut usage = marked(format!("{arguments}{after}").trim());
    for positional in command.get_positionals() {
        // clap omits the dots within a group of alternatives.
        let dots = values(positional).trim().to_owned();
        let name = dots.trim_end_matches('.');
        usage = usage.replace(&format!("{name} |"), &format!("{dots} |"));
    }
    let mut usages = vec![usage];
    for alone in command.get_arguments().filter(|arg| arg.is_exclusive_set()) {
        usages.push(format!("{}{}", bold(&long(alone)), values(alone)));
    }
    let of = |usage: &String| format!(".SY \"{}\"\n{}", literal(name), wrap(usage));
    usages.iter().map(of).collect()
}

/// clap's usage with roff's fonts, and braces around required alternatives.
fn marked(usage: &str) -> String {
    let mut text = String::new();
    let mut rest = usage;
    while let Some(letter) = rest.chars().next() {
        if letter == '<' {
            let end = matching(rest);
            let inner = &rest[1..end];
            let is_name = inner.chars().all(|letter| letter.is_ascii_uppercase());
            if is_name {
                text.push_str(&italic(inner));
            } else {
                let choices: Vec<_> = choices(inner).iter().map(|one| marked(one)).collect();
                text.extend(["{", &choices.join(" | "), "}"]);
            }
            rest = &rest[end + 1..];
            continue;
        }
        let end = rest
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-')
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match word {
            "" => {
                text.push(letter);
                rest = &rest[letter.len_utf8()..];
                continue;
            }
            "OPTIONS" => text.push_str(&italic("options")),
            word if word.chars().all(|letter| letter.is_ascii_uppercase()) => {
                text.push_str(&italic(word));
            }
            word => text.push_str(&bold(word)),
        }
        rest = after;
    }
    text
}

/// The position of the bracket that closes the one at the start of a text.
fn matching(text: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' if depth == 1 => return at,
            '>' => depth -= 1,
            _ => {}
        }
    }
    panic!("{text}: not closed");
}

/// The parts between bars outside of brackets.
fn choices(text: &str) -> Vec<String> {
    let mut choices = vec![String::new()];
    let mut depth = 0;
    for letter in text.chars() {
        match letter {
            '<' => depth += 1,
            '>' => depth -= 1,
            '|' if depth == 0 => {
                choices.push(String::new());
                continue;
            }
            _ => {}
        }
        choices.last_mut().unwrap().push(letter);
    }
    choices
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fP", literal(text))
}

fn italic(text: &str) -> String {
    format!("\\fI{}\\fP", literal(text))
}

/// The options of a command, or of its subcommands, with equal ones listed once.
pub(super) fn options(command: &Command) -> Vec<Entry> {
    if below(command).next().is_none() {
        return own(command).map(|arg| entry(command, arg)).collect();
    }
    let all: Vec<_> = below(command).flat_map(|one| own(one).map(move |arg| (one, arg))).collect();
    let said = |arg: &Arg| (arg.get_id().clone(), arg.get_help().map(ToString::to_string));
    let sections = all.iter().map(|(_, arg)| {
        let of = all.iter().filter(|(_, other)| said(other) == said(arg));
        let names: Vec<_> = of.map(|(one, _)| one.get_name()).collect();
        format!(".SS {}", names.join(", "))
    });
    let sections: Vec<_> = sections.collect();
    let mut entries = Vec::new();
    let mut seen = Vec::new();
    for section in &sections {
        if seen.contains(section) {
            continue;
        }
        entries.push(Entry { head: section.clone(), text: String::new() });
        // All commands of a section have the same options; take those of the first.
        let (first, _) = all[sections.iter().position(|other| other == section).unwrap()];
        let of = all
            .iter()
            .zip(&sections)
            .filter(|((one, _), other)| *other == section && one.get_name() == first.get_name());
        entries.extend(of.map(|((one, arg), _)| entry(one, arg)));
        seen.push(section.clone());
    }
    entries
}

/// The options of every command.
pub(super) fn global(program: &Command) -> Vec<Entry> {
    let is_global = |arg: &&Arg| arg.is_global_set() || is_clap_s(arg);
    program.get_arguments().filter(is_global).map(|arg| entry(program, arg)).collect()
}

fn own(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_global_set() && !is_clap_s(arg))
}

/// `--help` and `--version`.
fn is_clap_s(arg: &Arg) -> bool {
    ["help", "version"].contains(&arg.get_id().as_str())
}

fn long(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap())
}

/// The value of an option or argument, after a space.
fn values(arg: &Arg) -> String {
    if !arg.get_action().takes_values() {
        return String::new();
    }
    let names: Vec<_> =
        arg.get_value_names().unwrap_or_default().iter().map(AsRef::as_ref).collect();
    let italics: Vec<_> = names.iter().map(|name: &&str| italic(name)).collect();
    let is_open = arg.get_num_args().is_some_and(|range| range.max_values() > names.len());
    let dots = if is_open { "..." } else { "" };
    format!(" {}{dots}", italics.join(" "))
}

fn entry(command: &Command, arg: &Arg) -> Entry {
    let values = values(arg);
    let head = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(_)) => {
            format!(".BR \\-{short} \", \" {} \"{values}\"", literal(&long(arg)))
        }
        (_, Some(_)) => format!(".BR {} \"{values}\"", literal(&long(arg))),
        (_, None) => format!(".IR {}", values.trim().replace("\\fI", "").replace("\\fP", " ")),
    };
    Entry { head: head.replace(" \"\"", "").trim_end().to_owned(), text: text(command, arg) }
}

fn text(command: &Command, arg: &Arg) -> String {
    let names: Vec<_> =
        arg.get_value_names().unwrap_or_default().iter().map(AsRef::as_ref).collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    // The hint about the other help depends on the amount of text.
    let help = help.split(" (see ").next().unwrap().to_owned();
    let (help, default) = match help.split_once(" [default: ") {
        Some((help, default)) => (help.to_owned(), Some(default.trim_end_matches(']').to_owned())),
        None => (help, None),
    };
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let is_shown =
        arg.get_action().takes_values() && !defaults.is_empty() && !arg.is_hide_default_value_set();
    let mut sentences = vec![help];
    if is_again(arg) {
        sentences.push(if arg.get_value_delimiter().is_some() {
            "May be repeated, or take several values separated by commas".into()
        } else {
            "May be repeated".into()
        });
    }
    if let Some(default) = default.or_else(|| is_shown.then(|| defaults.join(", "))) {
        sentences.push(format!("Default: {default}"));
    }
    let others = command.get_arguments().filter(|other| are_apart(command, arg, other));
    let others: Vec<_> = others.filter(|other| other.get_long().is_some()).map(long).collect();
    if !others.is_empty() {
        sentences.push(format!("Not with {}", others.join(", ")));
    }
    if arg.is_exclusive_set() {
        sentences.push("Cannot be combined with other options".into());
    }
    let text: String =
        sentences.iter().map(|sentence| prose(&format!("{sentence}."), &names)).collect();
    text + &possible(arg)
}

/// Whether two options conflict, in either direction.
fn are_apart(command: &Command, one: &Arg, other: &Arg) -> bool {
    let says = |arg: &Arg, against: &Arg| {
        let conflicts = command.get_arg_conflicts_with(arg);
        conflicts.iter().any(|conflict| conflict.get_id() == against.get_id())
    };
    let is_of = |group: &clap::ArgGroup, arg: &Arg| group.get_args().any(|id| id == arg.get_id());
    let mut groups = command.get_groups().filter(|group| !(*group).clone().is_multiple());
    let is_alone = one.is_exclusive_set() || other.is_exclusive_set();
    let are_choices = groups.any(|group| is_of(group, one) && is_of(group, other));
    one.get_id() != other.get_id()
        && !is_alone
        && (says(one, other) || says(other, one) || are_choices)
}

fn is_again(arg: &Arg) -> bool {
    let is_one = arg.get_value_names().is_none_or(|names| names.len() == 1);
    matches!(arg.get_action(), ArgAction::Append) && arg.get_long().is_some() && is_one
}

/// The possible values, if they are enumerated.
fn possible(arg: &Arg) -> String {
    let possible = arg.get_possible_values();
    if possible.is_empty() || !arg.get_action().takes_values() {
        return String::new();
    }
    if possible.iter().all(|value| value.get_help().is_none()) {
        let names: Vec<_> = possible.iter().map(|value| bold(value.get_name())).collect();
        return wrap(&format!("One of {}.", names.join(", ")));
    }
    let of = |value: &clap::builder::PossibleValue| {
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        format!(".TP\n.B {}\n{}", literal(value.get_name()), prose(&format!("{help}."), &[]))
    };
    format!(".RS\n{}.RE\n", possible.iter().map(of).collect::<String>())
}
