//! The whole way from the firmware to QEMU, checked step by step.
//!
//! Checks form a tree: where one fails, those that depend on it are skipped. Each is a function of
//! facts that were read before; none of them changes anything.

mod access;
mod checks;
mod config;
mod confinement;
mod devices;
mod domains;
mod facts;
mod load;
mod software;
mod user;

use std::path::PathBuf;

use serde::Serialize;

use crate::host::Needs;
use crate::sysroot::Sysroot;
use crate::values::named;
pub use checks::CHECKS;
use facts::Facts;

named! {
    /// How a check ended.
    #[non_exhaustive]
    pub enum Verdict {
        /// All is as it should be.
        Pass = "pass",
        /// It may do, or only for now.
        Warn = "warn",
        /// A virtual machine with EGM will not start, or not get its memory.
        Fail = "fail",
        /// Not looked at: what it depends on failed, or it cannot be known here.
        Skip = "skip",
    }
}

/// One check.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Check {
    /// Its name, `D01`: never given to another check.
    pub code: &'static str,
    /// What is checked, as it goes on after "Checking".
    pub title: &'static str,
    /// The check without which this one says nothing.
    pub parent: Option<&'static str>,
    /// Why it matters.
    pub explanation: &'static str,
    run: fn(&Facts<'_>) -> Outcome,
    /// The remedies, each with its commands, unless the check names others.
    remedies: &'static [(&'static str, &'static [&'static str])],
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// What was found; always there where the verdict is not [`Verdict::Pass`].
    pub message: Option<String>,
    /// What to do.
    pub hints: Vec<Hint>,
}

/// Something that can be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Hint {
    /// In words.
    pub text: String,
    /// Lines for a shell of root's; none where nothing can be pasted.
    pub commands: Vec<String>,
    /// Whether they are for somebody who looks: they show something, ask, or interrupt what runs.
    pub by_hand: bool,
}

/// A check and what it found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Examined {
    /// The check.
    pub check: &'static Check,
    /// What it found.
    pub outcome: Outcome,
}

/// What is installed on this machine, as far as it was asked. It is never asked for another host:
/// neither libvirt nor QEMU come from below its root.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Installed {
    /// QEMU; `None` where it was not asked.
    pub qemu: Option<Qemu>,
    /// libvirt's schema; `None` if it was not looked for.
    pub schema: Option<LibvirtSchema>,
}

/// The QEMU that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Qemu {
    /// None for this architecture.
    Missing,
    /// It does not answer.
    Silent(String),
    /// It has told which objects it can make.
    Answered {
        /// Its path.
        program: PathBuf,
        /// Whether `acpi-egm-memory` is one of them.
        knows_egm: bool,
    },
}

/// The schema of the installed libvirt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LibvirtSchema {
    /// There is none in this directory.
    Missing(PathBuf),
    /// It cannot be read.
    Unreadable(String),
    /// It was read.
    Read {
        /// Its directory.
        directory: PathBuf,
        /// Whether memory may be of the model `egm`.
        knows_egm: bool,
    },
}

/// What the checks look at.
const NEEDS: Needs =
    Needs::OTHER_GPUS.union(Needs::CLAIMS).union(Needs::DEVICE_NODE).union(Needs::GPU_DETAILS);

/// Makes all checks, in order: a check comes after the one that it depends on. Without `occupancy`
/// nobody looks for who holds the regions and what is defined with them.
///
/// ```
/// use egm_probe::doctor::{Installed, Verdict, examine};
/// use egm_probe::sysroot::Sysroot;
///
/// let root = Sysroot::from_tar(&include_bytes!("../../tests/fixtures/no-egm/host.tar.gz")[..])?;
/// let examined = examine(&root, Installed::default(), true);
/// assert_eq!(examined[0].outcome.verdict, Verdict::Fail);
/// assert!(examined[1..].iter().all(|it| it.outcome.verdict == Verdict::Skip));
/// # Ok::<(), egm_probe::sysroot::OpenError>(())
/// ```
#[must_use]
pub fn examine(root: &Sysroot, installed: Installed, occupancy: bool) -> Vec<Examined> {
    let mut needs = NEEDS;
    needs.set(Needs::CLAIMS, occupancy);
    let facts = Facts::read(root, needs, installed);
    let mut examined: Vec<Examined> = Vec::with_capacity(CHECKS.len());
    for check in CHECKS {
        let before = check
            .parent
            .and_then(|parent| examined.iter().find(|before| before.check.code == parent));
        let outcome = match before.map(|before| (before.check.code, &before.outcome)) {
            Some((code, Outcome { verdict: Verdict::Fail, .. })) => {
                Outcome::skip(format!("{code} failed"))
            }
            // What made that one be skipped is why this one is.
            Some((_, Outcome { verdict: Verdict::Skip, message, .. })) => {
                Outcome::skip(message.clone().unwrap_or_default())
            }
            _ => check.make(&facts),
        };
        examined.push(Examined { check, outcome });
    }
    examined
}

impl Check {
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

/// Whether no check failed.
#[must_use]
pub fn is_healthy(examined: &[Examined]) -> bool {
    examined.iter().all(|it| it.outcome.verdict != Verdict::Fail)
}

/// The first of several problems, and how many there are besides.
fn first_of(problems: &[String]) -> String {
    let first = problems.first().map_or("", String::as_str);
    match problems.len() {
        0 | 1 => first.to_owned(),
        more => format!("{first}; and {} more", more - 1),
    }
}

impl Outcome {
    fn pass() -> Self {
        Self { verdict: Verdict::Pass, message: None, hints: Vec::new() }
    }

    /// Passed, and worth a word.
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

    /// Adds a remedy in words.
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

    /// The same for commands that show something, ask, or interrupt running programs.
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
    fn a_check_comes_after_the_one_that_it_depends_on() {
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
