//! A picture of a host, for tickets and documents: a box for each socket with its regions in
//! proportion to their size (held, stranded and free memory) and their GPUs.
//!
//! Text stays text, and colours follow the light or dark scheme of the reader.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use super::topology::{node_range, own_nodes};
use super::{gpus_of, or_dash};
use crate::report::{Capacity, Place, Report, Row, Socket, Sockets, State, labels};
use crate::values::Bytes;
use crate::values::text::{excerpt, plural, printable};

const WIDTH: u64 = 960;
const MARGIN: u64 = 20;
const BOX: u64 = WIDTH - 2 * MARGIN;
const INNER: u64 = BOX - 2 * MARGIN;
const BAR: u64 = 34;
const GPU_HEIGHT: u64 = 72;

/// The maximum width of nearly all characters of the small text.
const CHARACTER: u64 = 7;
const GAP: u64 = 14;

/// GPUs per row; current sockets have two.
const GPUS_A_ROW: usize = 4;

/// Colours by class: a light scheme, and the differences of the dark one.
const STYLE: &str = "\
text{font:14px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#1b1f24}\
.title{font-size:18px;font-weight:600}\
.name{font-weight:600}\
.small{font-size:12px;fill:#57606a}\
.page{fill:#ffffff}\
.socket{fill:#f6f8fa;stroke:#afb8c1}\
.gpu{fill:#ffffff;stroke:#76b900;stroke-width:1.5}\
.line{stroke:#76b900;stroke-width:1.5;fill:none}\
.held{fill:#0969da}\
.stranded{fill:#bf8700}\
.free{fill:#dafbe1}\
.reserved{fill:#8250df}\
.unknown{fill:#d0d7de}\
.frame{fill:none;stroke:#57606a}\
@media (prefers-color-scheme:dark){\
text{fill:#e6edf3}\
.small{fill:#9198a1}\
.page{fill:#0d1117}\
.socket{fill:#161b22;stroke:#3d444d}\
.gpu{fill:#0d1117}\
.held{fill:#4493f8}\
.stranded{fill:#d29922}\
.free{fill:#12381f}\
.reserved{fill:#a371f7}\
.unknown{fill:#3d444d}\
.frame{stroke:#9198a1}\
}";

/// Writes the picture: an SVG document.
///
/// # Errors
/// The writer fails.
pub fn write(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let mut picture = Picture { body: String::new(), y: MARGIN, end: 0 };
    // Writing to a String cannot fail.
    let _ = picture.draw(report);
    let height = picture.y + MARGIN;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<title>EGM regions of a host</title>\n\
         <style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>"
    )?;
    out.write_all(picture.body.as_bytes())?;
    writeln!(out, "</svg>")
}

/// The elements drawn so far, and the current height.
struct Picture {
    body: String,
    y: u64,
    /// The end of the last region's bar.
    end: u64,
}

impl Picture {
    fn draw(&mut self, report: &Report) -> fmt::Result {
        self.y += 18;
        self.text(MARGIN, self.y, "title", &title(report))?;
        self.y += GAP;
        let largest = report.host.regions.iter().filter_map(|region| region.size).max();
        for socket in Sockets::of(report).iter() {
            self.socket(socket, largest)?;
        }
        self.legend()
    }

    fn socket(&mut self, socket: &Socket<'_>, largest: Option<Bytes>) -> fmt::Result {
        let top = self.y;
        let mut inside = Self { body: String::new(), y: top + 30, end: 0 };
        inside.text(2 * MARGIN, inside.y, "name", &socket_name(socket))?;
        inside.y += GAP;
        for row in &socket.regions {
            inside.region(row, largest)?;
            inside.gpus(&gpus_of(socket, Some(row.region)), true)?;
        }
        inside.gpus(&gpus_of(socket, None), false)?;
        for nodes in &socket.other_nodes {
            inside.y += 16;
            let text = cut(&format!("{}, without CPUs", node_range(nodes)), INNER);
            inside.text(2 * MARGIN, inside.y, "small", &text)?;
        }
        inside.y += GAP;
        let height = inside.y - top;
        writeln!(
            self.body,
            "<rect class=\"socket\" x=\"{MARGIN}\" y=\"{top}\" width=\"{BOX}\" height=\"{height}\" rx=\"10\"/>"
        )?;
        self.body.push_str(&inside.body);
        self.y = inside.y + GAP;
        Ok(())
    }

    fn region(&mut self, row: &Row<'_>, largest: Option<Bytes>) -> fmt::Result {
        let Row { region, claims, capacity, .. } = row;
        let x = 2 * MARGIN;
        self.y += 20;
        let size = or_dash(region.size);
        self.text(x, self.y, "name", &format!("{}  {size}", region.name))?;
        let holders: Vec<_> = labels(*claims);
        let holders =
            if holders.is_empty() { String::new() } else { format!(": {}", holders.join(", ")) };
        let state = format!("{}{holders}", capacity.state.name());
        self.text(x + 220, self.y, "small", &cut(&state, INNER - 220))?;
        self.y += 8;
        let width = region
            .size
            .zip(largest)
            .map_or(INNER, |(size, largest)| share(INNER, size, largest).max(2));
        let y = self.y;
        let mut at = x;
        for (class, part) in parts(region.size, *capacity) {
            let part_width = match (region.size, part) {
                (Some(size), Some(part)) => share(width, part, size),
                _ => width,
            };
            let part_width = part_width.min(x + width - at);
            if part_width > 0 {
                writeln!(
                    self.body,
                    "<rect class=\"{class}\" x=\"{at}\" y=\"{y}\" width=\"{part_width}\" height=\"{BAR}\"><title>{}</title></rect>",
                    escaped(&format!("{class}: {}", or_dash(part)))
                )?;
            }
            at += part_width;
        }
        writeln!(
            self.body,
            "<rect class=\"frame\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BAR}\"/>"
        )?;
        self.y += BAR;
        self.end = x + width;
        Ok(())
    }

