//! `egm-probe watch`

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::args::{parse_region, parse_time};
use super::error::Error;
use super::{Exit, Session};
use crate::output::watch as output;
use crate::report::{Report, Snapshot, State};
use crate::sysroot::Sysroot;
use crate::values::{Moment, RegionName};
use std::thread::sleep;

/// After an event more are waited for so long: a driver makes a region file by file.
const SETTLE: Duration = Duration::from_millis(20);

#[derive(Args, Debug)]
pub(super) struct WatchArgs {
    /// Begin with what is there, as if it had just come
    #[arg(long)]
    initial: bool,
    /// How often to look at who holds what, which sends no event, as 500ms or 2s
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_interval)]
    interval: Duration,
    /// End when a region is free, in-use or gone
    #[arg(long, num_args = 2, value_names = ["STATE", "REGION"])]
    until: Option<Vec<String>>,
    /// Give up after so long, as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// A line of JSON for each change (egm-probe.watch/1)
    #[arg(short = 'J', long)]
    json: bool,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Until {
    Free,
    InUse,
    Gone,
}

pub(super) fn run(args: &WatchArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let until = args.until.as_deref().map(awaited).transpose()?;
    let root = session.global.root()?;
    let is_recorded = session.global.from.is_some();
    let needs = session.global.wanted(Snapshot::NEEDS);
    // Before the first look: what happens meanwhile is not missed.
    let mut waiting = Waiting::new(&root)?;
    let started = Instant::now();
    let report = Report::read(&root, needs);
    session.warn_of(&report, &report.host.regions);
    let mut before = Snapshot::of(&report);
    let time = || (!is_recorded).then(Moment::now);
    if args.initial {
        write(session.out, args.json, &Snapshot::default(), &before, time())?;
    }
    loop {
        if let Some((until, region)) = &until
            && is_met(*until, before.state(region))
        {
            return Ok(Exit::Done);
        }
        let over = args.timeout.map(|limit| limit.saturating_sub(started.elapsed()));
        if over == Some(Duration::ZERO) {
            return Ok(Exit::No);
        }
        if is_recorded {
            // Nothing ever changes there.
            return Ok(if until.is_some() { Exit::No } else { Exit::Done });
        }
        match waiting.wait(over.map_or(args.interval, |over| over.min(args.interval)))? {
            Woken::ToStop => return Ok(Exit::Done),
            Woken::ToLook => {
                let now = Snapshot::of(&Report::read(&root, needs));
                write(session.out, args.json, &before, &now, time())?;
                before = now;
            }
        }
    }
}

fn write(
    out: &mut dyn Write,
    json: bool,
    before: &Snapshot,
    now: &Snapshot,
    time: Option<Moment>,
) -> Result<(), Error> {
    for event in before.changes(now) {
        if json {
            output::write_json(out, &event, time)?;
        } else {
            output::write(out, &event, time)?;
        }
    }
    Ok(out.flush()?)
}

fn is_met(until: Until, state: Option<State>) -> bool {
    match until {
        Until::Free => matches!(state, Some(State::Free | State::Defined)),
        Until::InUse => state == Some(State::InUse),
        Until::Gone => state.is_none(),
    }
}

/// Why a wait has ended.
enum Woken {
    /// Something may have changed, or it was time to look.
    ToLook,
    /// Nobody wants to know any more.
    ToStop,
}

/// What is waited for: signals, the reader of the output, and udev's events.
struct Waiting {
    signals: SignalFd,
    stdout: io::Stdout,
    /// Something comes out of it when udev has told something.
    events: PipeReader,
    /// Without a writer every poll would report that the pipe is closed.
    _told: PipeWriter,
}

impl Waiting {
    fn new(root: &Sysroot) -> Result<Self, Error> {
        let failed = |problem: &str, cause| Error::Doing { problem: problem.into(), cause };
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        let no_signals = |errno: Errno| failed("signals", errno.into());
        // Before there is a second thread, which they must not end either.
        signals.thread_block().map_err(no_signals)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&signals, flags).map_err(no_signals)?;
        let no_pipe = |cause| failed("pipe", cause);
        let (events, told) = io::pipe().map_err(no_pipe)?;
        if root.may_change() {
            listen(told.try_clone().map_err(no_pipe)?);
        }
        Ok(Self { signals, stdout: io::stdout(), events, _told: told })
    }

    fn wait(&mut self, limit: Duration) -> Result<Woken, Error> {
        match self.poll(limit) {
            Ok((true, _)) => return Ok(Woken::ToStop),
            Ok((false, true)) => {
                sleep(SETTLE);
                // All that has come by now is seen at the next look.
                let _ = self.events.read(&mut [0; 4096]);
            }
            Ok((false, false)) | Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(Error::Doing { problem: "poll".into(), cause: errno.into() });
            }
        }
        Ok(Woken::ToLook)
    }

    /// Whether it is to end, and whether udev has told something.
    fn poll(&self, limit: Duration) -> nix::Result<(bool, bool)> {
        // A reader that has gone is told of whatever is asked for.
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stdout.as_fd(), PollFlags::empty()),
            PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
        ];
        // Rounded up: to look too early would be to look again and again.
        let limit = limit.as_millis().saturating_add(1);
        poll(&mut fds, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX))?;
        let [signal, closed, event] =
            fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        Ok((signal || closed, event))
    }
}

/// Listens to udev on a thread of its own, so that no burst of events is more than the socket can keep
/// while the host is looked at. That there was something is all that is told. Returns when what
/// happens from now on will be heard; without udev the interval is all there is.
#[cfg(feature = "udev")]
fn listen(mut told: PipeWriter) {
    let (ready, heard) = std::sync::mpsc::channel();
    let listening = std::thread::Builder::new().spawn(move || {
        let subsystems = |builder: udev::MonitorBuilder| {
            builder.match_subsystem("egm")?.match_subsystem("pci")?.listen()
        };
        let Ok(monitor) = udev::MonitorBuilder::new().and_then(subsystems) else { return };
        // Nobody waits for it any more where it took too long.
        let _ = ready.send(());
        loop {
            let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            }
            // Also where there was more than the socket could keep, and nothing is left to read.
            monitor.iter().for_each(drop);
            if told.write_all(&[0]).is_err() {
                return;
            }
        }
    });
    // An error is that there is no udev, or no thread to listen on.
    let _ = listening.map(drop);
    let _ = heard.recv_timeout(Duration::from_secs(1));
}

#[cfg(not(feature = "udev"))]
fn listen(_told: PipeWriter) {}

/// `free egm4`
fn awaited(words: &[String]) -> Result<(Until, RegionName), Error> {
    let usage =
        Error::Usage("--until takes free, in-use or gone, and a region, as in --until free egm4");
    let [state, region] = words else { return Err(usage) };
    match (Until::from_str(state, false), parse_region(region)) {
        (Ok(until), Ok(region)) => Ok((until, region)),
        _ => Err(usage),
    }
}

/// More often than that would be to do nothing else.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time < Duration::from_millis(50) {
        return Err("expected at least 50ms".into());
    }
    Ok(time)
}
