//! Known error messages, with their causes and remedies.

use std::io::{self, Write};

use crate::check::RULES;
use crate::doctor::CHECKS;
use crate::doctor::errors::KnownError;

/// Writes an error message, what causes it, the checks and rules that find the cause, and a remedy.
pub(crate) fn write(out: &mut dyn Write, error: &KnownError) -> io::Result<()> {
    let mut label = error.printer;
    for text in error.texts {
        writeln!(out, "{label:<9}{text}")?;
        label = "";
    }
    writeln!(out, "cause    {}", error.cause)?;
    let mut label = "see";
    for code in error.codes {
        if let Some(check) = CHECKS.iter().find(|check| check.code == *code) {
            writeln!(out, "{label:<9}{code}: checking {}", check.title)?;
        } else if let Some(rule) = RULES.iter().find(|rule| rule.code == *code) {
            writeln!(out, "{label:<9}{code}: {}", rule.title)?;
        }
        label = "";
    }
    writeln!(out, "remedy   {}", error.remedy)
}
