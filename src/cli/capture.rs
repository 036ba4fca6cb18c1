//! `egm-probe capture`

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use super::args::{CaptureArgs, Global};
use super::domain_file::is_stdin as is_dash;
use super::error::Error;
use super::{Exit, open_capture, write_warnings};
use crate::capture::Capture;
use crate::claims::unseen::Recorded;
use crate::files::user_file;
use crate::output::capture::write;

pub(super) fn run(
    args: &CaptureArgs,
    global: &Global,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Error> {
    // Of global options clap sees a conflict only behind the command.
    if args.list && (global.sysroot.is_some() || global.from.is_some()) {
        return Err(Error::Usage("--list shows FILE itself: --sysroot and --from mean nothing"));
    }
    if args.with_claims && global.no_occupancy {
        return Err(Error::Usage("--with-claims and --no-occupancy contradict each other"));
    }
    if args.list {
        return list(&args.file, out);
    }
    if is_dash(&args.file) && io::stdout().is_terminal() {
        return Err(Error::Usage("a capture is not for a terminal; name a file, or redirect"));
    }
    let root = global.root()?;
    let capture = Capture::take(&root, args.with_claims)
        .map_err(|cause| Error::Doing { problem: "this host cannot be captured".into(), cause })?;
    if is_dash(&args.file) {
        // Not as elsewhere: a capture of which somebody has had enough is none.
        out.write_all(&capture.bytes).and_then(|()| out.flush()).map_err(|cause| Error::Doing {
            problem: "the capture was not written whole".into(),
            cause,
        })?;
    } else {
        user_file::write(&args.file, &capture.bytes)?;
    }
    write_warnings(err, &capture.report, &capture.report.host.regions);
    if args.with_claims && Recorded::of(&root).claims.is_none() {
        let _ = writeln!(err, "egm-probe: warning: what was captured has no claims to record");
    }
    if let Some(difference) = &capture.difference {
        let _ = writeln!(err, "egm-probe: warning: the capture shows another host: {difference}");
    }
    Ok(Exit::Done)
}

fn list(file: &Path, out: &mut dyn Write) -> Result<Exit, Error> {
    write(out, &open_capture(file)?)?;
    Ok(Exit::Done)
}
