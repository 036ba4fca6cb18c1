//! `egm-probe capture`

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use super::error::Error;
use super::{Exit, Session, is_dash};
use crate::capture::Capture;
use crate::claims::unseen::Recorded;
use crate::files::user_file;

#[derive(Args, Debug)]
pub(super) struct CaptureArgs {
    /// File to write, a tar.gz; - is standard output. An existing file is overwritten
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also record the claims on the regions: processes that hold them, libvirt's definitions as
    /// far as they concern EGM, and reservations
    #[arg(long)]
    with_claims: bool,
}

pub(super) fn run(args: &CaptureArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let global = session.global;
    if args.with_claims && global.no_occupancy {
        return Err(Error::Usage("--with-claims cannot be combined with --no-occupancy"));
    }
    if is_dash(&args.file) && io::stdout().is_terminal() {
        return Err(Error::Usage("refusing to write a capture to a terminal (name a file)"));
    }
    let root = global.root()?;
    let capture = Capture::take(&root, args.with_claims)
        .map_err(|cause| Error::Doing { problem: "cannot capture this host".into(), cause })?;
    if is_dash(&args.file) {
        // A closed pipe is an error here: a partial capture is useless.
        let written = session.out.write_all(&capture.bytes).and_then(|()| session.out.flush());
        let problem = "capture incomplete".into();
        written.map_err(|cause| Error::Doing { problem, cause })?;
    } else {
        user_file::write(&args.file, &capture.bytes)?;
    }
    session.warn_of(&capture.report, capture.report.regions());
    if args.with_claims && Recorded::of(&root).claims.is_none() {
        session.warn("the source has no claims recorded");
    }
    if let Some(difference) = &capture.difference {
        session.warn(format_args!("the capture does not reproduce the host: {difference}"));
    }
    Ok(Exit::Done)
}
