//! The results of the checks of a host: as text like that of virt-host-validate, as JSON, and as a
//! plan of fixes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde::Serialize;

use super::{GREEN, RED, YELLOW, json, painted};
use crate::doctor::{Check, Consumer, Examination, Examined, Hint, Verdict};
use crate::values::text::printable;

/// Writes a line for each check, followed by its suggested fixes. Checks that were skipped because
/// another one failed share a line.
pub(crate) fn write(out: &mut dyn Write, examination: &Examination, color: bool) -> io::Result<()> {
    let Examination { consumer, is_detected, is_also_kubernetes, examined, .. } = examination;
    let is_over = |it: &Examined| it.check.parent.is_none() && it.outcome.verdict == Verdict::Fail;
    // If the host has no EGM, nothing else is of interest.
    let is_over = examined.first().is_some_and(is_over);
    if !is_over {
        let detected = match (is_detected, is_also_kubernetes) {
            (true, true) => " (detected; for KubeVirt, add --consumer kubernetes)",
            (true, false) => " (detected)",
            (false, _) => "",
        };
        writeln!(
            out,
            "{:>6}: Virtual machines started by {}{detected}",
            "EGM",
            in_words(*consumer)
        )?;
    }
    for Examined { check, outcome, blocked_by, .. } in examined {
        if blocked_by.is_some() {
            continue;
        }
        let verdict = painted(&in_capitals(outcome.verdict), color_of(outcome.verdict), color);
        write!(out, "{:>6}: Checking {:<60}: {verdict}", "EGM", check.title)?;
        match (&outcome.message, outcome.verdict) {
            (None, _) => writeln!(out)?,
            (Some(message), Verdict::Pass) => writeln!(out, " ({message})")?,
            (Some(message), _) => writeln!(out, " ({}: {message})", check.code)?,
        }
        for Hint { text, commands, .. } in &outcome.hints {
            writeln!(out, "        {text}{}", if commands.is_empty() { "" } else { ":" })?;
            for command in commands {
                writeln!(out, "            {command}")?;
            }
        }
    }
    let mut blocked: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Examined { check, blocked_by, .. } in examined.iter().filter(|_| !is_over) {
        if let Some(by) = blocked_by {
            blocked.entry(by).or_default().push(check.code);
        }
    }
    for (by, codes) in blocked {
        writeln!(out, "{:>6}: Not checked, because {by} failed: {}", "EGM", codes.join(", "))?;
    }
    Ok(())
}

fn in_words(consumer: Consumer) -> &'static str {
    match consumer {
        Consumer::Libvirt => "libvirt",
        Consumer::Kubernetes => "KubeVirt",
        Consumer::Kata => "Kata Containers",
        Consumer::Qemu => "QEMU without libvirt",
    }
}

const BLUE: u8 = 34;

fn in_capitals(verdict: Verdict) -> String {
    verdict.name().to_uppercase()
}

/// The colours of virt-host-validate.
fn color_of(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => GREEN,
        Verdict::Warn => YELLOW,
        Verdict::Fail => RED,
        Verdict::Skip | Verdict::Note => BLUE,
    }
}

/// Writes a script of all suggested fixes, to be reviewed before it is run. Each command occurs only
/// once.
pub(crate) fn write_plan(out: &mut dyn Write, examined: &[Examined]) -> io::Result<()> {
    writeln!(out, "#!/bin/sh")?;
    writeln!(
        out,
        "# Fixes suggested by `egm-probe doctor`; review them, then run as root. Commands that\n\
         # only print information, prompt, or would interrupt running workloads are\n\
         # commented out."
    )?;
    let mut written = BTreeSet::new();
    for Examined { check, outcome, .. } in examined {
        let is_wrong = matches!(outcome.verdict, Verdict::Warn | Verdict::Fail);
        let Some(message) = outcome.message.as_ref().filter(|_| is_wrong) else { continue };
        writeln!(out, "\n# {} {}: {}", check.code, check.title, in_capitals(outcome.verdict))?;
        writeln!(out, "# {}", printable(message))?;
        for Hint { text, commands, by_hand, .. } in &outcome.hints {
            writeln!(out, "# {}", printable(text))?;
            for command in commands {
                // Escaped, so that it stays on one line.
                let command = printable(command);
                let is_first = *by_hand || written.insert(command.clone());
                let comment = match (*by_hand, is_first) {
                    (true, _) => "# ",
                    (false, true) => "",
                    (false, false) => "# see above: ",
                };
                writeln!(out, "{comment}{command}")?;
            }
        }
    }
    Ok(())
}

/// Writes the explanation of a check.
pub(crate) fn write_explanation(out: &mut dyn Write, check: &Check) -> io::Result<()> {
    writeln!(out, "{}: checking {}\n\n{}", check.code, check.title, check.explanation)?;
    if let Some(parent) = check.parent {
        writeln!(out, "\nSkipped if {parent} fails.")?;
    }
    Ok(())
}

/// Writes all checks, one per line.
pub(crate) fn write_checks(out: &mut dyn Write, checks: &[Check]) -> io::Result<()> {
    for check in checks {
        writeln!(out, "{}  {:<4} {}", check.code, check.parent.unwrap_or("-"), check.title)?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    consumer: Consumer,
    /// Nothing failed.
    healthy: bool,
    checks: Vec<Entry<'a>>,
    warnings: [&'static str; 0],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    title: &'static str,
    parent: Option<&'static str>,
    verdict: Verdict,
    message: Option<&'a str>,
    allowed: bool,
    hints: &'a [Hint],
}

/// Writes `egm-probe.doctor/1`.
pub(crate) fn write_json<'a>(out: &mut dyn Write, examination: &'a Examination) -> io::Result<()> {
    let entry = |Examined { check, outcome, .. }: &'a Examined| Entry {
        code: check.code,
        title: check.title,
        parent: check.parent,
        verdict: outcome.verdict,
        message: outcome.message.as_deref(),
        allowed: outcome.allowed,
        hints: &outcome.hints,
    };
    let checks = examination.examined.iter().map(entry).collect();
    let (consumer, healthy) = (examination.consumer, examination.is_healthy());
    let schema = "egm-probe.doctor/1";
    json::write(out, &Document { schema, consumer, healthy, checks, warnings: [] })
}
