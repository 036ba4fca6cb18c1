//! The command line: arguments in, an exit code out. All output goes to the caller's writers. Each
//! command has its own file, with its arguments.

// Doc comments of arguments are help texts, without Markdown.
#![allow(clippy::doc_markdown)]

mod args;
mod capture;
mod completions;
mod difference;
mod doctor;
mod domain_file;
mod error;
mod export;
mod list;
mod metrics;
mod reserve;
mod show;
mod signals;
mod stanza;
mod stanza_args;
mod topology;
mod udev;
mod udev_nodes;
mod validate;
mod watch;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ColorChoice, CommandFactory, Parser, ValueEnum};
use nix::sys::signal::Signal;

use crate::claims::unseen::Recorded;
use crate::files::user_file;
use crate::host::{Needs, Region};
use crate::report::Report;
use crate::sysroot::{OpenError, Sysroot};
use args::{Cli, Command, Global, Target, parse_target};
use error::Error;

/// The exit status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done,
    /// Region or GPU not found, request refused, domain invalid or check failed.
    No,
    /// Usage error.
    Usage,
    /// EGM was requested, and this host has none.
    NoEgm,
    /// Read or write error.
    Failed,
    /// Ended by this signal before the requested state was reached: 128 and its number, as shells
    /// have it.
    Signal(u8),
    /// A command exists but cannot be executed: 126, as env(1) has it.
    NotExecuted,
    /// A command does not exist: 127.
    NoCommand,
}

impl Exit {
    /// The status that shells report for a program that writes to a closed pipe.
    const CLOSED: Self = Self::Signal(Signal::SIGPIPE as u8);

    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::NoEgm => 3,
            Self::Failed => 4,
            Self::Signal(number) => number.saturating_add(128),
            Self::NotExecuted => 126,
            Self::NoCommand => 127,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The terminal that the output goes to, if any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal {
    /// Its width in characters; `None` if the output is not a terminal.
    pub width: Option<u16>,
    /// Whether colours are wanted unless `--color` says otherwise.
    pub color: bool,
}

impl Terminal {
    /// The same with the colours of `--color`.
    fn with(self, choice: ColorChoice) -> Self {
        let color = match choice {
            ColorChoice::Always => true,
            ColorChoice::Auto => self.color,
            ColorChoice::Never => false,
        };
        Self { color, ..self }
    }

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
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(mut error) => {
            suggest_option(&mut error);
            return usage(&error, terminal.with(color_of(&args)), out, err);
        }
    };
    let terminal = terminal.with(cli.global.color);
    let mut session = Session { global: &cli.global, terminal, out, err };
    let result = session.execute(&cli.command);
    let if_closed = match (&result, &cli.command) {
        (Ok(exit), _) => *exit,
        // Their exit status is the answer, which may not be known yet.
        (Err(_), Command::Validate(_) | Command::Doctor(_) | Command::Udev(_)) => Exit::CLOSED,
        (Err(_), _) => Exit::Done,
    };
    let result = result.and_then(|exit| Ok(session.out.flush().map(|()| exit)?));
    finish(result, if_closed, session.err)
}

/// Writes the error of a result and returns its exit code. A closed pipe is not an error.
fn finish(result: Result<Exit, Error>, if_closed: Exit, err: &mut dyn Write) -> Exit {
    match result {
        Ok(exit) => exit,
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => if_closed,
        Err(error) => {
            // If this fails as well, only the exit code is left.
            let _ = writeln!(err, "egm-probe: {error}");
            error.exit()
        }
    }
}

/// The definition of the command line without hidden commands, for completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    let whole = Cli::command();
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let shown = clap::Command::new("egm-probe").version(env!("CARGO_PKG_VERSION"));
    shown.propagate_version(true).args(whole.get_arguments()).subcommands(commands)
}

/// The value of `--color` of a command line that only asks for help, or is invalid.
fn color_of(args: &[OsString]) -> ColorChoice {
    let mut args = args.iter().filter_map(|arg| arg.to_str());
    let mut choice = None;
    while let Some(arg) = args.next() {
        let value = if arg == "--color" { args.next() } else { arg.strip_prefix("--color=") };
        choice = value.and_then(|value| ColorChoice::from_str(value, false).ok()).or(choice);
    }
    choice.unwrap_or_default()
}

/// Names the option for a region, GPU or domain that `stanza` was given without one.
fn suggest_option(error: &mut clap::Error) {
    let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return };
    let option = match parse_target(argument) {
        Ok(Target::Region(_)) => "--region",
        Ok(Target::Gpu(_)) => "--gpu",
        _ if Path::new(argument.trim()).extension().is_some_and(|it| it == "xml") => "--domain",
        Ok(Target::Path(_)) | Err(_) => return,
    };
    if error.kind() == ErrorKind::UnknownArgument && usage.contains("egm-probe stanza") {
        let tip = match option {
            "--domain" => format!("use `--domain {}`", argument.trim()),
            _ => format!("use `egm-probe stanza {option} {}`", argument.trim()),
        };
        let tip = tip.into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
}

