//! Time lines as a picture in SVG.

use std::fmt::Write;

use super::timeline::{Sender, Timeline, What};

const WIDTH: usize = 440;
const ROW: usize = 22;
/// Where the lines of client and server are.
const CLIENT: usize = 96;
const SERVER: usize = 410;
/// The room for a character of the title.
const CHARACTER: usize = 9;

/// The colours of the handbook's pictures.
const STYLE: &str =
    "  svg { --page: #ffffff; --text: #1f2328; --line: #8c959f; --ok: #1a7f37; --fin: #0969da; --reset: #cf222e; }
  @media (prefers-color-scheme: dark) {
    svg { --page: #161b22; --text: #e6edf3; --line: #7d8590; --ok: #56d364; --fin: #58a6ff; --reset: #ff7b72; }
  }
  rect { fill: var(--page); } text { font: 13px system-ui, sans-serif; fill: var(--text); text-anchor: middle; }
  .title { font-weight: 600; text-anchor: start; } .time { text-anchor: end; }
  path { fill: none; stroke: var(--line); }
  .close_notify { stroke: var(--ok); } .fin { stroke: var(--fin); } .reset { stroke: var(--reset); }
";

pub(crate) fn draw(target: &str, timelines: &[Timeline]) -> String {
    let mut rows = String::new();
    let mut y = 2 * ROW;
    let title = format!("How {target} closes");
    let width = WIDTH.max(20 + CHARACTER * title.chars().count());
    text(&mut rows, 10, y, "title", &title);
    for timeline in timelines {
        y += 2 * ROW;
        text(&mut rows, 10, y, "title", timeline.purpose());
        y += ROW;
        text(&mut rows, CLIENT, y, "side", "client");
        text(&mut rows, SERVER, y, "side", "server");
        let entries = timeline.entries();
        let bottom = y + ROW * entries.len() + ROW / 2;
        for x in [CLIENT, SERVER] {
            let _ = writeln!(rows, r#"<path d="M{x} {}V{bottom}"/>"#, y + 6);
        }
        for entry in entries {
            y += ROW;
            let (from, to, tip) = match entry.sender {
                Sender::Client => (CLIENT, SERVER, SERVER - 8),
                Sender::Server => (SERVER, CLIENT, CLIENT + 8),
            };
            let class = match entry.what {
                What::CloseNotify => "close_notify",
                What::Reset => "reset",
                What::Fin => "fin",
                _ => "record",
            };
            let _ = writeln!(
                rows,
                r#"<path class="{class}" d="M{from} {y}H{to}M{tip} {}L{to} {y}L{tip} {}"/>"#,
                y - 4,
                y + 4
            );
            text(&mut rows, CLIENT - 10, y + 4, "time", &format!("{:.1} ms", entry.at.as_secs_f64() * 1_000.0));
            text(&mut rows, (CLIENT + SERVER) / 2, y - 4, "what", &entry.to_string());
        }
    }
    let height = y + 2 * ROW;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <style>\n{STYLE}</style>\n<rect width=\"{width}\" height=\"{height}\" rx=\"6\"/>\n{rows}</svg>\n"
    )
}

fn text(rows: &mut String, x: usize, y: usize, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // A `String` can always be written to.
    let _ = writeln!(rows, r#"<text class="{class}" x="{x}" y="{y}">{text}</text>"#);
}
