//! `egm-probe completions`, and the hidden `egm-probe complete-values` that they call.

use std::fmt::Write as _;
use std::mem;
use std::path::{Path, PathBuf};

use clap::{Arg, Args, Command, ValueEnum};
use clap_complete::Shell;

use super::args::Global;
use super::error::Error;
use super::watch::Until;
use super::{Exit, Session, command, host_below, is_dash, open_capture};
use crate::check::RULES;
use crate::doctor::CHECKS;
use crate::host::{Host, Needs};
use crate::output::columns::COLUMNS;
use crate::sysroot::Sysroot;

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// Shell to print completions for
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct ValuesArgs {
    /// Kind of the values
    #[arg(value_enum)]
    kind: Kind,
    /// The command line, which may name another host
    #[arg(last = true)]
    line: Vec<String>,
}

/// A kind of values that clap's completions do not know.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Regions,
    Gpus,
    Columns,
    States,
    Rules,
    Checks,
}

/// Prints the values of a kind, one per line; none if the host cannot be read, because a shell shows
/// errors in the middle of the command line. Does not search for holders, which takes longest.
pub(super) fn values(args: &ValuesArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let root = host_of(&args.line, session.global);
    let host = |needs| root.as_ref().map_or_else(Host::default, |root| Host::read(root, needs));
    let values: Vec<String> = match args.kind {
        Kind::Regions => {
            let regions = host(Needs::empty()).regions;
            regions.iter().map(|region| region.name.to_string()).collect()
        }
        Kind::Gpus => host(Needs::GPUS).gpus().map(|(gpu, _)| gpu.address.to_string()).collect(),
        Kind::Columns => COLUMNS.iter().map(|column| column.name.to_owned()).collect(),
        Kind::States => names(Until::value_variants()),
        Kind::Rules => RULES.iter().map(|rule| rule.code.to_owned()).collect(),
        Kind::Checks => CHECKS.iter().map(|check| check.code.to_owned()).collect(),
    };
    for value in values {
        writeln!(session.out, "{value}")?;
    }
    Ok(Exit::Done)
}

/// The host that a command line names with `--from` or `--sysroot`, or else that of this run.
fn host_of(line: &[String], global: &Global) -> Option<Sysroot> {
    let mut words = line.iter().map(String::as_str).take_while(|word| *word != "--");
    let mut named = None;
    while let Some(word) = words.next() {
        let (option, value) = word.split_once('=').unzip();
        let open: fn(&Path) -> _ = match option.unwrap_or(word) {
            "--sysroot" => host_below,
            "--from" => open_capture,
            _ => continue,
        };
        named = value.or_else(|| words.next()).map(|path| (open, path));
    }
    let Some((open, path)) = named else { return global.root().ok() };
    // Shells pass the words as they are typed.
    let path = match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    };
    // Standard input is the terminal.
    if is_dash(&path) { None } else { open(&path).ok() }
}

fn names(values: &[impl ValueEnum]) -> Vec<String> {
    let values = values.iter().filter_map(ValueEnum::to_possible_value);
    values.map(|value| value.get_name().to_owned()).collect()
}

pub(super) fn run(args: &CompletionsArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    // The generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "egm-probe", &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match args.shell {
        Shell::Bash => bash(&script),
        Shell::Fish => script.into_owned() + &fish(),
        Shell::Zsh => zsh(&script),
        _ => script.into_owned(),
    };
    session.out.write_all(script.as_bytes())?;
    Ok(Exit::Done)
}

/// The kind of an argument's values, by the name that its help gives to them.
fn kind(arg: &Arg) -> Option<&'static str> {
    if !arg.get_action().takes_values() || !arg.get_possible_values().is_empty() {
        return None;
    }
    Some(match arg.get_value_names()?.first()?.as_str() {
        "REGION" => "regions",
        "ADDRESS" => "gpus",
        "LIST" => "columns",
        "STATE" => "states",
        "CODE" => "rules",
        "CHECK" | "CHECK|TEXT" => "checks",
        _ => return None,
    })
}

/// Whether a second value follows, which is a region.
fn has_region(arg: &Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.len() > 1)
}

/// The commands with such arguments, each with its names.
fn commands() -> Vec<(Vec<String>, Command)> {
    let mut root = command();
    // Adds the global options to each command.
    root.build();
    let all = root.get_subcommands().filter(|it| it.get_arguments().any(|arg| kind(arg).is_some()));
    let names = |it: &Command| {
        let aliases = it.get_visible_aliases().map(str::to_owned);
        std::iter::once(it.get_name().to_owned()).chain(aliases).collect()
    };
    all.map(|it| (names(it), it.clone())).collect()
}

/// The options with an argument, each with its spellings.
fn options(command: &Command) -> impl Iterator<Item = (Vec<String>, &Arg)> {
    let options = command.get_opts().filter(|option| option.get_action().takes_values());
    options.map(|option| {
        let long = option.get_long().map(|long| format!("--{long}"));
        let short = option.get_short().map(|short| format!("-{short}"));
        (long.into_iter().chain(short).collect(), option)
    })
}

/// Bash splits addresses at their colons, so the words come from the line. `@COMMANDS@` and `@KINDS@`
/// are patterns.
const BASH: &str = r#"
_egm_probe_values() {
    local line="${COMP_LINE:0:COMP_POINT}" word words command kind="" lead
    word="${line##*[[:space:]]}"
    # Without -r, since a backslash may escape a space.
    read -a words <<<"${line%"$word"}"
    if [[ $word == --*=* ]]; then
        words+=("${word%%=*}")
        word="${word#*=}"
    fi
    for command in "${words[@]}"; do
        case "$command" in
            @COMMANDS@) break ;;
        esac
    done
    case "$command ${words[*]: -2}" in
