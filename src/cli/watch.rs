//! `egm-probe watch`

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use nix::errno::Errno;
#[cfg(feature = "udev")]
use nix::poll::PollTimeout;
use nix::poll::{PollFd, PollFlags, poll};

use super::args::{parse_region, parse_time};
use super::error::Error;
use super::signals::{EndSignals, timeout};
use super::{Exit, Session};
use crate::claims::{Counter, Sight};
use crate::host::{Accounts, Host, Needs, has_pid_namespace};
use crate::output::watch as output;
use crate::report::{Report, Snapshot, State};
use crate::sysroot::Sysroot;
use crate::values::{Moment, RegionName};
use std::thread::sleep;

/// How often to read the driver's count of open files. Only when it changes are the holders searched
/// again.
const COUNT_INTERVAL: Duration = Duration::from_millis(200);

/// How often to read the whole host without an event, in case one is missing.
const HOST_INTERVAL: Duration = Duration::from_secs(10);

/// The pause between searches while a region is being opened, as a multiple of the time that they
/// take: the driver's count does not show the end of that.
const SEARCH_PAUSE: u32 = 9;

/// Time to wait for further events: a driver creates a region file by file.
const SETTLE: Duration = Duration::from_millis(20);

#[derive(Args, Debug)]
pub(super) struct WatchArgs {
    /// Print the current state first, as if it had just appeared
    #[arg(long)]
    initial: bool,
    /// How often to read everything again, such as 500ms or 2s: reservations and definitions send no
    /// events, and neither do holders if the driver does not count them
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_interval)]
    interval: Duration,
    /// Exit when a region is free, in-use or gone
    #[arg(long, num_args = 2, value_names = ["STATE", "REGION"])]
    until: Option<Vec<String>>,
    /// Give up after this time, such as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// Print one line of JSON per change (egm-probe.watch/1)
    #[arg(short = 'J', long)]
    json: bool,
}

/// The state to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Until {
    Free,
    InUse,
    Gone,
}

