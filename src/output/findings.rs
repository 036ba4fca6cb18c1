//! Findings in domains: as text, with the place shown as compilers do, and as JSON.

use std::io::{self, Write};

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::json;
use crate::check::{Finding, Rule, Severity};
use crate::domain::{Dialect, lines_and_columns};
use crate::report::Report;
use crate::values::text::{is_plain, printable};

/// A file and its findings.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Its name.
    pub(crate) file: String,
    /// Its text; empty if it could not be read.
    pub(crate) text: String,
    /// The findings, or the error.
    pub(crate) result: Result<Vec<Finding>, String>,
    /// The number of its EGM devices; `None` if it could not be read.
    pub(crate) devices: Option<usize>,
    /// The number of findings below the requested severity.
    pub(crate) hidden: usize,
    /// The severity of the worst finding, shown or not.
    pub(crate) worst: Option<Severity>,
}

impl Checked {
    /// The findings, each with its line and column.
    pub(crate) fn with_places(&self) -> Vec<(&Finding, (u32, u32))> {
        let findings = self.result.as_deref().unwrap_or_default();
        let places = lines_and_columns(&self.text, findings.iter().map(|it| it.span.start));
        findings.iter().zip(places).collect()
    }
}

/// How many characters of a line are shown before and after the place.
const AROUND: usize = 120;

/// Writes one finding with its place.
pub(crate) fn write_text(
    out: &mut dyn Write,
    file: &str,
    text: &str,
    (finding, place): (&Finding, (u32, u32)),
    color: bool,
) -> io::Result<()> {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let excerpt = Excerpt::of(text, finding, place);
    let file = printable(file);
    let place = format!("{file}:{}:{}", place.0, place.1);
    let message = printable(&finding.message);
    let help = finding.help.as_deref().map(printable);
    let mut snippet = Snippet::source(excerpt.source.as_str())
        .line_start(usize::try_from(excerpt.line).unwrap_or(usize::MAX))
        .annotation(AnnotationKind::Primary.span(excerpt.start..excerpt.end));
    let title = level.primary_title(message.as_str()).id(finding.rule.code);
    let mut group = if excerpt.is_cut {
        title.element(Origin::path(place.as_str()))
    } else {
        // The snippet computes line and column from the excerpt.
        snippet = snippet.path(file.as_str());
        title.elements(None::<Origin<'_>>)
    };
    group = group.element(snippet);
    if let Some(help) = &help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    writeln!(out, "{}\n", renderer.term_width(140).render(&[group]))
}

/// The line of a finding, shortened if it is long, with the place marked.
struct Excerpt {
    source: String,
    start: usize,
    end: usize,
    line: u32,
    /// Whether the part before the place is shortened.
    is_cut: bool,
}

impl Excerpt {
    fn of(text: &str, finding: &Finding, (line, column): (u32, u32)) -> Self {
        let before = text.get(..finding.span.start).unwrap_or_default();
        let behind = text.get(finding.span.start..).unwrap_or_default();
        // Look back only as far as shown.
        let far = before.char_indices().rev().nth(2 * AROUND).map_or(0, |(at, _)| at);
        let before = before.get(far..).unwrap_or_default();
        let before = before.rsplit('\n').next().unwrap_or_default();
        let behind = behind
            .char_indices()
            .nth(2 * AROUND)
            .map_or(behind, |(at, _)| behind.get(..at).unwrap_or(behind));
        let behind = behind.split(['\r', '\n']).next().unwrap_or_default();
        let length = finding.span.len().min(behind.len());
        let (marked, behind) = behind.split_at_checked(length).unwrap_or((behind, ""));
        let skipped = before.char_indices().rev().nth(AROUND).map_or(0, |(at, _)| at);
        let before = before.get(skipped..).unwrap_or_default();
        // Replace terminal controls, with one column per character.
        let plain = |text: &str, length: usize| -> String {
            let plain = |c: char| if is_plain(c) { c } else { ' ' };
            text.chars().take(length).map(plain).collect()
        };
        let (before, marked) = (plain(before, AROUND + 1), plain(marked, AROUND));
        let (start, end) = (before.len(), before.len() + marked.len());
        let source = before + &marked + &plain(behind, AROUND);
        let is_cut = usize::try_from(column).is_ok_and(|column| column > AROUND);
        Self { source, start, end, line, is_cut }
    }
}

/// Writes a rule with its explanation.
pub(crate) fn write_explanation(out: &mut dyn Write, rule: &Rule) -> io::Result<()> {
    writeln!(out, "{} ({}): {}\n", rule.code, rule.severity.name(), rule.title)?;
    writeln!(out, "{}\n\nSource: {}", rule.explanation, rule.source)
}

/// Writes all rules, one per line.
pub(crate) fn write_rules(out: &mut dyn Write, rules: &[Rule]) -> io::Result<()> {
    for rule in rules {
        writeln!(out, "{}  {:7}  {}", rule.code, rule.severity.name(), rule.title)?;
    }
    Ok(())
}

/// Writes `egm-probe.validate/1`.
pub(crate) fn write_json(
    out: &mut dyn Write,
    dialect: Dialect,
    schema_version: Option<&str>,
    files: &[Checked],
    report: Option<&Report>,
    notes: &[String],
) -> io::Result<()> {
    let warnings = report.into_iter().flat_map(Report::warnings).map(ToString::to_string);
    let document = Document {
        schema: "egm-probe.validate/1",
        dialect,
        schema_version,
        host: report.is_some(),
        files: files.iter().map(FileEntry::new).collect(),
        warnings: notes.iter().cloned().chain(warnings).collect(),
    };
    json::write(out, &document)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    dialect: Dialect,
    schema_version: Option<&'a str>,
    host: bool,
    files: Vec<FileEntry<'a>>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct FileEntry<'a> {
    file: &'a str,
    egm_devices: Option<usize>,
    findings: Option<Vec<FindingEntry<'a>>>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct FindingEntry<'a> {
    code: &'static str,
    severity: Severity,
    line: u32,
    column: u32,
    message: &'a str,
    help: Option<&'a str>,
    allowed: bool,
}

impl<'a> FileEntry<'a> {
    fn new(checked: &'a Checked) -> Self {
        let entry = |(finding, (line, column)): (&'a Finding, (u32, u32))| FindingEntry {
            code: finding.rule.code,
            severity: finding.severity,
            allowed: finding.allowed,
            line,
            column,
            message: &finding.message,
            help: finding.help.as_deref(),
        };
        let (findings, error) = match &checked.result {
            Ok(_) => (Some(checked.with_places().into_iter().map(entry).collect()), None),
            Err(error) => (None, Some(error.as_str())),
        };
        Self { file: &checked.file, egm_devices: checked.devices, findings, error }
    }
}