/// Help and version go to standard output; anything else that clap reports is a usage error.
fn usage(
    error: &clap::Error,
    terminal: Terminal,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    let text = error.render();
    let (exit, written) = if error.use_stderr() {
        (Exit::Usage, write!(err, "{text}"))
    } else if terminal.color {
        (Exit::Done, write!(out, "{}", text.ansi()).and_then(|()| out.flush()))
    } else {
        (Exit::Done, write!(out, "{text}").and_then(|()| out.flush()))
    };
    finish(written.map(|()| exit).map_err(Error::from), exit, err)
}

/// One run of a command: the global options and the writers.
struct Session<'a> {
    global: &'a Global,
    terminal: Terminal,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl Session<'_> {
    fn execute(&mut self, command: &Command) -> Result<Exit, Error> {
        match command {
            Command::List(args) => list::run(args, self),
            Command::Show(args) => show::run(args, self),
            Command::Validate(args) => validate::run(args, self),
            Command::Topology(args) => topology::run(args, self),
            Command::Watch(args) => watch::run(args, self),
            Command::Capture(args) => capture::run(args, self),
            Command::Export(command) => export::run(command, self),
            Command::Metrics(args) => metrics::run(args, self),
            Command::Reserve(args) => reserve::reserve(args, self),
            Command::Release(args) => reserve::release(args, self),
            Command::Doctor(args) => doctor::run(args, self),
            Command::Udev(command) => udev::run(command, self),
            Command::Stanza(args) => stanza::run(args, self),
            Command::Completions(args) => completions::run(args, self),
            Command::CompleteValues(args) => completions::values(args, self),
        }
    }

    // Errors in writing to standard error cannot be reported.

    fn warn(&mut self, warning: impl Display) {
        let _ = writeln!(self.err, "egm-probe: warning: {warning}");
    }

    fn note(&mut self, note: impl Display) {
        let _ = writeln!(self.err, "egm-probe: note: {note}");
    }

    /// Prints the warnings about a host and about some of its regions.
    fn warn_of<'r>(&mut self, report: &Report, regions: impl IntoIterator<Item = &'r Region>) {
        for warning in report.warnings() {
            self.warn(warning);
        }
        for region in regions {
            for warning in region.all_warnings() {
                self.warn(format_args!("{}: {warning}", region.name));
            }
        }
    }

    /// Writes a file atomically, or to standard output if the file is `-`.
    fn write_to(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        if is_dash(path) {
            return Ok(write(self.out)?);
        }
        let mut bytes = Vec::new();
        write(&mut bytes)?;
        Ok(user_file::write(path, &bytes)?)
    }
}

/// Whether a path is `-`, for standard input or output.
fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

impl Global {
    fn root(&self) -> Result<Sysroot, Error> {
        Ok(match (&self.sysroot, &self.from) {
            // clap finds this only if both are on the same side of the command.
            (Some(_), Some(_)) => {
                return Err(Error::Usage("--sysroot and --from cannot be used together"));
            }
            (Some(directory), None) => host_below(directory)?,
            (None, Some(file)) => open_capture(file)?,
            (None, None) => Sysroot::host(),
        })
    }

    /// Whether the host is the running one.
    fn is_local(&self) -> bool {
        self.sysroot.is_none() && self.from.is_none()
    }

    /// Reads the needed parts of the host; claims unless `--no-occupancy` is given.
    fn report(&self, needs: Needs) -> Result<Report, Error> {
        Ok(Report::read(&self.root()?, self.wanted(needs)))
    }

    fn wanted(&self, mut needs: Needs) -> Needs {
        needs.set(Needs::CLAIMS, needs.contains(Needs::CLAIMS) && !self.no_occupancy);
        needs
    }
}

/// The host below a directory; an error if there is none, so that it does not seem to lack EGM.
fn host_below(directory: &Path) -> Result<Sysroot, OpenError> {
    let root = Sysroot::directory(directory)?;
    has_host(&root, directory)?;
    Ok(root)
}

fn has_host(root: &Sysroot, directory: &Path) -> Result<(), OpenError> {
    let is_absent = |path: &str| root.stat(path).is_err_and(|error| error.is_absent());
    if is_absent("/sys") && is_absent("/proc") {
        let problem =
            "contains neither sys/ nor proc/; --sysroot takes the root directory of a host";
        let cause = io::Error::new(io::ErrorKind::NotFound, problem);
        return Err(OpenError::Unreadable { path: directory.to_owned(), cause });
    }
    Ok(())
}

/// The host in a capture: a file or directory, or standard input for `-`.
fn open_capture(file: &Path) -> Result<Sysroot, OpenError> {
    let root = if is_dash(file) {
        Sysroot::from_tar(io::stdin().lock())?
    } else {
        Sysroot::capture(file)?
    };
    if file.is_dir() {
        has_host(&root, file)?;
    }
    let bad = |problem: String| OpenError::BadArchive { path: file.to_owned(), problem };
    Recorded::read(&root).map_err(bad)?;
    Ok(root)
}
