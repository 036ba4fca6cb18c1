//! `egm-probe capture`

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;

use super::error::Error;
use super::{Exit, Session, is_dash, open_capture};
use crate::capture::Capture;
use crate::claims::unseen::Recorded;
use crate::files::user_file;
use crate::output::capture::write;

#[derive(Args, Debug)]
pub(super) struct CaptureArgs {
    /// The file to write, a tar.gz; - is standard output. One that is there is replaced
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Record who holds the regions, too: the processes that do, libvirt's definitions as far as
    /// they concern EGM, and what is reserved
    #[arg(long)]
    with_claims: bool,
    /// Show what is in FILE, and write nothing
    #[arg(short, long, conflicts_with = "with_claims")]
    list: bool,
}

pub(super) fn run(args: &CaptureArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let global = session.global;
    // Of global options clap sees a conflict only behind the command.
    if args.list && (global.sysroot.is_some() || global.from.is_some()) {
        return Err(Error::Usage("--list shows FILE itself: --sysroot and --from mean nothing"));
    }
    if args.with_claims && global.no_occupancy {
        return Err(Error::Usage("--with-claims and --no-occupancy contradict each other"));
    }
    if args.list {
        return list(&args.file, session);
    }
    if is_dash(&args.file) && io::stdout().is_terminal() {
        return Err(Error::Usage("a capture is not for a terminal; name a file, or redirect"));
    }
    let root = global.root()?;
    let capture = Capture::take(&root, args.with_claims)
        .map_err(|cause| Error::Doing { problem: "this host cannot be captured".into(), cause })?;
    if is_dash(&args.file) {
        // Not as elsewhere: a capture of which somebody has had enough is none.
        let written = session.out.write_all(&capture.bytes).and_then(|()| session.out.flush());
        let problem = "the capture was not written whole".into();
        written.map_err(|cause| Error::Doing { problem, cause })?;
    } else {
        user_file::write(&args.file, &capture.bytes)?;
    }
    session.warn_of(&capture.report, &capture.report.host.regions);
    if args.with_claims && Recorded::of(&root).claims.is_none() {
        session.warn("what was captured has no claims to record");
    }
    if let Some(difference) = &capture.difference {
        session.warn(format_args!("the capture shows another host: {difference}"));
    }
    Ok(Exit::Done)
}

fn list(file: &Path, session: &mut Session<'_>) -> Result<Exit, Error> {
    write(session.out, &open_capture(file)?)?;
    Ok(Exit::Done)
}
