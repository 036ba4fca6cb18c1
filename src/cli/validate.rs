//! `egm-probe validate`

use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::Path;

use super::args::{Global, ValidateArgs};
use super::domain_file::{DomainFile, is_stdin, name_of};
use super::error::Error;
use super::{Exit, Terminal, write_warnings};
use crate::check::grammar::{Grammar, SCHEMAS};
use crate::check::{ENCODING, Finding, NEEDS, RULES, Severity, check};
use crate::domain::{Dialect, Encoding};
use crate::host::{Class, no_egm};
use crate::output::findings::{self, Checked};
use crate::report::Report;
use crate::sysroot::Sysroot;

/// A larger file takes seconds to be held against the grammar.
const GRAMMAR_LIMIT: usize = 1 << 20;

/// More findings of one file tell nobody anything.
const SHOWN: usize = 100;

pub(super) fn run(
    args: &ValidateArgs,
    global: &Global,
    terminal: Terminal,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Error> {
    if let Some(code) = &args.explain {
        return explain(code, out);
    }
    let stdins = args.files.iter().map(AsRef::as_ref).chain(global.from.as_deref());
    if stdins.filter(|path| is_stdin(path)).count() > 1 {
        return Err(Error::Usage("standard input can be read only once"));
    }
    let (mut notes, mut more) = (Vec::new(), Vec::new());
    let (files, report) = check_all(args, global, &mut more)?;
    // A capture has been dropped by now: both at once would take the memory of both. The grammar is
    // not taken apart at the end, which would take as long as a tenth of everything.
    let mut grammar = grammar(args, &files, &mut notes)?.map(ManuallyDrop::new);
    notes.append(&mut more);
    let add = |file| add_grammar(args, file, &mut grammar, &mut notes);
    let files: Vec<_> = files.into_iter().map(add).collect::<Result<_, _>>()?;
    if args.json {
        findings::write_json(out, &files, report.as_ref(), &notes)?;
    } else {
        write_text(args, &files, terminal, out, err)?;
        out.flush()?;
        if !args.quiet {
            for note in &notes {
                let _ = writeln!(err, "egm-probe: note: {note}");
            }
            if let Some(report) = &report {
                write_warnings(err, report, []);
            }
        }
    }
    Ok(exit(&files, args.strict))
}

fn explain(code: &str, out: &mut dyn Write) -> Result<Exit, Error> {
    if code.eq_ignore_ascii_case("all") {
        findings::write_rules(out, RULES)?;
        return Ok(Exit::Done);
    }
    match RULES.iter().find(|rule| rule.code.eq_ignore_ascii_case(code)) {
        Some(rule) => {
            findings::write_explanation(out, rule)?;
            Ok(Exit::Done)
        }
        None => Err(Error::NoRule(code.to_owned())),
    }
}

/// libvirt's grammar, where it is installed or was named.
fn grammar(
    args: &ValidateArgs,
    files: &[ByRules],
    notes: &mut Vec<String>,
) -> Result<Option<Grammar>, Error> {
    if args.no_schema {
        return Ok(None);
    }
    let directory = args.schema.as_deref().unwrap_or(SCHEMAS.as_ref());
    let is_held = |file: &&ByRules| file.result.is_ok() && file.text.len() <= GRAMMAR_LIMIT;
    let texts = files.iter().filter(is_held).map(|file| file.text.as_str());
    match Grammar::read_for(directory, texts) {
        Err(error) if args.schema.is_some() => Err(error.into()),
        Ok(grammar) => Ok(Some(grammar)),
        Err(error) => {
            notes.push(format!("not held against libvirt's grammar: {error}"));
            Ok(None)
        }
    }
}

/// The host, where its rules are wanted and it has EGM.
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
    if report.host.regions.is_empty() {
        notes.push(format!("not held against this host: {}", no_egm(report.host.class)));
        let is_unreadable = report.host.class == Class::Unreadable;
        if is_unreadable {
            notes.extend(report.warnings().map(ToString::to_string));
        }
        return Ok(None);
    }
    if global.no_occupancy {
        notes.push("nobody looked for who holds the regions".into());
    }
    Ok(Some((root, report)))
}

/// A file that was held against the rules, and is to be held against the grammar.
struct ByRules {
    file: String,
    text: String,
    /// What was found; whether it is a status file; how many EGM devices it has.
    result: Result<(Vec<Finding>, bool, usize), String>,
}

/// Holds all files against the rules.
fn check_all(
    args: &ValidateArgs,
    global: &Global,
    notes: &mut Vec<String>,
) -> Result<(Vec<ByRules>, Option<Report>), Error> {
    let mut host = host(args, global, notes)?;
    let mut files = Vec::new();
    for path in &args.files {
        let host = host.as_mut().map(|(root, report)| (&*root, report));
        files.push(check_file(path, host));
    }
    Ok((files, host.map(|(_, report)| report)))
}

