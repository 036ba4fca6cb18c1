//! Records a host into a file that replays it, for bug reports.
//!
//! A capture is a tar.gz of the files that a scan reads, at their original paths, with a
//! `capture.json` for facts that files cannot represent (which paths failed and how, whether claims
//! were recorded). The same host gives the same bytes.
//!
//! Captures are given to strangers. Processes are included only if they hold a region, with the
//! evidence for that and their names; libvirt's definitions are reduced to the parts that concern
//! EGM, and lists of accounts and devices to the lines that were used.

mod recording;
mod redact;
mod tree;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::claims::unseen::Recorded;
use crate::doctor;
use crate::host::{Accounts, Gpu, Needs, iommufd};
use crate::output::{json, topology};
use crate::report::Report;
use crate::sysroot::manifest::{Manifest, Op, Problem, SCHEMA};
use crate::sysroot::{LIST_LIMIT, ReadError, Sysroot};
use recording::{Recording, left_out};
use tree::Tree;

/// A recorded host.
///
/// ```
/// use egm_probe::capture::Capture;
/// use egm_probe::host::Needs;
/// use egm_probe::report::Report;
/// use egm_probe::sysroot::Sysroot;
///
/// let root = Sysroot::capture("tests/fixtures/gb200-gpu-list/host.tar.gz".as_ref())?;
/// let capture = Capture::take(&root, true)?;
/// let replayed = Sysroot::from_tar(&capture.bytes[..])?;
/// assert_eq!(Report::read(&replayed, Needs::all()).host.regions.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Capture {
    /// The file contents: a tar.gz.
    pub bytes: Vec<u8>,
    /// The report while the host was recorded.
    pub report: Report,
    /// The difference between that report and a replay, if there is one: either a bug in this
    /// program, or the host changed while it was read.
    pub difference: Option<String>,
}

/// How often a host that changes in the meantime is recorded.
const TRIES: u32 = 3;

/// `capture.json`
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    files: &'a Manifest,
    #[serde(flatten)]
    claims: &'a Recorded,
}

impl Capture {
    /// Records a host: the running one, or one in another capture. `with_claims` includes the
    /// holders of the regions and their possible owners.
    ///
    /// # Errors
    /// The archive cannot be created.
    pub fn take(root: &Sysroot, with_claims: bool) -> io::Result<Self> {
        let mut tries = 1;
        loop {
            let capture = Self::take_once(root, with_claims)?;
            if capture.difference.is_none() || !root.may_change() || tries == TRIES {
                return Ok(capture);
            }
            tries += 1;
        }
    }

    fn take_once(root: &Sysroot, with_claims: bool) -> io::Result<Self> {
        let mut needs = Needs::all();
        needs.set(Needs::CLAIMS, with_claims);
        let recording = root.recording();
        let accounts = Accounts::of(&recording);
        let report = Report::read_with(&recording, needs, &accounts);
        Gpu::record_network_controllers(&recording);
        let arch = doctor::recording::read(&recording, &report, &accounts);
        let log = recording.log().map(|log| log.clone()).unwrap_or_default();
        let left_out = left_out(&report, &log);
        let tree = Tree::default();
        let mut recording = Recording { root, report: &report, log, left_out, tree };
        recording.put_files(&accounts);
        recording.put_arch(arch);
        recording.put_processes();
        let has_claims = with_claims && Recorded::of(root).claims.is_some();
        let claims = Recorded {
            claims: has_claims.then(|| report.claims.search().unseen.clone()),
            moment: recording.moment(),
            bad_definitions: recording.bad_definitions(),
        };
        let mut manifest = Manifest {
            schema: SCHEMA.to_owned(),
            program: concat!("egm-probe ", env!("CARGO_PKG_VERSION")).to_owned(),
            live: root.may_change() || root.recorded().is_some_and(|recorded| recorded.live),
            has_configuration: root.recorded().is_none_or(|recorded| recorded.has_configuration),
            inodes: recording.inodes(),
            errors: recording.put_links(),
            names: BTreeMap::new(),
        };
        manifest.names = recording.names();
        // Errors that the files alone do not reproduce.
        let errors = std::mem::take(&mut recording.log.errors);
        let errors: Vec<_> =
            errors.into_iter().filter(|((path, op), _)| recording.is_reported(path, *op)).collect();
        let tree = recording.tree;
        let tar = tree.tar(&Document { files: &manifest, claims: &claims })?;
        let files = Sysroot::from_tar(&tar[..]).map_err(io::Error::other)?;
        for ((path, op), problem) in errors {
            let answer = ask(&files, &path, op).err().map(|error| Problem::of(&error));
            // The absence of a device node that older versions did not look for has to be stated.
            let is_absent_iommufd =
                path == Path::new(iommufd::NODE) && report.host.iommufd == Some(false);
            if answer.as_ref() != Some(&problem) || is_absent_iommufd {
                let path = path.to_string_lossy().into_owned();
                manifest.errors.entry(path).or_default().insert(op, problem);
            }
        }
        let tar = tree.tar(&Document { files: &manifest, claims: &claims })?;
        let replayed = Sysroot::from_tar(&tar[..]).map_err(io::Error::other)?;
        let difference = difference(&report, &Report::read(&replayed, Needs::all()))?;
        Ok(Self { bytes: tree::compressed(&tar)?, report, difference })
    }
}

/// Repeats an operation on a path.
fn ask(root: &Sysroot, path: &Path, op: Op) -> Result<(), ReadError> {
    match op {
        Op::List => root.entries(path).map(|_| ()),
        Op::Link => root.read_link(path).map(|_| ()),
        Op::Stat => root.stat(path).map(|_| ()),
        Op::Read => root.read(path, LIST_LIMIT).map(|_| ()),
    }
}

/// The first line that differs between the output of two reports.
fn difference(recorded: &Report, replayed: &Report) -> io::Result<Option<String>> {
    let shown = |report: &Report| -> io::Result<String> {
        let mut text = Vec::new();
        json::write_list(&mut text, report)?;
        topology::write_json(&mut text, report)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let [recorded, replayed] = [shown(recorded)?, shown(replayed)?];
    if recorded == replayed {
        return Ok(None);
    }
    let mut lines = recorded.lines().zip(replayed.lines());
    let (recorded, replayed) = lines.find(|(a, b)| a != b).unwrap_or_default();
    Ok(Some(format!("{} on the host, {} in the capture", recorded.trim(), replayed.trim())))
}
