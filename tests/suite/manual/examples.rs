//! The examples of the pages: `$` with the output on a GB200 where vm1 has a region, and with an
//! invalid definition, `vm1.xml`; `#` for root, without output.

use std::fmt::Write;
use std::fs;

use super::options::program;
use super::page::Page;
use super::roff::{literal, plain};
use crate::examples::Bin;
use crate::support;

const BEGIN: &str = ".EX\n";
const END: &str = ".EE\n";

/// The page with the current output of its examples, and the number of examples with output.
pub(super) fn run_anew(page: &Page) -> (String, usize) {
    let mut text = String::new();
    let mut shown = 0;
    let mut rest = &*page.source;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (example, after) = after.split_once(END).unwrap();
        write!(text, "{before}{BEGIN}").unwrap();
        if example.starts_with("$ ") {
            text.push_str(&printed(example).unwrap_or_else(|| example.to_owned()));
            shown += 1;
        } else {
            text.push_str(example);
        }
        text.push_str(END);
        rest = after;
    }
    (text + rest, shown)
}

/// The command lines of an example, each with its continuation lines.
pub(super) fn commands(example: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    let prompt = &example[..2];
    for line in example.lines() {
        let seen = plain(line);
        if goes_on {
            let last = commands.last_mut().unwrap();
            *last = format!("{}{}", last.trim_end_matches('\\'), seen.trim());
        } else if prompt == "$ " && !commands.is_empty() {
            // Output may begin like a command.
            break;
        } else if let Some(command) = seen.strip_prefix(prompt) {
            commands.push(command.to_owned());
        } else {
            continue;
        }
        goes_on = seen.ends_with('\\');
    }
    commands
}

/// The examples of a page.
pub(super) fn examples(page: &Page) -> Vec<&str> {
    let examples = page.source.split(BEGIN).skip(1);
    examples.map(|example| example.split_once(END).unwrap().0).collect()
}

/// An example with the current output of its only command; `None` if it cannot be run.
fn printed(example: &str) -> Option<String> {
    let commands = commands(example);
    let command = commands.first().unwrap();
    if command.contains("jq ") && !support::has(&["jq"]) {
        return None;
    }
    let bin = Bin::of("claims-vm");
    let folder = tempfile::tempdir().unwrap();
    let bad = "domains/bad/gb200-full-gpu-list/cell-too-large.xml";
    fs::copy(support::fixtures().join(bad), folder.path().join("vm1.xml")).unwrap();
    let script = format!("cd '{}' && {{ {command}; }} 2>&1", folder.path().display());
    let output = bin.run("sh", &["-c", &script]);
    // Messages of the command are part of the output.
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = example.split_inclusive('\n');
    let mut continued = true;
    let mut text: String = lines
        .take_while(|line| {
            std::mem::replace(&mut continued, plain(line.trim_end()).ends_with('\\'))
        })
        .collect();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        // Notes depend on whether libvirt is installed.
        if !line.starts_with("egm-probe: note") {
            writeln!(text, "{}", literal(line)).unwrap();
        }
    }
    Some(text)
}

/// Checks the command lines of the program in an example, and counts them.
pub(super) fn check_usage(page: &str, example: &str) -> usize {
    let mut called = 0;
    for command in commands(example) {
        for call in command.split("egm-probe ").skip(1) {
            // Shell operators end the command line.
            let end = [" 2>&1", " | ", " > ", " && ", " || ", ") ", ")\"", "; "]
                .iter()
                .filter_map(|end| call.find(end))
                .min();
            let call =
                call[..end.unwrap_or(call.len())].trim_end_matches(')').replace(['\'', '"'], "");
            let args = std::iter::once("egm-probe").chain(call.split_whitespace());
            let parsed = program().try_get_matches_from(args);
            assert!(parsed.is_ok(), "{page}: {command}\n{}", parsed.unwrap_err());
            called += 1;
        }
    }
    called
}
