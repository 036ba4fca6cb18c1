//! `egm-probe validate`

use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{Global, names_code, one_of};
use super::domain_file::{DomainFile, name_of};
use super::error::Error;
use super::{Exit, Session, is_dash};
use crate::check::{
    BadSchema, CheckOptions, Finding, NEEDS, RULES, Rule, SCHEMAS, Schema, Severity, validate,
};
use crate::domain::{Dialect, Document, SourceText};
use crate::host::{Class, NotFound, no_egm};
use crate::output::findings::{self, Checked};
use crate::report::Report;
use crate::sysroot::Sysroot;
use crate::values::text::plural;

/// Checking a larger file against the schema takes seconds.
const SCHEMA_LIMIT: usize = 1 << 20;

/// How many findings are shown per file.
const SHOWN: usize = 100;

#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct ValidateArgs {
    /// Domain XML, or libvirt's status files; - is standard input
    #[arg(value_name = "FILE", required_unless_present = "explain")]
    files: Vec<PathBuf>,
    /// Skip the rules about this host
    #[arg(long)]
    no_host: bool,
    /// Check as if the domain were about to start: regions held by, or reserved for, another virtual
    /// machine, or with unknown holders, are errors
    #[arg(long, conflicts_with = "no_host")]
    start: bool,
    /// Use libvirt's schema in DIR [default: on the running host, /usr/share/libvirt/schemas]
    #[arg(long, value_name = "DIR", conflicts_with = "no_schema")]
    schema: Option<PathBuf>,
    /// Skip libvirt's schema
    #[arg(long)]
    no_schema: bool,
    /// Expect the XML spelling of this libvirt: nvidia-12.4, nvidia-11.9, upstream [default: that of
    /// the schema if it supports EGM, else nvidia-12.4]
    #[arg(long, value_name = "DIALECT")]
    libvirt: Option<Dialect>,
    /// Downgrade findings of this rule, such as EGM027, to notes
    #[arg(long, value_name = "CODE", value_parser = parse_rule)]
    allow: Vec<Rule>,
    /// Minimum severity to report
    #[arg(long, value_name = "LEVEL", default_value = "note")]
    #[arg(value_parser = one_of(Severity::ALL, Severity::name))]
    severity: Severity,
    /// Treat warnings as errors
    #[arg(long)]
    strict: bool,
    /// Print nothing; only set the exit status
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// Print JSON (egm-probe.validate/1)
    #[arg(short = 'J', long)]
    json: bool,
    /// Explain a rule, such as EGM011, and exit; "all" lists them
    #[arg(long, value_name = "CODE", exclusive = true)]
    explain: Option<String>,
}

pub(super) fn run(args: &ValidateArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    if let Some(code) = &args.explain {
        return explain(code, session.out);
    }
    let global = session.global;
    let stdins = args.files.iter().map(AsRef::as_ref).chain(global.from.as_deref());
    if stdins.filter(|path| is_dash(path)).count() > 1 {
        return Err(Error::Usage("standard input can be read only once"));
    }
    let sources: Vec<_> = args.files.iter().map(|path| read(path)).collect();
    let inputs: Vec<_> = args.files.iter().zip(&sources).map(Input::parse).collect();
    let (mut notes, mut more) = (Vec::new(), Vec::new());
    let host = host(args, global, &mut more)?;
    let report = host.as_ref().map(|(_, report)| report);
    // Freeing the schema at the end would take a tenth of the run time.
    let schema = schema(args, global, &inputs, &mut notes)?.map(ManuallyDrop::new);
    notes.append(&mut more);
    let of_schema = schema.as_ref().and_then(|schema| schema.dialect());
    let mut options = CheckOptions {
        dialect: args.libvirt.or(of_schema).unwrap_or_default(),
        report,
        root: host.as_ref().map(|(root, _)| root),
        is_starting: args.start,
        schema: schema.as_deref(),
        is_installed: args.schema.is_none(),
        allow: &args.allow,
    };
    let check = |input| check(args, input, &mut options, &mut notes);
    let files: Vec<_> = inputs.iter().map(check).collect::<Result<_, _>>()?;
    if args.json {
        let version = options.schema.and_then(Schema::version);
        findings::write_json(session.out, options.dialect, version, &files, report, &notes)?;
    } else {
        write_text(args, &files, session)?;
        session.out.flush()?;
        if !args.quiet {
            for note in &notes {
                session.note(note);
            }
            if let Some(report) = report {
                session.warn_of(report, []);
            }
        }
    }
    Ok(exit(&files, args.strict))
}

