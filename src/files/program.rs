//! Other programs: run without standard input, and with a time limit.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::sysroot::describe;
use crate::values::text::{excerpt, plural, shown};
use std::thread::sleep;

/// Maximum amount of output that is kept.
const OUTPUT_LIMIT: usize = 4 << 20;

/// How long to wait for the output after a program has exited: its children may still run.
const OUTPUT_PAUSE: Duration = Duration::from_millis(500);

/// The reason why a program failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("{}: cannot be run: {}", shown(program), describe(cause))]
    NotRun { program: PathBuf, cause: io::Error },
    #[error("{}: timed out after {}", shown(program), plural(limit.as_secs(), "second"))]
    TooSlow { program: PathBuf, limit: Duration },
    #[error("{}: {status}{}", shown(program), said(words))]
    Failed { program: PathBuf, status: ExitStatus, words: String },
}

/// The output of a program.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The path of a program, found in `PATH` like in a shell.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let directories = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&directories)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name));
    candidates.find(|path| is_program(path))
}

/// Whether a path leads to an executable file.
pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Runs a program; after the time limit, it is killed together with its children.
pub(crate) fn run(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    limit: Duration,
) -> Result<Printed, ProgramError> {
    let not_run = |cause| ProgramError::NotRun { program: program.to_owned(), cause };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // So that its children can be killed with it.
        .process_group(0)
        .spawn()
        .map_err(not_run)?;
    let ended = Output::of(&mut child)
        .and_then(|outputs| wait(&mut child, limit).map(|status| (outputs, status)))
        .inspect_err(|_| end(&mut child));
    let (outputs, status) = ended.map_err(not_run)?;
    let Some(status) = status else {
        return Err(ProgramError::TooSlow { program: program.to_owned(), limit });
    };
    let [stdout, stderr] = outputs.map(|output| output.map(Output::text).unwrap_or_default());
    let printed = Printed { stdout, stderr };
    if status.success() {
        return Ok(printed);
    }
    Err(ProgramError::Failed { program: program.to_owned(), status, words: printed.stderr })
}

/// The output of a program, read on a separate thread so that the program never blocks.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

impl Output {
    /// Standard output and standard error of a child.
    fn of(child: &mut Child) -> io::Result<[Option<Self>; 2]> {
        let stdout = child.stdout.take().map(Self::read).transpose()?;
        Ok([stdout, child.stderr.take().map(Self::read).transpose()?])
    }

    fn read(mut stream: impl Read + Send + 'static) -> io::Result<Self> {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (at_end, end) = channel();
        let read = Arc::clone(&bytes);
        thread::Builder::new().spawn(move || {
            let mut part = [0; 4096];
            // An error ends the output as well.
            while let Some(part) = stream.read(&mut part).ok().and_then(|count| part.get(..count)) {
                if part.is_empty() {
                    break;
                }
                if let Ok(mut read) = read.lock() {
                    let left = OUTPUT_LIMIT.saturating_sub(read.len()).min(part.len());
                    read.extend_from_slice(part.get(..left).unwrap_or_default());
                }
            }
            // The receiver may be gone.
            let _ = at_end.send(());
        })?;
        Ok(Self { bytes, end })
    }

    /// The output so far, after a short wait.
    fn text(self) -> String {
        let _ = self.end.recv_timeout(OUTPUT_PAUSE);
        self.bytes.lock().map_or(String::new(), |it| String::from_utf8_lossy(&it).into_owned())
    }
}

/// `None` if it timed out.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    let mut delay = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= limit {
            end(child);
            return Ok(None);
        }
        sleep(delay);
        delay = (delay * 2).min(Duration::from_millis(50));
    }
}

/// Kills a child together with its own children.
fn end(child: &mut Child) {
    // It may have exited by now.
    let _ = i32::try_from(child.id()).map(|pid| killpg(Pid::from_raw(pid), Signal::SIGKILL));
    let _ = child.wait();
}

fn said(words: &str) -> String {
    match words.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", excerpt(line.trim(), 300)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{find, run};
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    fn shell(script: &str, limit: Duration) -> Result<super::Printed, String> {
        run(Path::new("/bin/sh"), &["-c", script], limit).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_has_a_time_limit() {
        let printed = shell("echo out; echo err >&2", Duration::from_secs(10)).unwrap();
        assert_eq!((printed.stdout.as_str(), printed.stderr.as_str()), ("out\n", "err\n"));
        let error = shell("echo why >&2; exit 3", Duration::from_secs(10)).unwrap_err();
        assert_eq!(error, "/bin/sh: exit status: 3: why");
        let started = Instant::now();
        let error = shell("sleep 60 & sleep 60", Duration::from_millis(100)).unwrap_err();
        assert!(error.contains("timed out after"), "{error}");
        // The child in the background keeps the output open.
        let printed = shell("echo said; sleep 60 & exit 0", Duration::from_secs(10)).unwrap();
        assert_eq!(printed.stdout, "said\n");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn long_output_is_truncated() {
        let printed = shell("yes | head -c 20000000", Duration::from_secs(30)).unwrap();
        assert_eq!(printed.stdout.len(), 4 << 20);
    }

    #[test]
    fn programs_are_found_in_path() {
        assert!(find("sh").is_some_and(|path| path.ends_with("sh")));
        assert_eq!(find("no-such-program-anywhere"), None);
        // qemu's user emulation turns vfork into fork, so a child cannot report its error there.
        if Command::new("/nonexistent").spawn().is_err() {
            let error = run(Path::new("/nonexistent"), &[""; 0], Duration::from_secs(1));
            let error = error.unwrap_err().to_string();
            assert_eq!(error, "/nonexistent: cannot be run: No such file or directory");
        }
    }
}