    fn gpus(&mut self, gpus: &[&Place<'_>], is_attached: bool) -> fmt::Result {
        let columns = u64::try_from(gpus.len().clamp(2, GPUS_A_ROW)).unwrap_or(2);
        let width = (INNER - (columns - 1) * GAP) / columns;
        for row in gpus.chunks(GPUS_A_ROW) {
            let top = self.y + GAP;
            for (place, column) in row.iter().zip(0..) {
                let x = 2 * MARGIN + column * (width + GAP);
                if is_attached {
                    // From the end of the bar if it is too short.
                    let middle = x + 24;
                    let (from, turn) = (middle.min(self.end), top - GAP / 2);
                    let start = self.y;
                    writeln!(
                        self.body,
                        "<path class=\"line\" d=\"M{from} {start}V{turn}H{middle}V{top}\"/>"
                    )?;
                }
                writeln!(
                    self.body,
                    "<rect class=\"gpu\" x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"{GPU_HEIGHT}\" rx=\"6\"/>"
                )?;
                let gpu = place.gpu;
                self.text(x + 12, top + 20, "name", &format!("GPU {}", gpu.address))?;
                let name = gpu.name.as_deref().unwrap_or("-");
                let nodes = place.nodes.as_ref();
                let nodes = nodes.map_or(String::new(), |(nodes, from)| own_nodes(nodes, *from));
                let lines = [name, &gpu.driver.in_words(), &nodes];
                for (line, y) in lines.iter().zip([36, 51, 66]) {
                    self.text(x + 12, top + y, "small", &cut(line, width - 20))?;
                }
            }
            self.y = top + GPU_HEIGHT;
        }
        Ok(())
    }

    fn legend(&mut self) -> fmt::Result {
        self.y += 4;
        let mut x = MARGIN;
        for (class, label) in [
            ("held", "held: mapped by its holder"),
            ("stranded", "stranded: not mapped by its holder"),
            ("free", "free"),
            ("reserved", "reserved"),
            ("unknown", "unknown"),
        ] {
            let y = self.y;
            writeln!(
                self.body,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\"/>\
                 <rect class=\"frame\" x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\"/>"
            )?;
            self.text(x + 20, y + 12, "small", label)?;
            x += 40 + 7 * u64::try_from(label.len()).unwrap_or(0);
        }
        self.y += 14;
        Ok(())
    }

    fn text(&mut self, x: u64, y: u64, class: &str, text: &str) -> fmt::Result {
        writeln!(self.body, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(text))
    }
}

/// A text shortened to a width, with control characters escaped.
fn cut(text: &str, width: u64) -> String {
    let text = printable(text);
    let most = usize::try_from(width / CHARACTER).unwrap_or(0);
    excerpt(&text, if text.chars().count() > most { most.saturating_sub(3) } else { most })
}

fn title(report: &Report) -> String {
    let regions = report.host.regions.len();
    let gpus = report.host.gpus().count();
    format!("{}, {}", plural(regions, "EGM region"), plural(gpus, "GPU"))
}

fn socket_name(socket: &Socket<'_>) -> String {
    let Some(id) = socket.node else { return "unknown NUMA node".into() };
    let cpus = socket.numa.and_then(|node| node.cpus.as_ref()).filter(|cpus| !cpus.is_empty());
    let memory = socket.numa.and_then(|node| node.memory);
    let cpus = excerpt(&or_dash(cpus), 60);
    format!("NUMA node {id}: CPUs {cpus}, {} of the host's own memory", or_dash(memory))
}

/// The parts of a region, in order.
fn parts(size: Option<Bytes>, capacity: Capacity) -> Vec<(&'static str, Option<Bytes>)> {
    let Some(whole) = size else { return vec![("unknown", None)] };
    match capacity {
        Capacity { state: State::Unknown, .. } => vec![("unknown", size)],
        Capacity { state: State::Reserved, .. } => vec![("reserved", size)],
        Capacity { held: Some(held), stranded: Some(stranded), .. } => {
            let free = whole.0.saturating_sub(held.0).saturating_sub(stranded.0);
            vec![("held", Some(held)), ("stranded", Some(stranded)), ("free", Some(Bytes(free)))]
        }
        _ => vec![("unknown", size)],
    }
}

/// The width of a part; at least 1 unless the part is empty.
fn share(width: u64, part: Bytes, whole: Bytes) -> u64 {
    if part.0 == 0 || whole.0 == 0 {
        return 0;
    }
    let exact = u128::from(width) * u128::from(part.0) / u128::from(whole.0);
    u64::try_from(exact).unwrap_or(width).clamp(1, width)
}

/// Escapes a text for XML, with control characters shown as escapes.
fn escaped(text: &str) -> String {
    printable(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