fn explain(code: &str, out: &mut dyn Write) -> Result<Exit, Error> {
    if code.eq_ignore_ascii_case("all") {
        findings::write_rules(out, RULES)?;
    } else {
        let (kind, command) = ("rule", "validate");
        let error = || Error::Unlisted { kind, command, code: code.to_owned() };
        let rule = rule(code).ok_or_else(error)?;
        findings::write_explanation(out, &rule)?;
    }
    Ok(Exit::Done)
}

/// libvirt's schema: the one given with `--schema`, or on the running host the installed one.
fn schema(
    args: &ValidateArgs,
    global: &Global,
    inputs: &[Input<'_>],
    notes: &mut Vec<String>,
) -> Result<Option<Schema>, Error> {
    let directory = match &args.schema {
        Some(directory) => directory.as_path(),
        None if args.no_schema => return Ok(None),
        None if global.is_local() => SCHEMAS.as_ref(),
        None => {
            notes.push(
                "libvirt's schema not checked: unknown for another host (use --schema)".into(),
            );
            return Ok(None);
        }
    };
    let texts = inputs.iter().filter(|input| input.has_schema()).map(|input| input.text);
    let read = Schema::read_for(directory, texts);
    read.map_or_else(|error| skip_schema(args, error, notes).map(|()| None), |it| Ok(Some(it)))
}

/// Continues without a schema, unless it was given with `--schema`.
fn skip_schema(
    args: &ValidateArgs,
    error: BadSchema,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    if args.schema.is_some() {
        return Err(error.into());
    }
    notes.push(format!("libvirt's schema not checked: {error}"));
    Ok(())
}

/// The host, unless `--no-host` is given or it has no EGM. A domain that starts must have its regions.
fn host(
    args: &ValidateArgs,
    global: &Global,
    notes: &mut Vec<String>,
) -> Result<Option<(Sysroot, Report)>, Error> {
    if args.no_host {
        return Ok(None);
    }
    let root = global.root()?;
    let report = Report::read(&root, global.wanted(NEEDS));
    let is_unreadable = report.host.class == Class::Unreadable;
    if args.start && is_unreadable {
        return Err(NotFound::no_egm(&report.host, "").into());
    }
    if report.host.regions.is_empty() && !args.start {
        notes.push(format!("host rules not checked: {}", no_egm(report.host.class)));
        if is_unreadable {
            notes.extend(report.warnings().map(ToString::to_string));
        }
        return Ok(None);
    }
    if global.no_occupancy {
        notes.push("holders not checked (--no-occupancy)".into());
    }
    Ok(Some((root, report)))
}

fn read(path: &Path) -> Result<SourceText, String> {
    DomainFile::read(path).map(|file| file.source).map_err(|error| error.to_string())
}

/// A file, and the domain in it.
struct Input<'a> {
    name: String,
    text: &'a str,
    document: Result<Document<'a>, String>,
}

impl<'a> Input<'a> {
    fn parse((path, source): (&PathBuf, &'a Result<SourceText, String>)) -> Self {
        let name = name_of(path);
        let (text, document) = match source {
            Ok(source) => {
                let document = Document::of(source);
                (source.text(), document.map_err(|error| format!("{name}:{error}")))
            }
            Err(error) => ("", Err(error.clone())),
        };
        Self { name, text, document }
    }

    /// Whether it can be checked against libvirt's schema.
    fn has_schema(&self) -> bool {
        self.schema_problem().is_none() && self.document.is_ok()
    }

    fn schema_problem(&self) -> Option<&'static str> {
        if self.text.len() > SCHEMA_LIMIT {
            return Some("too large");
        }
        let is_status = |document: &Document<'_>| document.domain().is_status;
        self.document.as_ref().is_ok_and(is_status).then_some("a status file")
    }
}

