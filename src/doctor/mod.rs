//! Checks everything from the firmware to QEMU, step by step.
//!
//! The checks form a tree: if one fails, its dependents are skipped. Each check is a function of
//! facts that were read before, and changes nothing.

mod access;
mod checks;
mod config;
mod confinement;
mod consumer;
mod devices;
mod domains;
pub mod errors;
mod facts;
mod kata;
mod kubernetes;
mod load;
mod platform;
pub(crate) mod recording;
mod software;
mod user;

use std::path::PathBuf;

use serde::Serialize;

use crate::host::{Accounts, Needs};
use crate::report::Report;
use crate::sysroot::Sysroot;
use crate::values::named;
pub use checks::CHECKS;
pub use consumer::Consumer;
use facts::Facts;

named! {
    /// The result of a check.
    #[non_exhaustive]
    pub enum Verdict {
        /// No problem was found.
        Pass = "pass",
        /// It may work, or may stop working, for example after a reboot.
        Warn = "warn",
        /// A virtual machine with EGM will not start, or not get its memory.
        Fail = "fail",
        /// Worth knowing, but no problem; or a problem that was allowed.
        Note = "note",
        /// Not checked: a check that it depends on failed, or the result cannot be known here.
        Skip = "skip",
    }
}

/// One check.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Check {
    /// Its code, such as `D01`, which is never reused.
    pub code: &'static str,
    /// The subject, as a continuation of "Checking".
    pub title: &'static str,
    /// The check that it depends on.
    pub parent: Option<&'static str>,
    /// The consumers that it concerns.
    pub consumers: &'static [Consumer],
    /// The reason why it matters.
    pub explanation: &'static str,
    run: fn(&Facts<'_>) -> Outcome,
    /// Remedies with their commands, used unless the check returns others.
    remedies: &'static [(&'static str, &'static [&'static str])],
}

/// The findings of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The finding; always present unless the verdict is [`Verdict::Pass`].
    pub message: Option<String>,
    /// Suggested fixes.
    pub hints: Vec<Hint>,
    /// Whether the user allowed it, which makes it a note.
    pub allowed: bool,
}

/// A suggested fix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Hint {
    /// A description.
    pub text: String,
    /// Commands for a root shell; empty if there are none.
    pub commands: Vec<String>,
    /// Whether they are to be run manually: they print information, prompt, or interrupt running
    /// programs.
    pub by_hand: bool,
}

/// A check and its findings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Examined {
    /// The check.
    pub check: &'static Check,
    /// Its findings.
    pub outcome: Outcome,
    /// The failed check that it depends on, which is the reason why it was skipped.
    pub blocked_by: Option<&'static str>,
}

/// The findings of all checks for one consumer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Examination {
    /// The consumer.
    pub consumer: Consumer,
    /// Whether it was detected instead of being given.
    pub is_detected: bool,
    /// Whether the host is also a node of Kubernetes, which was not selected.
    pub is_also_kubernetes: bool,
    /// Its checks, in order of execution: a check follows the one it depends on.
    pub examined: Vec<Examined>,
}

/// Options of [`examine`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Examine<'a> {
    /// The consumer; it is detected if `None`.
    pub consumer: Option<Consumer>,
    /// The installed software.
    pub installed: Installed,
    /// Whether to leave out the holders of the regions and the defined domains.
    pub no_occupancy: bool,
    /// Codes of checks and rules whose findings are notes; the checks that depend on them are made
    /// as before.
    pub allow: &'a [&'a str],
}

/// Software installed on this machine. It is unknown for another host: libvirt and QEMU are not run
/// from below its root.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Installed {
    /// QEMU; `None` if it was not checked.
    pub qemu: Option<Qemu>,
    /// libvirt's schema; `None` if it was not checked.
    pub schema: Option<LibvirtSchema>,
}

/// The installed QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Qemu {
    /// Not installed for this architecture.
    Missing,
    /// It does not respond.
    Silent(String),
    /// It listed its objects.
    Answered {
        /// Its path.
        program: PathBuf,
        /// Whether `acpi-egm-memory` is supported.
        knows_egm: bool,
        /// The version that it prints, `10.1.0 (Debian 1:10.1.0+nvidia5-1)`; `None` if unknown.
        version: Option<String>,
    },
}

/// The schema of the installed libvirt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LibvirtSchema {
    /// This directory contains no schema.
    Missing(PathBuf),
    /// It cannot be read.
    Unreadable(String),
    /// It was read.
    Read {
        /// Its directory.
        directory: PathBuf,
        /// Whether the memory model `egm` is supported.
        knows_egm: bool,
    },
}

/// The parts of a host that the checks need.
const NEEDS: Needs = Needs::OTHER_GPUS
    .union(Needs::CLAIMS)
    .union(Needs::DEVICE_NODE)
    .union(Needs::IOMMUFD)
    .union(Needs::GPU_DETAILS);

