//! The command line: arguments in, an exit code out. What is to be printed goes to the writers
//! that the caller gives.

mod args;
mod capture;
mod completions;
mod difference;
mod doctor;
mod domain_file;
mod error;
mod list;
mod metrics;
mod reserve;
mod setup_args;
mod show;
mod stanza;
mod topology;
mod udev;
mod udev_nodes;
mod validate;
mod watch;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::claims::unseen::Recorded;
use crate::host::{Gpu, Needs, Region};
use crate::report::Report;
use crate::sysroot::{OpenError, Sysroot};
use crate::warning::Warning;
use args::{Cli, Command, Global, When};
use error::Error;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The answer is no: no such region or GPU, refused, or something wrong.
    No = 1,
    /// Wrong usage.
    Usage = 2,
    /// This host has no EGM, and some was asked for.
    NoEgm = 3,
    /// Something could not be read or written.
    Failed = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What the program's output goes to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal {
    /// Its width in characters; `None` where the output is no terminal.
    pub width: Option<u16>,
    /// Whether colours are wanted unless `--color` says otherwise.
    pub color: bool,
}

impl Terminal {
    /// Looks at standard output and at `NO_COLOR`.
    #[must_use]
    pub fn detect() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        // https://no-color.org: set and not empty.
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| size.ws_col);
        Self { width: (width > 0).then_some(width), color: !no_color }
    }
}

/// Runs one command line; the first argument is the program's name.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    terminal: Terminal,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    // The system takes it back faster than it can be taken apart, which would be a tenth of a start.
    let mut definition = ManuallyDrop::new(command());
    let matches = match definition.try_get_matches_from_mut(args) {
        Ok(matches) => matches,
        Err(error) => return usage(&error, terminal, out, err),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, terminal, out, err),
    };
    let result = execute(&cli, terminal, out, err).and_then(|exit| {
        out.flush()?;
        Ok(exit)
    });
    match result {
        Ok(exit) => exit,
        // Whoever read the output has had enough of it.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            // If this cannot be written either, the exit code is all there is to say it.
            let _ = writeln!(err, "egm-probe: {error}");
            error.exit()
        }
    }
}

/// The definition of the command line, from which completions and manual pages can be made.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

fn execute(
    cli: &Cli,
    terminal: Terminal,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Error> {
    let terminal = Terminal { color: cli.global.color.or(terminal.color), ..terminal };
    match &cli.command {
        Command::List(args) => list::run(args, &cli.global, terminal, out, err),
        Command::Show(args) => show::run(args, &cli.global, out, err),
        Command::Validate(args) => validate::run(args, &cli.global, terminal, out, err),
        Command::Topology(args) => topology::run(args, &cli.global, terminal, out, err),
        Command::Watch(args) => watch::run(args, &cli.global, out, err),
        Command::Capture(args) => capture::run(args, &cli.global, out, err),
        Command::Metrics(args) => metrics::run(args, &cli.global, out),
        Command::Reserve(args) => reserve::reserve(args, &cli.global, out, err),
        Command::Release(args) => reserve::release(args, &cli.global, out),
        Command::Doctor(args) => doctor::run(args, &cli.global, terminal, out),
        Command::Udev(command) => udev::run(command, &cli.global, out, err),
        Command::Stanza(args) => stanza::run(args, &cli.global, out, err),
        Command::Completions(args) => completions::run(args, out),
    }
}

/// Help and version are answers; everything else that clap says is about wrong usage.
fn usage(
    error: &clap::Error,
    terminal: Terminal,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    let text = error.render();
    let (exit, result) = if error.use_stderr() {
        (Exit::Usage, write!(err, "{text}"))
    } else if terminal.color {
        (Exit::Done, write!(out, "{}", text.ansi()).and_then(|()| out.flush()))
    } else {
        (Exit::Done, write!(out, "{text}").and_then(|()| out.flush()))
    };
    match result.map_err(Error::from) {
        Ok(()) => exit,
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => exit,
        Err(error) => {
            let _ = writeln!(err, "egm-probe: {error}");
            error.exit()
        }
    }
}

impl Global {
    fn root(&self) -> Result<Sysroot, Error> {
        Ok(match (&self.sysroot, &self.from) {
            (Some(directory), _) => host_below(directory)?,
            (None, Some(file)) => open_capture(file)?,
            (None, None) => Sysroot::host(),
        })
    }

    /// Whether the host is the running one.
    fn is_local(&self) -> bool {
        self.sysroot.is_none() && self.from.is_none()
    }

    /// Reads what is needed of the host; claims only if they are wanted.
    fn report(&self, needs: Needs) -> Result<Report, Error> {
        Ok(Report::read(&self.root()?, self.wanted(needs)))
    }

    fn wanted(&self, mut needs: Needs) -> Needs {
        needs.set(Needs::CLAIMS, needs.contains(Needs::CLAIMS) && !self.no_occupancy);
        needs
    }
}

/// The host below a directory, which must be there: that nothing was found would be no answer.
fn host_below(directory: &Path) -> Result<Sysroot, OpenError> {
    let root = Sysroot::directory(directory)?;
    let is_absent = |path: &str| root.stat(path).is_err_and(|error| error.is_absent());
    if is_absent("/sys") && is_absent("/proc") {
        let problem = "has no sys/ and no proc/ in it; --sysroot reads the host whose they are";
        let cause = io::Error::new(io::ErrorKind::NotFound, problem);
        return Err(OpenError::Unreadable { path: directory.to_owned(), cause });
    }
    Ok(root)
}

/// The host in a capture: a file, or standard input for `-`.
fn open_capture(file: &Path) -> Result<Sysroot, OpenError> {
    let root = if domain_file::is_stdin(file) {
        Sysroot::from_tar(io::stdin().lock())?
    } else {
        Sysroot::archive(file)?
    };
    let bad = |problem: String| OpenError::BadArchive { path: file.to_owned(), problem };
    Recorded::read(&root).map_err(bad)?;
    Ok(root)
}

impl When {
    fn or(self, auto: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Auto => auto,
            Self::Never => false,
        }
    }
}

/// Writes the warnings about a host and about some of its regions.
fn write_warnings<'a>(
    err: &mut dyn Write,
    report: &Report,
    regions: impl IntoIterator<Item = &'a Region>,
) {
    // Standard error is the last resort: where it is closed there is nobody to tell.
    let mut write = |prefix: &str, warning: &Warning| {
        let _ = writeln!(err, "egm-probe: warning: {prefix}{warning}");
    };
    for warning in report.warnings() {
        write("", warning);
    }
    for region in regions {
        for warning in region.all_warnings() {
            write(&format!("{}: ", region.name), warning);
        }
    }
}

/// Writes the warnings about a GPU that no region names.
fn write_gpu_warnings(err: &mut dyn Write, gpu: &Gpu) {
    for warning in &gpu.warnings {
        let _ = writeln!(err, "egm-probe: warning: {warning}");
    }
}
