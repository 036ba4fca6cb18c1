//! Metrics of a host's EGM regions over HTTP, for Prometheus.
//!
//! ```sh
//! cargo run --example exporter -- 127.0.0.1:9943                      # this host
//! cargo run --example exporter -- 127.0.0.1:9943 --from host.tar.gz   # a recorded host
//! ```
//!
//! Then `http://127.0.0.1:9943/metrics` returns the output of `egm-probe metrics`. The host is read
//! on each request; only root sees all holders.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use egm_probe::output::metrics;
use egm_probe::report::Report;
use egm_probe::sysroot::Sysroot;

/// Limits on the size and the duration of a request.
const REQUEST_LIMIT: u64 = 8 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let (address, root) = match args.as_slice() {
        [address] => (address, Sysroot::host()),
        [address, option, file] if option == "--from" => {
            (address, Sysroot::capture(Path::new(file))?)
        }
        _ => return Err("usage: exporter ADDRESS:PORT [--from FILE]".into()),
    };
    for stream in TcpListener::bind(address)?.incoming() {
        // An error ends only this connection.
        if let Err(error) = stream.and_then(|stream| answer(&stream, &root)) {
            eprintln!("exporter: {error}");
        }
    }
    Ok(())
}

/// A connection that is read until a moment: a limit on each read would let a client that sends a byte
/// now and then stay for hours.
struct InTime<'a> {
    stream: &'a TcpStream,
    end: Instant,
}

impl Read for InTime<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

/// Answers one request.
pub(crate) fn answer(mut stream: &TcpStream, root: &Sysroot) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = InTime { stream, end: Instant::now() + PATIENCE };
    let mut request = BufReader::new(request).take(REQUEST_LIMIT).lines();
    let first = request.next().transpose()?.unwrap_or_default();
    // Unread data would reset the connection before the response arrives.
    while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut body = Vec::new();
    let status = match first.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["GET", "/metrics", ..] => {
            metrics::write(&mut body, &Report::read(root, metrics::NEEDS))?;
            "200 OK"
        }
        ["GET", ..] => "404 Not Found",
        _ => "405 Method Not Allowed",
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body)
}