pub(super) fn run(args: &WatchArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let until = args.until.as_deref().map(awaited).transpose()?;
    if session.global.no_occupancy && matches!(until, Some((Until::Free | Until::InUse, _))) {
        return Err(Error::Usage(
            "--no-occupancy: not with --until free or in-use (holders must be checked)",
        ));
    }
    match follow(args, until.as_ref(), session) {
        // Success would mean that the state was reached.
        Err(Error::Write(error)) if is_closed(&error) && until.is_some() => Ok(Exit::CLOSED),
        result => result,
    }
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

fn follow(
    args: &WatchArgs,
    until: Option<&(Until, RegionName)>,
    session: &mut Session<'_>,
) -> Result<Exit, Error> {
    let root = session.global.root()?;
    let is_recorded = session.global.from.is_some();
    let needs = session.global.wanted(Snapshot::NEEDS);
    // Listen before the first reading, so that no change is missed.
    let mut waiting = Waiting::new(&root)?;
    let started = Instant::now();
    let accounts = Accounts::of(&root);
    // Before each search, so that no change since then is missed.
    let mut counter = Counter::open(&root);
    let mut host = Host::read(&root, needs | Needs::GPUS);
    let mut host_read = started;
    let mut report = Report::of(&root, host.clone(), needs, &accounts, None);
    let mut read = Instant::now();
    let mut next_search = read + SEARCH_PAUSE * started.elapsed();
    session.warn_of(&report, report.regions());
    let mut before = Snapshot::of(&report);
    let time = || (!is_recorded).then(Moment::now);
    if args.initial {
        write(session.out, args.json, &Snapshot::default(), &before, time())?;
    }
    if let Some((until, region)) = until
        && before.state(region).is_none()
    {
        let existing: Vec<_> = before.regions().map(RegionName::as_str).collect();
        let existing = if existing.is_empty() { "none".into() } else { existing.join(", ") };
        let waiting = if *until == Until::Gone { "" } else { "; waiting for it" };
        session.note(format_args!("{region} does not exist (regions: {existing}){waiting}"));
    }
    loop {
        if let Some((until, region)) = until
            && is_met(*until, before.state(region))
        {
            return Ok(Exit::Done);
        }
        let over = args.timeout.map(|limit| limit.saturating_sub(started.elapsed()));
        if over == Some(Duration::ZERO) {
            return Ok(Exit::No);
        }
        if is_recorded {
            // A recorded host never changes.
            return Ok(if until.is_some() { Exit::No } else { Exit::Done });
        }
        let has_count = report.claims.search().has_count();
        let pause = if has_count { COUNT_INTERVAL.min(args.interval) } else { args.interval };
        match waiting.wait(over.map_or(pause, |over| over.min(pause)))? {
            Woken::Signal(_) | Woken::Closed if until.is_none() => return Ok(Exit::Done),
            Woken::Signal(number) => return Ok(Exit::Signal(number)),
            Woken::Closed => return Ok(Exit::CLOSED),
            Woken::Timeout
                if read.elapsed() < args.interval
                    && (report.claims.sight == Sight::Complete || Instant::now() < next_search)
                    && counter.as_ref().is_some_and(Counter::is_current)
                    && report.claims.search().holders_exist(&root) => {}
            woken @ (Woken::Timeout | Woken::Event) => {
                read = Instant::now();
                counter = Counter::open(&root);
                // udev reports all changes of devices, except of mode and owner.
                let is_current = waiting.has_events && host_read.elapsed() < HOST_INTERVAL;
                if matches!(woken, Woken::Timeout) && is_current && host.is_whole() {
                    host.read_permissions(&root, &accounts);
                } else {
                    host = Host::read(&root, needs | Needs::GPUS);
                    host_read = read;
                }
                let last = Some(report.claims.search());
                report = Report::of(&root, host.clone(), needs, &accounts, last);
                next_search = Instant::now() + SEARCH_PAUSE * read.elapsed();
                let now = Snapshot::of(&report);
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

/// The reason why a wait ended.
enum Woken {
    /// The time is over.
    Timeout,
    /// udev reported a change.
    Event,
    /// The signal with this number arrived.
    Signal(u8),
    /// The output was closed.
    Closed,
}

/// The sources to wait for: signals, the output, and udev's events.
struct Waiting {
    signals: EndSignals,
    stdout: io::Stdout,
    /// Readable after an event of udev.
    events: PipeReader,
    /// Whether udev's events arrive.
    has_events: bool,
    /// Without a writer every poll would report that the pipe is closed.
    _notify: PipeWriter,
}

impl Waiting {
    fn new(root: &Sysroot) -> Result<Self, Error> {
        // Before the second thread starts, so that it inherits the mask.
        let signals = EndSignals::block()?;
        let no_pipe = |cause| Error::Doing { problem: "pipe".into(), cause };
        let (events, notify) = io::pipe().map_err(no_pipe)?;
        let listens = root.may_change() && listen(notify.try_clone().map_err(no_pipe)?);
        // A container gets no events.
        let has_events = listens && !has_pid_namespace(root);
        Ok(Self { signals, stdout: io::stdout(), events, has_events, _notify: notify })
    }

    fn wait(&mut self, limit: Duration) -> Result<Woken, Error> {
        match self.poll(limit) {
            Ok(Woken::Event) => {
                sleep(SETTLE);
                // The next reading covers all events so far.
                let _ = self.events.read(&mut [0; 4096]);
                Ok(Woken::Event)
            }
            Ok(woken) => Ok(woken),
            Err(Errno::EINTR) => Ok(Woken::Timeout),
            Err(errno) => Err(Error::Doing { problem: "poll".into(), cause: errno.into() }),
        }
    }

    fn poll(&self, limit: Duration) -> nix::Result<Woken> {
        // A closed output is reported whatever events are requested.
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stdout.as_fd(), PollFlags::empty()),
            PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut fds, timeout(limit))?;
        let [signal, closed, event] =
            fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        Ok(if signal {
            self.signals.read()?.map_or(Woken::Timeout, Woken::Signal)
        } else if closed {
            Woken::Closed
        } else if event {
            Woken::Event
        } else {
            Woken::Timeout
        })
    }
}

/// Listens to udev on its own thread, so that a burst of events does not overflow the socket while the
/// host is read. Writes a byte for any number of events. Returns whether later events will be
/// received; without udev only the interval applies.
#[cfg(feature = "udev")]
fn listen(mut notify: PipeWriter) -> bool {
    let (ready, heard) = std::sync::mpsc::channel();
    let listening = std::thread::Builder::new().spawn(move || {
        let subsystems = |builder: udev::MonitorBuilder| {
            builder.match_subsystem("egm")?.match_subsystem("pci")?.listen()
        };
        let Ok(monitor) = udev::MonitorBuilder::new().and_then(subsystems) else { return };
        // Fails if the receiver has timed out.
        let _ = ready.send(());
        loop {
            let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            }
            // Report even if the socket overflowed and nothing is left to read.
            monitor.iter().for_each(drop);
            if notify.write_all(&[0]).is_err() {
                return;
            }
        }
    });
    // Without a thread, only the interval applies.
    listening.is_ok() && heard.recv_timeout(Duration::from_secs(1)).is_ok()
}

#[cfg(not(feature = "udev"))]
fn listen(_notify: PipeWriter) -> bool {
    false
}

/// `free egm4`
fn awaited(words: &[String]) -> Result<(Until, RegionName), Error> {
    let usage = Error::Usage(
        "--until: expected free, in-use or gone and a region, as in --until free egm4",
    );
    let [state, region] = words else { return Err(usage) };
    match (Until::from_str(state, false), parse_region(region)) {
        (Ok(until), Ok(region)) => Ok((until, region)),
        _ => Err(usage),
    }
}

/// Rejects intervals so short that the program would do nothing else.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time < Duration::from_millis(50) {
        return Err("expected at least 50ms".into());
    }
    Ok(time)
}
