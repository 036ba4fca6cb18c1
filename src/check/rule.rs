//! A rule, and the severity of a violation.

use crate::values::named;

named! {
    /// The severity of a violation.
    #[non_exhaustive]
    pub enum Severity {
        /// Unsupported only by the examined libvirt, or an allowed finding.
        Note = "note",
        /// Against policy, or may fail.
        Warning = "warning",
        /// libvirt or QEMU refuses it, or the virtual machine gets wrong memory.
        Error = "error",
    }
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Its code, `EGM001`, which is never reused.
    pub code: &'static str,
    /// The severity of a violation.
    pub severity: Severity,
    /// The requirement, in one line.
    pub title: &'static str,
    /// The reason.
    pub explanation: &'static str,
    /// The origin of the rule.
    pub source: &'static str,
}
