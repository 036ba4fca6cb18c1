//! `egm-probe export`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::args::parse_time_up_to;
use super::error::Error;
use super::{Exit, Session, is_dash};
use crate::export::{self, Cdi, Inventory, Kind, LeftOut, NodeName};
use crate::files::user_file;
use crate::host::{Class, Host, NotFound};
use crate::report::Report;
use crate::values::Moment;
use crate::values::text::shown;

#[derive(Debug, Subcommand)]
pub(super) enum ExportCommand {
    /// Write a CDI specification, for container runtimes
    #[command(alias = "CDI")]
    Cdi(CdiArgs),
    /// Write labels for Node Feature Discovery, as a file of its features.d
    #[command(alias = "NFD")]
    Nfd(NfdArgs),
    /// Write a NodeFeature object, for kubectl
    NodeFeature(NodeFeatureArgs),
}

#[derive(Args, Debug)]
pub(super) struct OutputArgs {
    /// Write to FILE atomically, and only if it changes; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct CdiArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// Kind of the devices: a vendor and a class
    #[arg(long, value_name = "KIND", default_value = "nvidia.com/egm")]
    kind: Kind,
}

#[derive(Args, Debug)]
pub(super) struct NfdArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// Let the labels expire after TIME, such as 1h, unless they are written again
    #[arg(long, value_name = "TIME", value_parser = parse_expiry)]
    expiry: Option<Duration>,
}

#[derive(Args, Debug)]
pub(super) struct NodeFeatureArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// Name of this host in Kubernetes
    #[arg(long, value_name = "NAME")]
    node: NodeName,
}

pub(super) fn run(command: &ExportCommand, session: &mut Session<'_>) -> Result<Exit, Error> {
    let report = session.global.report(export::NEEDS)?;
    let host = &report.host;
    if host.class == Class::Unreadable {
        session.warn_of(&report, []);
        return Err(NotFound::no_egm(host, "").into());
    }
    if host.is_changing {
        let problem =
            "the driver is being loaded or removed, and regions may be missing (try again)";
        return Err(Error::NotEnough(problem.into()));
    }
    let inventory = Inventory::of(host);
    match command {
        ExportCommand::Cdi(args) => {
            let (document, left_out) = Cdi::new(&inventory, &args.kind);
            if document.is_empty() {
                warn(&report, &left_out, session);
                return Err(no_devices(host, &args.output, session));
            }
            let mut text = Vec::new();
            document.write(&mut text)?;
            save(&args.output, &text, |now| now == text, session)?;
            warn(&report, &left_out, session);
            warn_of_cdi(host, &args.output, session);
        }
        ExportCommand::Nfd(args) => {
            let labels = labels_file(&inventory);
            let now = Moment::now();
            let first = args.expiry.map(|time| format!("{EXPIRY}{}\n", now.after(time)));
            let text = first.unwrap_or_default() + &labels;
            let is_current = |file: &[u8]| is_current(file, &labels, args.expiry, now);
            save(&args.output, text.as_bytes(), is_current, session)?;
            warn(&report, &inventory.left_out, session);
        }
        ExportCommand::NodeFeature(args) => {
            let object = export::node_feature(&inventory, &args.node);
            let text = format!("{object:#}\n").into_bytes();
            save(&args.output, &text, |now| now == text, session)?;
            warn(&report, &inventory.left_out, session);
        }
    }
    Ok(Exit::Done)
}

/// Writes the document, unless the file has it.
fn save(
    output: &OutputArgs,
    text: &[u8],
    is_current: impl Fn(&[u8]) -> bool,
    session: &mut Session<'_>,
) -> Result<(), Error> {
    /// Larger than any export.
    const MOST: usize = 1 << 20;
    let Some(path) = output.path() else {
        session.out.write_all(text)?;
        return Ok(session.out.flush()?);
    };
    // Reading a pipe might never end.
    if path.is_file() && user_file::read(path, MOST).is_ok_and(|now| is_current(&now)) {
        return Ok(());
    }
    Ok(user_file::write(path, text)?)
}

