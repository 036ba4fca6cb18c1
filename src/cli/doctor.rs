//! `egm-probe doctor`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::args::{names_code, one_of};
use super::error::Error;
use super::{Exit, Session};
use crate::check::{RULES, SCHEMAS};
use crate::doctor::{CHECKS, Consumer, Examine, Installed, LibvirtSchema, Qemu, errors, examine};
use crate::domain::xml;
use crate::files::program;
use crate::output::{doctor as output, errors as messages};
use crate::sysroot::Sysroot;
use crate::values::text::{excerpt, shown};

/// QEMU for the host's architecture, as named in Debian and derivatives and in Fedora.
const QEMU: [&str; 2] = ["qemu-system-aarch64", "qemu-kvm"];
/// RHEL's, which is not in PATH.
const RHEL: &str = "/usr/libexec/qemu-kvm";

/// QEMU answers within tens of milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// No file of libvirt's schema is larger.
const SCHEMA_LIMIT: usize = 8 << 20;

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Print JSON (egm-probe.doctor/1)
    #[arg(short = 'J', long)]
    json: bool,
    /// Print nothing; only set the exit status
    #[arg(short, long, conflicts_with_all = ["json", "fix_plan"])]
    quiet: bool,
    /// Print the suggested fixes as a shell script to review; nothing is run
    #[arg(long, conflicts_with = "json")]
    fix_plan: bool,
    /// Make the checks for virtual machines that this software starts [default: detected]
    #[arg(long, value_name = "CONSUMER", value_parser = one_of(Consumer::ALL, Consumer::name))]
    consumer: Option<Consumer>,
    /// Examine this QEMU [default: on the running host, the installed one]
    #[arg(long, value_name = "PROGRAM")]
    qemu: Option<PathBuf>,
    /// Read libvirt's schema in DIR [default: on the running host, /usr/share/libvirt/schemas]
    #[arg(long, value_name = "DIR")]
    schema: Option<PathBuf>,
    /// Downgrade this check, such as D20, or violations of this rule, such as EGM215, to notes
    #[arg(long, value_name = "CHECK", value_parser = parse_code)]
    allow: Vec<&'static str>,
    /// Explain a check, such as D11, or an error message, such as "Bad address", and exit; "all"
    /// lists the checks
    #[arg(
        long,
        value_name = "CHECK|TEXT",
        conflicts_with_all = ["json", "quiet", "fix_plan", "consumer", "qemu", "schema", "allow"],
        allow_hyphen_values = true
    )]
    explain: Option<String>,
}

pub(super) fn run(args: &DoctorArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    if let Some(text) = &args.explain {
        return explain(text.trim(), session.out);
    }
    let root = session.global.root()?;
    let what = Examine {
        consumer: args.consumer,
        installed: installed(args, &root),
        no_occupancy: session.global.no_occupancy,
        allow: &args.allow,
    };
    let examination = examine(&root, what);
    if args.json {
        output::write_json(session.out, &examination)?;
    } else if args.fix_plan {
        output::write_plan(session.out, &examination.examined)?;
    } else if !args.quiet {
        output::write(session.out, &examination, session.terminal.color)?;
    }
    Ok(if examination.is_healthy() { Exit::Done } else { Exit::No })
}

/// Explains a check or an error message. For a rule, names the command that explains it.
fn explain(text: &str, out: &mut dyn Write) -> Result<Exit, Error> {
    if text.eq_ignore_ascii_case("all") {
        output::write_checks(out, CHECKS)?;
    } else if let Some(check) = CHECKS.iter().find(|check| names_code(text, check.code)) {
        output::write_explanation(out, check)?;
    } else if let Ok(rule) = parse_code(text) {
        writeln!(out, "{rule}: see `egm-probe validate --explain {rule}`")?;
    } else if is_code(text) {
        let (kind, command, code) = ("check", "doctor", text.to_owned());
        return Err(Error::Unlisted { kind, command, code });
    } else {
        let found = errors::find(text);
        if found.is_empty() {
            let is_short = errors::is_too_short(text);
            return Err(Error::NoMessage { text: text.to_owned(), is_short });
        }
        for (index, error) in found.into_iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            messages::write(out, error)?;
        }
    }
    Ok(Exit::Done)
}