/// Runs the checks of a consumer in order.
///
/// ```
/// use egm_probe::doctor::{Examine, Verdict, examine};
/// use egm_probe::sysroot::Sysroot;
///
/// let root = Sysroot::capture("tests/fixtures/no-egm".as_ref())?;
/// let examined = examine(&root, Examine::default()).examined;
/// assert_eq!(examined[0].outcome.verdict, Verdict::Fail);
/// assert!(examined[1..].iter().all(|it| it.outcome.verdict == Verdict::Skip));
/// # Ok::<(), egm_probe::sysroot::OpenError>(())
/// ```
#[must_use]
pub fn examine(root: &Sysroot, what: Examine<'_>) -> Examination {
    let Examine { consumer: given, installed, no_occupancy, allow } = what;
    let mut needs = NEEDS;
    needs.set(Needs::CLAIMS, !no_occupancy);
    let accounts = Accounts::of(root);
    let report = Report::read_with(root, needs, &accounts);
    let consumer = given.unwrap_or_else(|| Consumer::detect(root, &accounts, &installed));
    let facts = Facts::read(root, &report, &accounts, consumer, installed, !no_occupancy, allow);
    let mut examined: Vec<Examined> = Vec::with_capacity(CHECKS.len());
    for check in CHECKS.iter().filter(|check| check.consumers.contains(&consumer)) {
        let before = check.listed_parent(&examined);
        let blocked_by = match before.map(|before| (before, before.outcome.verdict)) {
            Some((before, Verdict::Fail)) => Some(before.check.code),
            Some((before, _)) => before.blocked_by,
            None => None,
        };
        let outcome = match (blocked_by, before.map(|before| &before.outcome)) {
            (Some(code), _) => Outcome::skip(format!("{code} failed")),
            // The reason is the same as for that check.
            (None, Some(Outcome { verdict: Verdict::Skip, message, .. })) => {
                Outcome::skip(message.clone().unwrap_or_default())
            }
            _ => check.make(&facts),
        };
        examined.push(Examined { check, outcome, blocked_by });
    }
    for Examined { check, outcome, .. } in &mut examined {
        if allow.contains(&check.code) {
            outcome.allow();
        }
    }
    // Kata Containers are a part of Kubernetes.
    let is_also_kubernetes =
        matches!(consumer, Consumer::Libvirt | Consumer::Qemu) && Consumer::has_kubernetes(root);
    Examination { consumer, is_detected: given.is_none(), is_also_kubernetes, examined }
}

impl Check {
    /// The nearest check that it depends on which concerns the same consumer.
    fn listed_parent<'a>(&self, examined: &'a [Examined]) -> Option<&'a Examined> {
        let mut parent = self.parent;
        while let Some(code) = parent {
            if let Some(found) = examined.iter().find(|it| it.check.code == code) {
                return Some(found);
            }
            parent = CHECKS.iter().find(|check| check.code == code)?.parent;
        }
        None
    }

    fn make(&self, facts: &Facts<'_>) -> Outcome {
        let outcome = (self.run)(facts);
        let is_wrong = matches!(outcome.verdict, Verdict::Warn | Verdict::Fail);
        if !is_wrong || !outcome.hints.is_empty() {
            return outcome;
        }
        let add = |outcome: Outcome, (text, commands): &(&str, &[&str])| {
            outcome.fix(*text, commands.iter().copied())
        };
        self.remedies.iter().fold(outcome, add)
    }
}

impl Examination {
    /// Whether no check failed.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.examined.iter().all(|it| it.outcome.verdict != Verdict::Fail)
    }
}

/// The first problem, and the number of further ones.
fn first_of(problems: &[String]) -> String {
    let first = problems.first().map_or("", String::as_str);
    match problems.len() {
        0 | 1 => first.to_owned(),
        more => format!("{first}; and {} more", more - 1),
    }
}

impl Outcome {
    fn pass() -> Self {
        Self { verdict: Verdict::Pass, message: None, hints: Vec::new(), allowed: false }
    }

    /// Passed, with a note.
    fn passed(message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..Self::pass() }
    }

    fn warn(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, ..Self::passed(message) }
    }

    fn fail(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, ..Self::passed(message) }
    }

    fn skip(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skip, ..Self::passed(message) }
    }

    fn note(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, ..Self::passed(message) }
    }

    /// Makes a problem a note.
    fn allow(&mut self) {
        if matches!(self.verdict, Verdict::Warn | Verdict::Fail) {
            self.verdict = Verdict::Note;
            self.allowed = true;
        }
    }

    /// Adds a remedy without commands.
    fn hint(self, text: impl Into<String>) -> Self {
        self.fix::<&str>(text, [])
    }

    /// Adds a remedy with commands that only repair.
    fn fix<C: Into<String>>(
        mut self,
        text: impl Into<String>,
        commands: impl IntoIterator<Item = C>,
    ) -> Self {
        let commands = commands.into_iter().map(Into::into).collect();
        self.hints.push(Hint { text: text.into(), commands, by_hand: false });
        self
    }

    /// Like [`Self::fix`], for commands that print information, prompt, or interrupt running
    /// programs.
    fn by_hand<C: Into<String>>(
        self,
        text: impl Into<String>,
        commands: impl IntoIterator<Item = C>,
    ) -> Self {
        let mut outcome = self.fix(text, commands);
        if let Some(hint) = outcome.hints.last_mut() {
            hint.by_hand = true;
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::CHECKS;

    #[test]
    fn a_check_follows_the_one_it_depends_on() {
        for (index, check) in CHECKS.iter().enumerate() {
            assert_eq!(check.code, format!("D{:02}", index + 1));
            assert!(check.title.chars().count() <= 60, "{}", check.title);
            let Some(parent) = check.parent else {
                assert_eq!(index, 0, "one root: {}", check.code);
                continue;
            };
            assert!(CHECKS[..index].iter().any(|before| before.code == parent), "{}", check.code);
        }
    }
}