fn check_file(path: &Path, host: Option<(&Sysroot, &mut Report)>) -> ByRules {
    let file = name_of(path);
    let result = DomainFile::read(path).and_then(|file| Ok((file.domain()?, file)));
    let (domain, read) = match result {
        Ok(read) => read,
        Err(error) => return ByRules { file, text: String::new(), result: Err(error.to_string()) },
    };
    let mut found = match host {
        None => check(&domain, Dialect::default(), None),
        Some((root, report)) => {
            for path in domain.egm.iter().filter_map(|device| device.path.as_ref()) {
                report.look_up(root, path.text.as_ref());
            }
            check(&domain, Dialect::default(), Some(report))
        }
    };
    if read.source.encoding() != Encoding::Utf8 {
        let mut finding = Finding::new(ENCODING, 0..0, "UTF-16, which libvirt does not read");
        finding.help("iconv -f UTF-16 -t UTF-8");
        found.insert(0, finding);
    }
    let result = Ok((found, domain.is_status, domain.egm.len()));
    ByRules { file, text: read.source.text().to_owned(), result }
}

/// Holds a file against the grammar, too, and leaves out what is not to be shown.
fn add_grammar(
    args: &ValidateArgs,
    file: ByRules,
    grammar: &mut Option<ManuallyDrop<Grammar>>,
    notes: &mut Vec<String>,
) -> Result<Checked, Error> {
    let ByRules { file, text, result } = file;
    let failed =
        |file, text, error| Checked { file, text, result: Err(error), devices: None, hidden: 0 };
    let (mut found, is_status, devices) = match result {
        Ok(result) => result,
        Err(error) => return Ok(failed(file, text, error)),
    };
    let is_small = text.len() <= GRAMMAR_LIMIT;
    if grammar.is_some() && (is_status || !is_small) {
        let why = if is_small { "a status file, which it does not describe" } else { "too large" };
        notes.push(format!("{file}: not held against libvirt's grammar: {why}"));
    }
    if let Some(usable) = grammar.as_ref().filter(|_| is_small)
        && let Err(error) = usable.add_to(&mut found, &text)
    {
        match usable.try_out() {
            Ok(()) => {
                let error = format!("{file}:{error}");
                return Ok(failed(file, text, error));
            }
            Err(bad) if args.schema.is_some() => return Err(bad.into()),
            Err(bad) => {
                notes.push(format!("not held against libvirt's grammar: {bad}"));
                *grammar = None;
            }
        }
    }
    let least = args.severity.severity();
    let hidden = found.iter().filter(|finding| finding.severity < least).count();
    found.retain(|finding| finding.severity >= least);
    Ok(Checked { file, text, result: Ok(found), devices: Some(devices), hidden })
}

fn write_text(
    args: &ValidateArgs,
    files: &[Checked],
    terminal: Terminal,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Error> {
    for checked in files {
        let Checked { file, text, result, devices, hidden } = checked;
        match result {
            Ok(_) if args.quiet => {}
            Ok(findings) => {
                for found in checked.with_places().into_iter().take(SHOWN) {
                    findings::write_text(out, file, text, found, terminal.color)?;
                }
                let rest = findings.len().saturating_sub(SHOWN) + hidden;
                let rest = if rest > 0 { format!("; {rest} are not shown") } else { String::new() };
                let none = if *devices == Some(0) { ", and no EGM memory in it" } else { "" };
                writeln!(out, "{file}: {}{none}{rest}", count(findings))?;
            }
            Err(error) => {
                // In the order of the files, where both go to a terminal.
                out.flush()?;
                let _ = writeln!(err, "egm-probe: {error}");
            }
        }
    }
    Ok(())
}

/// `1 error, 2 warnings`
fn count(findings: &[Finding]) -> String {
    let number = |severity: Severity, name: &str| {
        let number = findings.iter().filter(|it| it.severity == severity).count();
        let plural = if number == 1 { "" } else { "s" };
        (number > 0).then(|| format!("{number} {name}{plural}"))
    };
    let counts = [number(Severity::Error, "error"), number(Severity::Warning, "warning")];
    let counts: Vec<_> = counts.into_iter().flatten().collect();
    if counts.is_empty() { "nothing wrong".into() } else { counts.join(", ") }
}

/// Unreadable files first, then what is wrong.
fn exit(files: &[Checked], strict: bool) -> Exit {
    let counts = |finding: &Finding| strict || finding.severity == Severity::Error;
    if files.iter().any(|checked| checked.result.is_err()) {
        Exit::Failed
    } else if files.iter().filter_map(|it| it.result.as_ref().ok()).flatten().any(counts)
        // What is less than is shown are warnings.
        || (strict && files.iter().any(|checked| checked.hidden > 0))
    {
        Exit::No
    } else {
        Exit::Done
    }
}
