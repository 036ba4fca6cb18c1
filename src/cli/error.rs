//! Errors that end a command.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use super::Exit;
use crate::check::BadSchema;
use crate::domain::BadDomain;
use crate::files::locked_directory::DirectoryProblem;
use crate::files::user_file::FileError;
use crate::host::{Class, NotFound};
use crate::leases::LeaseObjection;
use crate::output::columns::NoSuchColumn;
use crate::plan::Objection;
use crate::stanza::{OtherMemory, Unwritable};
use crate::sysroot::{OpenError, describe};
use crate::udev_rules::file::FileProblem;
use crate::udev_rules::udevadm::UdevProblem;
use crate::values::shell::quote;
use crate::values::text::{SHOWN, excerpt, printable};

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot write the output: {}", describe(.0))]
    Write(#[from] io::Error),
    #[error(transparent)]
    Column(#[from] NoSuchColumn),
    #[error(transparent)]
    NotFound(#[from] NotFound),
    #[error("{}", lines(.0))]
    Refused(Vec<Objection>),
    #[error("{0}: no GPU of a region in it; select some with --gpu, --region or --all")]
    NoGpus(String),
    #[error("{name}:{problem}")]
    BadFile { name: String, problem: BadDomain },
    #[error("{}{problem}", name.as_ref().map_or(String::new(), |name| format!("{name}: ")))]
    Unwritable { name: Option<String>, problem: Unwritable },
    #[error(transparent)]
    OtherMemory(#[from] OtherMemory),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{problem} (`virsh dumpxml --inactive {}` prints the XML of a domain)",
        printable(&quote(domain))
    )]
    NoDomainFile { problem: FileError, domain: String },
    #[error(
        "--for {owner}: the domain is {}; if it may take regions of {owner}, add --for-other {}",
        excerpt(domain, SHOWN),
        printable(&quote(owner)),
        owner = excerpt(owner, SHOWN)
    )]
    OtherDomain { owner: String, domain: String },
    #[error(transparent)]
    Schema(#[from] BadSchema),
    #[error(transparent)]
    RulesFile(#[from] FileProblem),
    #[error("{0}; nothing was changed")]
    Udev(#[from] UdevProblem),
    #[error(transparent)]
    Directory(#[from] DirectoryProblem),
    #[error("{}", few_lines(.0))]
    NotReserved(Vec<LeaseObjection>),
    #[error("{}: {}", excerpt(&command.to_string_lossy(), SHOWN), describe(cause))]
    NotExecuted { command: OsString, cause: io::Error },
    #[error("{0}")]
    NotEnough(String),
    #[error(
        "unknown {kind} {} (`egm-probe {command} --explain all` lists them)",
        excerpt(code, SHOWN)
    )]
    Unlisted { kind: &'static str, command: &'static str, code: String },
    #[error(
        "`{}`: {}",
        excerpt(text, SHOWN),
        if *is_short {
            "too short; give at least four letters of an error message, or the code of a check"
        } else {
            "unknown error message; try its part without names and numbers (`man \
             egm-probe-doctor` lists the known ones)"
        }
    )]
    NoMessage { text: String, is_short: bool },
    #[error("{0}; cannot restore the previous rules: {1}")]
    NotUndone(Box<UdevProblem>, Box<FileProblem>),
    #[error("{0} (--force overrides this)")]
    Unwise(String),
    #[error("{}: only root can change it (--dry-run shows the difference)", .0.display())]
    NotRoot(PathBuf),
    #[error("{problem}: {}", describe(cause))]
    Doing { problem: String, cause: io::Error },
    #[error("standard input: {}", describe(.0))]
    Stdin(io::Error),
    #[error("{0}")]
    Usage(&'static str),
}

impl Error {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::RulesFile(problem) if problem.is_refusal() => Exit::No,
            Self::Unwritable { problem: Unwritable::BadDomain(_), .. } => Exit::Failed,
            Self::Column(_) | Self::Usage(_) => Exit::Usage,
            Self::NotFound(error) => not_found(error),
            Self::NotReserved(objections)
                if matches!(objections[..], [LeaseObjection::Unread(_), ..]) =>
            {
                Exit::Failed
            }
            Self::Unwritable { .. }
            | Self::NoGpus(_)
            | Self::OtherMemory(_)
            | Self::OtherDomain { .. }
            | Self::Unwise(_)
            | Self::NotReserved(_)
            | Self::NotEnough(_)
            | Self::Unlisted { .. }
            | Self::NoMessage { .. } => Exit::No,
            Self::Refused(objections) => objections
                .iter()
                .map(|objection| match objection {
                    Objection::NotFound(error) => not_found(error),
                    _ => Exit::No,
                })
                .max_by_key(|exit| exit.code())
                .unwrap_or(Exit::No),
            Self::NotExecuted { cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
                Exit::NoCommand
            }
            Self::NotExecuted { .. } => Exit::NotExecuted,
            // Something could not be read or written.
            _ => Exit::Failed,
        }
    }
}

fn not_found(error: &NotFound) -> Exit {
    match error {
        NotFound::NoEgm { class: Class::Unreadable, .. } => Exit::Failed,
        NotFound::NoEgm { .. } => Exit::NoEgm,
        _ => Exit::No,
    }
}

/// One line per objection for the first ones, each with the program's prefix.
fn few_lines(objections: &[LeaseObjection]) -> String {
    /// More than the regions of most hosts.
    const SHOWN: usize = 6;
    let mut lines: Vec<_> = objections.iter().take(SHOWN).map(ToString::to_string).collect();
    if objections.len() > SHOWN {
        lines.push(format!("and {} more; see `egm-probe list`", objections.len() - SHOWN));
    }
    lines.join("\negm-probe: ")
}

/// One line per objection, each with the program's prefix.
fn lines(objections: &[Objection]) -> String {
    let line = |objection: &Objection| match objection.way_out() {
        Some(way_out) => format!("{}; {way_out}", objection.with_code()),
        None => objection.with_code(),
    };
    let lines: Vec<_> = objections.iter().map(line).collect();
    lines.join("\negm-probe: ")
}