/// Whether a text has the form of a code: up to three letters, and a number.
fn is_code(text: &str) -> bool {
    let number = text.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    is_number && text.len() - number.len() <= 3
}

/// The code of a check or a rule, with its prefix.
fn parse_code(code: &str) -> Result<&'static str, &'static str> {
    let mut codes = CHECKS.iter().map(|it| it.code).chain(RULES.iter().map(|it| it.code));
    let has_prefix = code.starts_with(|letter: char| letter.is_ascii_alphabetic());
    let found = codes.find(|it| has_prefix && names_code(code, it));
    found.ok_or("unknown check or rule; --explain all lists the checks, that of validate the rules")
}

/// The installed software is that of the running host only; explicitly named software is always
/// examined.
fn installed(args: &DoctorArgs, root: &Sysroot) -> Installed {
    let is_host = root.may_ask_system();
    let found = || find_qemu().map_or(Qemu::Missing, |program| ask(&program, LIMIT));
    let qemu =
        args.qemu.as_deref().map(|program| ask(program, LIMIT)).or_else(|| is_host.then(found));
    let schema = args.schema.as_deref().or(is_host.then_some(Path::new(SCHEMAS)));
    Installed { qemu, schema: schema.map(read_schema) }
}

fn find_qemu() -> Option<PathBuf> {
    let rhel = Path::new(RHEL);
    let found = QEMU.iter().find_map(|name| program::find(name));
    found.or_else(|| program::is_program(rhel).then(|| rhel.to_owned()))
}

/// Asks QEMU which objects it knows, and kills it if it does not answer in time.
fn ask(program: &Path, limit: Duration) -> Qemu {
    match program::run(program, &["-object", "help"], limit) {
        Ok(printed) => {
            let knows_egm = printed.stdout.lines().any(|line| line.trim() == "acpi-egm-memory");
            Qemu::Answered {
                program: program.to_owned(),
                knows_egm,
                version: version(program, limit),
            }
        }
        Err(error) => Qemu::Silent(error.to_string()),
    }
}

/// `QEMU emulator version 10.1.0 (Debian 1:10.1.0+nvidia5-1)`
fn version(program: &Path, limit: Duration) -> Option<String> {
    let printed = program::run(program, &["--version"], limit).ok()?.stdout;
    Some(printed.lines().next()?.strip_prefix("QEMU emulator version ")?.to_owned())
}

/// Whether libvirt's schema has the memory model `egm`.
fn read_schema(directory: &Path) -> LibvirtSchema {
    let Ok(root) = Sysroot::directory(directory) else {
        return LibvirtSchema::Missing(directory.to_owned());
    };
    let (mut knows_egm, mut is_there) = (false, false);
    let unreadable = |problem: String| LibvirtSchema::Unreadable(shown(directory) + &problem);
    for file in ["/domaincommon.rng", "/domain.rng"] {
        let bytes = match root.read(file, SCHEMA_LIMIT) {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() => continue,
            Err(error) => return unreadable(error.to_string()),
        };
        is_there = true;
        match has_egm(&String::from_utf8_lossy(&bytes)) {
            Ok(has) => knows_egm |= has,
            Err(problem) => return unreadable(format!("{file}: {problem}")),
        }
    }
    let directory = directory.to_owned();
    if is_there {
        LibvirtSchema::Read { directory, knows_egm }
    } else {
        LibvirtSchema::Missing(directory)
    }
}

/// Whether a schema file lists the value `egm`.
fn has_egm(text: &str) -> Result<bool, String> {
    let document = xml::parse(text).map_err(|error| excerpt(&error.to_string(), 200))?;
    let is_value = |node: &roxmltree::Node<'_, '_>| node.tag_name().name() == "value";
    let mut values = document.descendants().filter(is_value);
    Ok(values.any(|value| value.text().is_some_and(|text| text.trim() == "egm")))
}

#[cfg(test)]
mod tests {
    use super::{Qemu, ask};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    #[test]
    fn a_qemu_that_does_not_answer_in_time_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        fs::write(&program, "#!/bin/sh\nsleep 100\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let started = Instant::now();
        let answer = ask(&program, Duration::from_millis(100));
        assert!(matches!(&answer, Qemu::Silent(why) if why.contains("timed out")));
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    }
}