@KINDS@    esac
    if [[ -n $kind && $word != -* && " ${words[*]} " != *" -- "* ]]; then
        # In a list, the last value.
        lead="${word%"${word##*[,+]}"}"
        COMPREPLY=($(compgen -P "$lead" -W "$(egm-probe complete-values "$kind" -- "${words[@]}" 2>/dev/null)" -- "${word#"$lead"}"))
        # Readline replaces only the part after the last colon.
        lead="${word%"$2"}"
        COMPREPLY=("${COMPREPLY[@]#"$lead"}")
        [[ -z ${COMPREPLY[*]} ]] || return 0
    fi
    _egm__probe "$@"
}

"#;

fn bash(script: &str) -> String {
    let (mut every, mut kinds) = (Vec::new(), String::new());
    let mut case = |patterns: Vec<String>, kind: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(kinds, "        {}) kind={kind} ;;", patterns.join("|"));
    };
    for (names, command) in commands() {
        let patterns = |end: &str| -> Vec<_> {
            names.iter().map(|name| format!("\"{name} \"{end}")).collect()
        };
        // An option with other values comes before the positional ones.
        let mut others = Vec::new();
        for (words, option) in options(&command) {
            let after: Vec<_> =
                words.iter().flat_map(|word| patterns(&format!("*\" {word}\""))).collect();
            match kind(option) {
                Some(kind) => case(after, kind),
                None => others.extend(after),
            }
            if has_region(option) {
                case(
                    words.iter().flat_map(|word| patterns(&format!("\"{word} \"*"))).collect(),
                    "regions",
                );
            }
        }
        for positional in command.get_positionals().filter_map(kind) {
            case(mem::take(&mut others), "");
            case(patterns("*"), positional);
        }
        every.extend(names);
    }
    let function = BASH.replace("@COMMANDS@", &every.join("|")).replace("@KINDS@", &kinds);
    // For a program with a hyphen in its name, clap_complete 4.6 defines other command names than it
    // looks up.
    let script = script.replace("egm__subcmd__probe__", "egm__probe__");
    let script = script.replace("complete -F _egm__probe ", "complete -F _egm_probe_values ");
    script.replacen(
        "\nif [[ \"${BASH_VERSINFO[0]}\" -eq 4",
        &format!("{function}if [[ \"${{BASH_VERSINFO[0]}}\" -eq 4"),
        1,
    )
}

const FISH: &str = "
function __fish_egm_probe_values
    egm-probe complete-values $argv[1] -- (commandline -opc) 2>/dev/null
end

";

/// Additional lines, which fish merges with those of the same option.
fn fish() -> String {
    let mut lines = String::from(FISH);
    let mut line = |condition: &str, what: &str, kind: &str| {
        let values = format!("(__fish_complete_list , '__fish_egm_probe_values {kind}')");
        let _ = writeln!(
            lines,
            "complete -c egm-probe -n \"__fish_egm_probe_using_subcommand {condition}\" {what} -a \"{values}\""
        );
    };
    for (names, command) in commands() {
        let names = names.join(" ");
        for (words, option) in options(&command) {
            let Some(kind) = kind(option) else { continue };
            let spellings = words.iter().map(|word| match word.strip_prefix("--") {
                Some(long) => format!("-l {long} "),
                None => format!("-s {} ", word.trim_start_matches('-')),
            });
            line(&names, &(spellings.collect::<String>() + "-x"), kind);
            if has_region(option) {
                let second =
                    format!("{names}; and contains -- (commandline -opc)[-2] {}", words.join(" "));
                line(&second, "-f", "regions");
            }
        }
        for kind in command.get_positionals().filter_map(kind) {
            line(&format!("{names}; and not contains -- -- (commandline -opc)"), "-f", kind);
        }
    }
    lines
}

const ZSH: &str = r#"
_egm-probe-values() {
    local -a values=(${(f)"$(egm-probe complete-values ${@[-1]} -- ${(Q)all_words} 2>/dev/null)"})
    compset -P '*[,+]'
    compadd "${@[1,-2]}" -a values
}
"#;

fn zsh(script: &str) -> String {
    let mut script = script.to_owned();
    for (_, command) in commands() {
        for arg in command.get_arguments() {
            let Some(kind) = kind(arg) else { continue };
            let action = format!("_egm-probe-values {kind}'");
            if arg.is_positional() {
                let start = format!("'*::{} -- ", arg.get_id());
                let replace = |line: &str| match line.strip_suffix("_default' \\") {
                    Some(line) if line.starts_with(&start) => format!("{line}{action} \\\n"),
                    _ => format!("{line}\n"),
                };
                script = script.lines().map(replace).collect();
            }
            let names = arg.get_value_names().unwrap_or_default();
            let Some(name) = names.first() else { continue };
            if has_region(arg) {
                let two =
                    format!(":{name}:_egm-probe-values {kind}:REGION:_egm-probe-values regions'");
                script = script.replace(&format!(":{name}:_default:{name}:_default'"), &two);
            }
            script = script.replace(&format!(":{name}:_default'"), &format!(":{name}:{action}"));
        }
    }
    // The script removes the words before a command from those that it completes.
    let start = "\n_egm-probe() {\n";
    let script = script.replacen(start, &format!("{start}    local -a all_words=($words)\n"), 1);
    script.replacen("\nif [ \"$funcstack", &format!("{ZSH}\nif [ \"$funcstack"), 1)
}
