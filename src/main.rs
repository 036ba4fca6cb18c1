//! The program: see the library's `cli` module.
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use egm_probe::cli::{Terminal, run};

fn main() -> ExitCode {
    let stdout: Box<dyn Write> =
        if stdout::is_writable() { Box::new(io::stdout().lock()) } else { Box::new(Unwritable) };
    let mut out = BufWriter::new(stdout);
    run(std::env::args_os(), Terminal::detect(), &mut out, &mut io::stderr().lock()).into()
}

/// Standard output that is closed or open only for reading: `Stdout` ignores this error.
struct Unwritable;

impl Write for Unwritable {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(rustix::io::Errno::BADF.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether standard output was writable when the program was started. Before `main`, Rust opens
/// `/dev/null` for reading and writing in place of a closed one, as other programs do to discard output.
mod stdout {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{OFlags, fcntl_getfl};

    static IS_WRITABLE: AtomicBool = AtomicBool::new(false);

    #[used]
    #[expect(
        unsafe_code,
        reason = "a function in this section runs before Rust's runtime starts; this one makes one \
                  system call, and uses nothing that the runtime sets up"
    )]
    #[unsafe(link_section = ".init_array")]
    static CHECK: extern "C" fn() = check;

    extern "C" fn check() {
        let flags = fcntl_getfl(rustix::stdio::stdout());
        let is_writable = flags.is_ok_and(|it| it.intersects(OFlags::WRONLY | OFlags::RDWR));
        IS_WRITABLE.store(is_writable, Ordering::Relaxed);
    }

    pub(super) fn is_writable() -> bool {
        IS_WRITABLE.load(Ordering::Relaxed)
    }
}