/// Checks a file, and omits findings below the minimum severity.
fn check(
    args: &ValidateArgs,
    input: &Input<'_>,
    options: &mut CheckOptions<'_>,
    notes: &mut Vec<String>,
) -> Result<Checked, Error> {
    let (file, text) = (input.name.clone(), input.text.to_owned());
    let document = match &input.document {
        Ok(document) => document,
        Err(error) => {
            let result = Err(error.clone());
            return Ok(Checked { file, text, result, devices: None, hidden: 0, worst: None });
        }
    };
    if let Some(problem) = input.schema_problem().filter(|_| options.schema.is_some()) {
        notes.push(format!("{file}: libvirt's schema not checked: {problem}"));
    }
    let without = CheckOptions { schema: None, ..*options };
    let found = validate(document, if input.has_schema() { options } else { &without });
    let mut found = match found {
        Ok(found) => found,
        Err(error) => {
            skip_schema(args, error, notes)?;
            options.schema = None;
            validate(document, options)?
        }
    };
    let worst = found.iter().map(|finding| finding.severity).max();
    let all = found.len();
    // With --strict, warnings are errors.
    let least = if args.strict { args.severity.min(Severity::Warning) } else { args.severity };
    found.retain(|finding| finding.severity >= least);
    let (hidden, devices) = (all - found.len(), Some(document.domain().egm.len()));
    Ok(Checked { file, text, result: Ok(found), devices, hidden, worst })
}

fn write_text(
    args: &ValidateArgs,
    files: &[Checked],
    session: &mut Session<'_>,
) -> Result<(), Error> {
    let color = session.terminal.color;
    for checked in files {
        let Checked { file, text, result, devices, hidden, .. } = checked;
        match result {
            Ok(_) if args.quiet => {}
            Ok(findings) => {
                for found in checked.with_places().into_iter().take(SHOWN) {
                    findings::write_text(session.out, file, text, found, color)?;
                }
                let rest = findings.len().saturating_sub(SHOWN) + hidden;
                let rest = if rest > 0 { format!("; {rest} not shown") } else { String::new() };
                let none = if *devices == Some(0) { ", no EGM memory" } else { "" };
                writeln!(session.out, "{file}: {}{none}{rest}", count(findings))?;
            }
            Err(error) => {
                // Keep the order of the files if both go to a terminal.
                session.out.flush()?;
                let _ = writeln!(session.err, "egm-probe: {error}");
            }
        }
    }
    Ok(())
}

/// `1 error, 2 warnings, 1 note`
fn count(findings: &[Finding]) -> String {
    let number = |severity: &Severity| {
        let number = findings.iter().filter(|it| it.severity == *severity).count();
        (number > 0).then(|| plural(number, severity.name()))
    };
    let counts: Vec<_> = Severity::ALL.iter().rev().filter_map(number).collect();
    if counts.is_empty() { "no problems found".into() } else { counts.join(", ") }
}

/// Unreadable files first, then errors; notes never count.
fn exit(files: &[Checked], strict: bool) -> Exit {
    let least = if strict { Severity::Warning } else { Severity::Error };
    if files.iter().any(|checked| checked.result.is_err()) {
        Exit::Failed
    } else if files.iter().any(|checked| checked.worst >= Some(least)) {
        Exit::No
    } else {
        Exit::Done
    }
}

fn rule(code: &str) -> Option<Rule> {
    RULES.iter().find(|rule| names_code(code, rule.code)).copied()
}

pub(super) fn parse_rule(code: &str) -> Result<Rule, &'static str> {
    rule(code).ok_or("unknown rule; --explain all lists them")
}