impl OutputArgs {
    /// The file; `None` if it is standard output.
    fn path(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| !is_dash(path))
    }
}

fn warn(report: &Report, left_out: &[LeftOut], session: &mut Session<'_>) {
    session.warn_of(report, report.regions());
    for region in left_out {
        session.warn(region);
    }
}

fn warn_of_cdi(host: &Host, output: &OutputArgs, session: &mut Session<'_>) {
    if host.iommufd.is_none() {
        session.warn("cannot determine whether this host has /dev/iommu; exporting IOMMU groups");
    }
    let is_read = |path: &Path| path.extension().is_some_and(|it| it == "json" || it == "yaml");
    if let Some(path) = output.path().filter(|path| !is_read(path)) {
        let path = shown(path);
        session.warn(format_args!("{path}: container runtimes read only .json and .yaml files"));
    }
}

/// The error if there would be no devices: such a specification is invalid.
fn no_devices(host: &Host, output: &OutputArgs, session: &mut Session<'_>) -> Error {
    if let Some(path) = output.path().filter(|path| path.exists()) {
        session.note(format_args!("{} was not changed", shown(path)));
    }
    if host.regions.is_empty() {
        return NotFound::no_egm(host, "").into();
    }
    Error::NotEnough("no region can be exported".into())
}

/// The start of the line that says when the labels after it expire.
const EXPIRY: &str = "# +expiry-time=";

fn labels_file(inventory: &Inventory<'_>) -> String {
    let mut text = String::from("# Written by egm-probe export nfd.\n");
    for (name, value) in export::labels(inventory) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

/// Whether a file has these labels, and at least half of the time until they expire is left.
fn is_current(file: &[u8], labels: &str, expiry: Option<Duration>, now: Moment) -> bool {
    let Some(expiry) = expiry else { return file == labels.as_bytes() };
    let file = std::str::from_utf8(file).ok().and_then(|file| file.strip_prefix(EXPIRY));
    let Some((time, rest)) = file.and_then(|file| file.split_once('\n')) else { return false };
    let left = time.parse::<Moment>().map(|time| time.0.saturating_sub(now.0));
    let is_in_time = left
        .is_ok_and(|left| left.saturating_mul(2) >= expiry.as_secs() && left <= expiry.as_secs());
    rest == labels && is_in_time
}

fn parse_expiry(text: &str) -> Result<Duration, String> {
    parse_time_up_to(text, 366)
}

#[cfg(test)]
mod tests {
    use super::{EXPIRY, is_current, parse_expiry};
    use crate::values::Moment;
    use std::time::Duration;

    #[test]
    fn labels_are_written_again_before_they_expire() {
        let now = Moment(1_000_000);
        let hour = Some(Duration::from_secs(3600));
        let file = |left| format!("{EXPIRY}{}\nlabels\n", now.after(Duration::from_secs(left)));
        let is_current = |file: &str, expiry| is_current(file.as_bytes(), "labels\n", expiry, now);
        assert!(is_current(&file(3600), hour) && is_current(&file(1800), hour));
        assert!(!is_current(&file(1799), hour) && !is_current(&file(0), hour));
        // An expiry of another run.
        assert!(!is_current(&file(3601), hour) && !is_current(&file(3600), None));
        assert!(is_current("labels\n", None) && !is_current("labels\n", hour));
        assert!(!is_current(&file(3600).replace("labels", "other"), hour));
        assert!(!is_current(&file(3600).replace("=1970", "=x"), hour) && !is_current(EXPIRY, hour));
    }

    #[test]
    fn an_expiry_has_bounds() {
        assert_eq!(parse_expiry("90m"), Ok(Duration::from_secs(5400)));
        for text in ["0s", "999ms", "367days", "soon", "-1h"] {
            assert!(parse_expiry(text).is_err(), "{text}");
        }
    }
}
