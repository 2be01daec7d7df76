//! Time lines as a picture in SVG.

use std::fmt::Write;

use super::timeline::{Sender, Timeline, What};

const WIDTH: usize = 720;
const ROW: usize = 22;
/// Where the lines of client and server are.
const CLIENT: usize = 120;
const SERVER: usize = 660;

pub(crate) fn draw(target: &str, timelines: &[Timeline]) -> String {
    let mut rows = String::new();
    let mut y = 2 * ROW;
    text(&mut rows, 10, y, "start", "bold", &format!("How {target} closes"));
    for timeline in timelines {
        y += 2 * ROW;
        text(&mut rows, 10, y, "start", "bold", timeline.purpose());
        y += ROW;
        text(&mut rows, CLIENT, y, "middle", "normal", "client");
        text(&mut rows, SERVER, y, "middle", "normal", "server");
        let entries = timeline.entries();
        let bottom = y + ROW * entries.len() + ROW / 2;
        for x in [CLIENT, SERVER] {
            let _ = writeln!(rows, r##"<path d="M{x} {}V{bottom}" stroke="#888"/>"##, y + 6);
        }
        for entry in entries {
            y += ROW;
            let (from, to, tip) = match entry.sender {
                Sender::Client => (CLIENT, SERVER, SERVER - 8),
                Sender::Server => (SERVER, CLIENT, CLIENT + 8),
            };
            let color = match entry.what {
                What::CloseNotify => "#080",
                What::Reset => "#c00",
                What::Fin => "#00c",
                _ => "#444",
            };
            let _ = writeln!(
                rows,
                r#"<path d="M{from} {y}H{to}M{tip} {}L{to} {y}L{tip} {}" stroke="{color}"/>"#,
                y - 4,
                y + 4
            );
            text(
                &mut rows,
                CLIENT - 10,
                y + 4,
                "end",
                "normal",
                &format!("{:.1} ms", entry.at.as_secs_f64() * 1_000.0),
            );
            text(&mut rows, (CLIENT + SERVER) / 2, y - 4, "middle", "normal", &entry.to_string());
        }
    }
    let height = y + 2 * ROW;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" fill=\"none\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<path d=\"M0 0H{WIDTH}V{height}H0Z\" fill=\"#fff\"/>\n{rows}</svg>\n"
    )
}

fn text(rows: &mut String, x: usize, y: usize, anchor: &str, weight: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // A `String` can always be written to.
    let _ = writeln!(
        rows,
        r##"<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" fill="#000">{text}</text>"##
    );
}
